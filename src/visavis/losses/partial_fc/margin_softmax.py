"""Class centers and the loss over all of them, for any head: streamed, sampled, split over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from visavis.distributed.collectives import RankGroup
from visavis.errors import DataError, RecipeError
from visavis.losses.head import Head, checked
from visavis.losses.partial_fc.chunked_softmax import ChunkConfig, ChunkedLogits
from visavis.losses.partial_fc.cosines import EPSILON, accumulation_dtype, cosines, inverse_norms, target_cosines
from visavis.losses.partial_fc.regularizers import CenterLoss, norm_weights
from visavis.losses.partial_fc.sampling import draw_classes, keep_positives, step_generator
from visavis.losses.partial_fc.sparse_sgd import gather_rows

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

Streamed = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class BatchRecord:
    """What the last training batch showed, as 0-d tensors: loss, mean target cosine, top-1 accuracy without margin.

    With sampling, top-1 is among the sampled classes.
    """

    loss: Tensor
    target_cosine: Tensor
    accuracy: Tensor


class MarginSoftmax(nn.Module):
    """Mean loss of a head over all classes, streamed in chunks.

    L = mean_i [ log(1 + Σ_{j≠y} exp(z_ij − z_iy)) ] with z as the head defines it; for heads that score the classes
    one by one, L = mean_i [ w₊ log(1 + exp(−z_iy)) + w₋ Σ_{j≠y} log(1 + exp z_ij) ]. Label smoothing ε over C classes
    is (1 − ε) L + ε mean_ij(log Σ exp z_i − z_ij), the rule of torch.nn.functional.cross_entropy.

    Memory beyond the centers and their gradient is bounded by `chunk` and `keep`, whatever the number of classes. With
    `sample_rate` below 1 a training step looks at all classes of the batch and a random share of the others
    (Partial FC, arXiv:2010.05222, arXiv:2203.15565); which ones is a function of (seed, step), not of the ranks.

    Under an initialized torch.distributed the classes are split over the ranks in equal parts (one more for the last
    ones where C does not divide), embeddings and labels of all ranks are gathered, and the loss is the mean over the
    gathered batch, the same on every rank. The gradient of the embeddings is multiplied by the number of ranks, so
    that DistributedDataParallel's average is the gradient of that mean. Parameters of the head itself get the same
    gradient on every rank; do not average or wrap this module.

    Args:
        head: the formula of the target.
        num_classes: C ≥ 1.
        dim: D, length of an embedding.
        sample_rate: share of the classes to look at, in (0, 1].
        sub_centers: K ≥ 1 centers per class, the nearest counts (see `SubCenterArcFace`).
        label_smoothing: ε in [0, 1).
        center_loss: weight of the distance to the mean feature of the class, ≥ 0 (see `CenterLoss`).
        norm_weight_power: γ ≥ 0 of the weights by feature norm (see `norm_weights`).
        chunk: classes per step of the stream.
        keep: bytes of cosines kept between forward and backward; beyond, they are computed twice.
        sparse: give the gradient of sampled centers as a sparse tensor: nothing of size C is touched, but the
            optimizer must be `visavis.losses.partial_fc.sparse_sgd.SparseSGD` or another that takes sparse gradients.
        seed: for the initial centers and the sampling; None draws one from torch's default generator.
        ranks: the processes to split over; the default group if there is one.
        init_std: standard deviation of the initial centers' values, > 0. 1/√D when None: centers of length about 1.
            How far a step turns a center falls with its length; arcface_torch starts at 0.01, length 0.226 for D = 512.

    Raises:
        RecipeError: an argument out of range.

    Shapes: embeddings (B, D), raw, any float type; labels (B,) int64 in [0, C). Parameter `weight` (rows, D) with
    K rows per class of this rank.
    """

    def __init__(
        self,
        head: Head,
        *,
        num_classes: int,
        dim: int,
        sample_rate: float = 1.0,
        sub_centers: int = 1,
        label_smoothing: float = 0.0,
        center_loss: float = 0.0,
        norm_weight_power: float = 0.0,
        chunk: int = 4096,
        keep: int = 64 << 20,
        sparse: bool = False,
        seed: int | None = None,
        ranks: RankGroup | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("dim", dim), ("sub_centers", sub_centers), ("chunk", chunk)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RecipeError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.ranks = ranks or RankGroup()
        if num_classes < self.ranks.size:
            raise RecipeError(f"{num_classes} classes cannot be split over {self.ranks.size} ranks; use fewer ranks")
        self.head = head
        self.num_classes, self.dim = num_classes, dim
        self.sub_centers = max(sub_centers, head.sub_centers)
        self.sample_rate = checked("sample_rate", sample_rate, 0.0, 1.0, open_low=True)
        smoothing = checked("label_smoothing", label_smoothing, 0.0, 1.0, open_high=True)
        if smoothing and head.reduction == "sigmoid":
            raise RecipeError(f"label_smoothing has no meaning for {type(head).__name__}: it scores classes one by one")
        self.norm_weight_power = checked("norm_weight_power", norm_weight_power, 0.0, 10.0)
        self.chunk, self.keep, self.sparse = chunk, keep, sparse
        self.start = num_classes * self.ranks.rank // self.ranks.size
        self.stop = num_classes * (self.ranks.rank + 1) // self.ranks.size
        self.seed = self.ranks.first(int(torch.randint(1 << 62, ())) if seed is None else seed)
        std = 1.0 / math.sqrt(dim) if init_std is None else checked("init_std", init_std, 0.0, 10.0, open_low=True)
        rows = slice(self.start * self.sub_centers, self.stop * self.sub_centers)
        self.weight = nn.Parameter(_initial_rows(rows, dim, self.seed, std=std))
        self.bias = None if head.normalized else nn.Parameter(torch.zeros(len(self.weight)))
        self.centers = None
        if checked("center_loss", center_loss, 0.0, 1e4):
            self.centers = CenterLoss(self.start, self.stop, dim, weight=center_loss, ranks=self.ranks)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        head.setup(num_classes, self.sample_rate)
        self.label_smoothing = smoothing or head.label_smoothing
        self.last: BatchRecord | None = None
        self.register_load_state_dict_pre_hook(_with_present_names)

    def extra_repr(self) -> str:
        """The sizes, for print(model)."""
        return (
            f"num_classes={self.num_classes}, dim={self.dim}, sub_centers={self.sub_centers}, "
            f"sample_rate={self.sample_rate:g}, classes here={self.start}..{self.stop - 1}"
        )

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " L"]) -> Float[Tensor, ""]:
        """Mean loss over the batch (of all ranks).

        Raises:
            DataError: shapes do not fit, no samples, or a label lies outside [0, num_classes).
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim or labels.shape != embeddings.shape[:1]:
            raise DataError(
                f"expected embeddings (B, {self.dim}) and labels (B,), "
                f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            counts = self.ranks.counts(len(labels), labels.device)
            labels = self.ranks.gather(labels, counts)
            self._check(labels)
            embeddings = embeddings.to(accumulation_dtype(embeddings.dtype))
            return self._loss(self.ranks.gather_with_gradient(embeddings, counts, complete=True), labels)

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        head = self.head
        weight, bias, local, considered = self._classes(labels)
        unit, norm = self._split(embeddings)
        kind: dict[str, Any] = {"sub_centers": self.sub_centers, "normalized": head.normalized}
        plan = ChunkConfig(
            chunk=self.chunk,
            keep=self.keep,
            negatives=head.negative_logits if head.has_negatives else None,
            reduction=head.reduction,
            total=self.label_smoothing > 0.0,
            reduce=self.ranks.sum if self.ranks.size > 1 else None,
            **kind,
        )
        offset = head.offset()
        shift = norm.new_zeros(len(norm)) if offset is None else offset.to(norm.dtype).expand(len(norm))
        with torch.no_grad():
            cosine = self.ranks.sum(target_cosines(unit, weight, bias, local, **kind))
            # A batch that is not finite is skipped by whoever trains; it must not stay in the state either.
            learning = self.training and bool(torch.isfinite(norm.sum() + cosine.sum()))
            if learning:
                head.update_state(cosine, norm)
                if head.sees_negatives:
                    first = self._stream(unit, weight, bias, head.scales(norm), shift, cosine, cosine, local, plan)
                    head.update_negatives_state(self.ranks.log_sum_exp(first[1]), cosine)
            threshold = head.negative_threshold(cosine, norm) if head.has_negatives else cosine
        scale = head.scales(norm)
        cosine, others, total, top = self._stream(unit, weight, bias, scale, shift, cosine, threshold, local, plan)
        wanted = head.target_logit(cosine, norm)
        logit = cosine + (wanted.logit - cosine).detach() if head.detach_margin else wanted.logit
        if head.reduction == "sigmoid":
            positive, negative = head.balance()
            rows = positive * softplus(-(scale * logit + shift), threshold=50.0) + negative * self.ranks.total(others)
        else:
            z = scale * logit
            rows = softplus(self.ranks.log_sum_exp(others) - z, threshold=50.0)
            if self.label_smoothing:
                share = self.label_smoothing / considered
                rows = rows + self.label_smoothing * z - share * (z + self.ranks.total(total))
        if wanted.regularizer is not None:
            rows = rows + wanted.regularizer
        if self.norm_weight_power:
            rows = rows * norm_weights(norm, self.norm_weight_power)
        loss = rows.mean()
        if self.centers is not None:
            loss = loss + self.centers(embeddings, labels, move=learning)
        with torch.no_grad():
            top = self.ranks.max(top)
            self.last = BatchRecord(loss.detach(), cosine.mean(), (cosine >= top).to(loss.dtype).mean())
            if self.training:
                self.steps += 1
        return loss

    @torch.no_grad()
    def logits(self, embeddings: Float[Tensor, "B D"], classes: slice = slice(None)) -> Float[Tensor, "B C"]:
        """s·cos θ (or wᵀx + b) of `classes` of this rank without margin, (B, classes)."""
        embeddings = embeddings.to(accumulation_dtype(embeddings.dtype))
        unit, norm = self._split(embeddings)
        first, last, _ = classes.indices(self.stop - self.start)
        rows = slice(first * self.sub_centers, last * self.sub_centers)
        bias = None if self.bias is None else self.bias[rows]
        cosine = cosines(unit, self.weight[rows], bias, sub_centers=self.sub_centers, normalized=self.head.normalized)
        return cosine * self.head.scales(norm)[:, None]

    @torch.no_grad()
    def predict(self, embeddings: Float[Tensor, "B D"]) -> Integer[Tensor, " B"]:
        """The class (B,) of the highest logit without margin, the first of equals: for closed-set accuracy.

        All ranks must call it with the same embeddings and get the same answer. Memory holds `chunk` classes at once.
        """
        best = embeddings.new_full((len(embeddings),), -math.inf, dtype=accumulation_dtype(embeddings.dtype))
        found = torch.full((len(embeddings),), self.num_classes, device=embeddings.device)
        for first in range(0, self.stop - self.start, self.chunk):
            value, index = self.logits(embeddings, slice(first, first + self.chunk)).max(1)
            found = torch.where(value > best, index + first + self.start, found)
            best = torch.maximum(best, value)
        highest = self.ranks.max(best.clone())
        return -self.ranks.max(-torch.where(best == highest, found, self.num_classes))

    @torch.no_grad()
    def class_rows(self) -> tuple[Tensor, Tensor | None]:
        """The centers (C·K, D) of all ranks, of length 1 where the head compares angles, and the biases (C·K,) or None.

        All ranks must call it.
        """
        weight = self.weight.detach()
        if self.head.normalized:
            weight = weight * inverse_norms(weight)[:, None]
        counts = self.ranks.counts(len(weight), weight.device)
        bias = None if self.bias is None else self.ranks.gather(self.bias.detach(), counts)
        return self.ranks.gather(weight, counts), bias

    def _classes(self, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor, int]:
        """The centers and biases to look at, the labels as indices into them, and how many there are on all ranks."""
        if self.sample_rate == 1.0 or not self.training:
            return self.weight, self.bias, labels - self.start, self.num_classes
        count = max(1, round(self.sample_rate * self.num_classes))
        drawn = draw_classes(self.num_classes, count, step_generator(self.seed, "classes", int(self.steps)))
        every = keep_positives(drawn, labels, 0, self.num_classes)
        index = every[(every >= self.start) & (every < self.stop)] - self.start
        here = (labels >= self.start) & (labels < self.stop)
        local = torch.where(here, torch.searchsorted(index, labels - self.start), -1)
        rows = index
        if self.sub_centers > 1:
            rows = (index[:, None] * self.sub_centers + torch.arange(self.sub_centers, device=index.device)).flatten()
        weight = gather_rows(self.weight, rows) if self.sparse else self.weight.index_select(0, rows)
        return weight, None if self.bias is None else self.bias[rows], local, len(every)

    def _stream(self, *args: Any) -> Streamed:
        apply: Callable[..., Streamed] = ChunkedLogits.apply
        return apply(*args)

    def _split(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(embeddings, dim=1)
        return (embeddings / norm.clamp_min(EPSILON)[:, None] if self.head.normalized else embeddings), norm

    def _check(self, labels: Tensor) -> None:
        if len(labels) == 0:
            raise DataError("expected a batch of at least one sample, got an empty one")
        low, high = int(labels.min()), int(labels.max())
        if not 0 <= low <= high < self.num_classes:
            raise DataError(f"labels must lie in [0, {self.num_classes}), got {low} to {high}")


def present_name(key: str) -> str:
    """A state dict's key as it is called now; the center loss's means were `centres.means`."""
    return key.removesuffix("centres.means") + "centers.means" if key.endswith("centres.means") else key


def _with_present_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[present_name(key)] = state.pop(key)


def _initial_rows(rows: slice, dim: int, seed: int, *, std: float) -> Tensor:
    """Rows of N(0, std), a function of (seed, row): the same however the rows are split over ranks."""
    block = 8192
    out = torch.empty(rows.stop - rows.start, dim)
    for number in range(rows.start // block, -(-rows.stop // block)):
        whole = torch.randn(block, dim, generator=step_generator(seed, "centers", number)).mul_(std)
        first, last = max(rows.start, number * block), min(rows.stop, (number + 1) * block)
        out[first - rows.start : last - rows.start] = whole[first - number * block : last - number * block]
    return out
