"""Class centres and the loss over all of them, for any head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from visavis.errors import DataError, RecipeError
from visavis.heads.head import Head, checked
from visavis.heads.stream import EPSILON, Plan, Stream, cosines, target_cosines, wide


@dataclass(frozen=True)
class BatchRecord:
    """What the last training batch showed, as 0-d tensors: loss, mean target cosine, top-1 accuracy without margin."""

    loss: Tensor
    target_cosine: Tensor
    accuracy: Tensor


class MarginSoftmax(nn.Module):
    """Mean loss of a head over all classes, streamed in chunks.

    L = mean_i [ log(1 + Σ_{j≠y} exp(z_ij − z_iy)) ] with z as the head defines it. With label smoothing ε over C
    classes, L = (1 − ε) L + ε mean_ij(log Σ exp z_i − z_ij), the rule of torch.nn.functional.cross_entropy.

    Memory beyond the centres and their gradient is bounded by `chunk` and `keep`, whatever the number of classes.

    Args:
        head: the formula of the target.
        num_classes: C ≥ 1.
        dim: D, length of an embedding.
        sub_centres: K ≥ 1 centres per class, the nearest counts (arXiv:2009.10656).
        label_smoothing: ε in [0, 1).
        chunk: classes per step of the stream.
        keep: bytes of cosines kept between forward and backward; beyond, they are computed twice.

    Raises:
        RecipeError: an argument out of range.

    Shapes: embeddings (B, D), raw, any float type; labels (B,) int64 in [0, C). Parameter `weight` (C·K, D).
    """

    def __init__(
        self,
        head: Head,
        *,
        num_classes: int,
        dim: int,
        sub_centres: int = 1,
        label_smoothing: float = 0.0,
        chunk: int = 8192,
        keep: int = 64 << 20,
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("dim", dim), ("sub_centres", sub_centres), ("chunk", chunk)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RecipeError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.head = head
        self.num_classes, self.dim, self.sub_centres = num_classes, dim, sub_centres
        self.label_smoothing = checked("label_smoothing", label_smoothing, 0.0, 1.0, open_high=True)
        if self.label_smoothing and head.reduction == "sigmoid":
            raise RecipeError(
                f"label_smoothing has no meaning for {type(head).__name__}, which scores classes one by one"
            )
        self.chunk, self.keep = chunk, keep
        # Only directions matter where centres are normalised; unit length keeps the step size independent of D.
        spread = 1.0 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.randn(num_classes * sub_centres, dim).mul_(spread))
        self.bias = None if head.normalised else nn.Parameter(torch.zeros(num_classes * sub_centres))
        self.last: BatchRecord | None = None

    def extra_repr(self) -> str:
        """The sizes, for print(model)."""
        return f"num_classes={self.num_classes}, dim={self.dim}, sub_centres={self.sub_centres}"

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the batch.

        Raises:
            DataError: shapes do not fit or a label lies outside [0, num_classes).
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._loss(embeddings.to(wide(embeddings.dtype)), labels)

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        head, kind = self.head, {"sub_centres": self.sub_centres, "normalised": self.head.normalised}
        unit, norm = self._split(embeddings)
        with torch.no_grad():
            cosine = target_cosines(unit, self.weight, self.bias, labels, **kind)
            if self.training:
                head.observe(cosine, norm)
            threshold = head.target(cosine, norm).logit if head.has_negatives else cosine
        scale = head.scales(norm)
        offset = torch.zeros_like(scale)
        plan = Plan(
            chunk=self.chunk,
            keep=self.keep,
            negatives=head.negatives if head.has_negatives else None,
            reduction=head.reduction,
            total=self.label_smoothing > 0.0,
            **kind,
        )
        streamed: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = Stream.apply
        cosine, others, total, top = streamed(
            unit, self.weight, self.bias, scale, offset, cosine, threshold, labels, plan
        )
        wanted = head.target(cosine, norm)
        logit = cosine + (wanted.logit - cosine).detach() if head.detach_margin else wanted.logit
        z = scale * logit
        rows = softplus(others - z, threshold=50.0)
        if self.label_smoothing:
            share = self.label_smoothing / self.num_classes
            rows = rows + self.label_smoothing * z - share * (z + total)
        if wanted.regulariser is not None:
            rows = rows + wanted.regulariser
        loss = rows.mean()
        with torch.no_grad():
            self.last = BatchRecord(loss.detach(), cosine.mean(), (cosine >= top).to(loss.dtype).mean())
        return loss

    @torch.no_grad()
    def logits(self, embeddings: Tensor) -> Tensor:
        """s·cos θ (or wᵀx + b) of every class without margin, (B, C): for inference and closed-set accuracy."""
        embeddings = embeddings.to(wide(embeddings.dtype))
        unit, norm = self._split(embeddings)
        cosine = cosines(unit, self.weight, self.bias, sub_centres=self.sub_centres, normalised=self.head.normalised)
        return cosine * self.head.scales(norm)[:, None]

    def _split(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(embeddings, dim=1)
        return (embeddings / norm.clamp_min(EPSILON)[:, None] if self.head.normalised else embeddings), norm

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim or labels.shape != embeddings.shape[:1]:
            raise DataError(
                f"expected embeddings (B, {self.dim}) and labels (B,), "
                f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
            )
        if len(labels) == 0:
            raise DataError("expected a batch of at least one sample, got an empty one")
        low, high = labels.min(), labels.max()
        if not 0 <= int(low) <= int(high) < self.num_classes:
            raise DataError(f"labels must lie in [0, {self.num_classes}), got {int(low)} to {int(high)}")
