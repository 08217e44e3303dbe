"""Everything of size batch × classes: the cosines, their reduction over the classes, and the exact gradient.

The classes are walked in chunks. Normalized centers are never written down: 1/‖w‖ multiplies the chunk of logits on
the way forward and the chunk of logit gradients on the way back, and the part of the gradient along w is removed
with the row sums of gradient × cosine, which need no pass over the centers of their own:

    cos = (x̂ Wᵀ) r,  r = 1/‖w‖;   given g = ∂L/∂cos:   ∂L/∂x̂ = (g r) W,   ∂L/∂w = r gᵀx̂ − r² (Σ_i g cos) w
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from visavis.losses.partial_fc.cosines import raw_cosines


@dataclass(frozen=True)
class ChunkConfig:
    """How to walk the classes: what does not depend on the values.

    Attributes:
        chunk: classes per step.
        keep: bytes of cosines that may be kept for the gradient; beyond, they are computed again.
        sub_centers: rows of the weight per class; the largest cosine counts.
        normalized: divide by the norms of the centers.
        reduction: "softmax": log Σ exp z_j; "sigmoid": Σ log(1 + exp z_j).
        negatives: η(cosine, threshold), or None for the identity.
        total: also sum the logits.
        reduce: sums a tensor over the ranks in place; None on one rank.
    """

    chunk: int
    keep: int = 64 << 20
    sub_centers: int = 1
    normalized: bool = True
    reduction: Literal["softmax", "sigmoid"] = "softmax"
    negatives: Callable[[Tensor, Tensor], Tensor] | None = None
    total: bool = False
    reduce: Callable[[Tensor], Any] | None = None


class ChunkedLogits(torch.autograd.Function):
    """(x̂, W, b, s, o, target, threshold, labels, plan) -> target (B,), reduced (B,), total (B,), top (B,).

    `target` is given (it was needed to choose the threshold) and returned, so that its gradient comes back here and
    joins the same two products as everyone else's. `reduced` reduces z_j = s·η(cos_j) + o over j ≠ y, `total` sums z_j
    over them if the plan asks for it, `top` is the largest cosine among them (no gradient).
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        unit: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        offset: Tensor,
        target: Tensor,
        threshold: Tensor,
        labels: Tensor,
        config: ChunkConfig,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Walk the chunks once, keeping a running maximum and a running sum per sample.

        Shapes: unit (B, D), weight (R, D), bias (R,), the others (B,).
        """
        chunks = _chunks(labels, len(weight) // config.sub_centers, config)
        keep = len(unit) * len(weight) * target.element_size() <= config.keep
        held: list[tuple[Tensor, Tensor | None]] = []
        low = torch.finfo(target.dtype).min
        peak, top = torch.full_like(target, low), torch.full_like(target, low)
        mass, total = torch.zeros_like(target), torch.zeros_like(target)
        scratch = target.new_empty(len(unit), min(config.chunk, len(weight) // config.sub_centers))
        for part, rows, columns in chunks:
            raw, inverse = raw_cosines(unit, weight[part], None if bias is None else bias[part], config.normalized)
            held.append((raw if keep else target, inverse))
            cosine = raw if config.sub_centers == 1 else raw.unflatten(1, (-1, config.sub_centers)).amax(2)
            mapped = cosine if config.negatives is None else config.negatives(cosine, threshold[:, None])
            z = torch.mul(mapped, scale[:, None], out=scratch[:, : mapped.shape[1]])
            if config.reduction == "sigmoid":
                z += offset[:, None]
            if config.total:
                z[rows, columns] = 0.0
                total += z.sum(1)
            z[rows, columns] = -torch.inf
            highest = torch.maximum(peak, z.amax(1))
            if config.reduction == "sigmoid":
                mass += softplus(z, threshold=50.0).sum(1)
            else:
                mass = mass * (peak - highest).exp() + z.sub_(highest[:, None]).exp_().sum(1)
            if config.negatives is not None:
                top = torch.maximum(top, cosine.index_put((rows, columns), top.new_tensor(low)).amax(1))
            peak = highest
        if config.negatives is None:
            top = (peak - offset) / scale if config.reduction == "sigmoid" else peak / scale
        reduced = mass if config.reduction == "sigmoid" else peak + mass.log()
        ctx.save_for_backward(unit, weight, bias, scale, offset, threshold, reduced)
        ctx.config, ctx.chunks, ctx.held, ctx.keep = config, chunks, held, keep
        ctx.mark_non_differentiable(top)
        return target.clone(), reduced, total, top

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, g_target: Tensor, g_reduced: Tensor, g_total: Tensor, _: Tensor
    ) -> tuple[Any, ...]:
        """Walk the chunks again: probabilities, then two products per chunk.

        Shapes: gradients (B,) -> of unit (B, D), weight (R, D), bias (R,), scale and offset (B,), target (B,).
        """
        unit, weight, bias, scale, offset, threshold, reduced = ctx.saved_tensors
        config: ChunkConfig = ctx.config
        need_weight, need_scale = ctx.needs_input_grad[1], ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        reduced = reduced.clamp_min(torch.finfo(reduced.dtype).min)  # no negatives here: −∞ would give ∞ − ∞
        low = unit.to(weight.dtype)
        g_unit = torch.zeros_like(reduced[:, None].expand(-1, unit.shape[1]))
        g_weight = torch.empty_like(weight) if need_weight else None
        g_bias = None if bias is None else torch.empty_like(bias)
        g_scale, g_offset = torch.zeros_like(scale), torch.zeros_like(offset)
        shift = offset[:, None] if config.reduction == "sigmoid" else -reduced[:, None]
        scratch = reduced.new_empty(
            2, len(unit), min(config.chunk, len(weight) // config.sub_centers) * config.sub_centers
        )
        for (part, rows, columns), (raw, inverse) in zip(ctx.chunks, ctx.held, strict=True):
            if not ctx.keep:
                raw = (low @ weight[part].t()).to(reduced.dtype)
                raw = raw if inverse is None else raw.mul_(inverse)
                raw = raw if bias is None else raw.add_(bias[part])
            cosine, best = raw, None
            if config.sub_centers > 1:
                cosine, best = raw.unflatten(1, (-1, config.sub_centers)).max(2, keepdim=True)
                cosine = cosine.squeeze(2)
            leaf, mapped = _map(cosine, threshold, config)
            g = torch.addcmul(shift, mapped.detach(), scale[:, None], out=scratch[0, :, : mapped.shape[1]])
            g = g.sigmoid_() if config.reduction == "sigmoid" else g.exp_()
            if need_scale:
                g *= g_reduced[:, None]
                g = g.add_(g_total[:, None]) if config.total else g
                g[rows, columns] = 0.0
                g_offset += g.sum(1)
                g_scale += (g * mapped.detach()).sum(1)
                g *= scale[:, None]
            else:
                g *= (g_reduced * scale)[:, None]
                g = g.add_((g_total * scale)[:, None]) if config.total else g
            if leaf is not None:
                g[rows, columns] = 0.0
                (g,) = torch.autograd.grad(mapped, leaf, g)
            g[rows, columns] = g_target[rows]
            if best is not None:
                spread = torch.zeros_like(raw).unflatten(1, (-1, config.sub_centers))
                g = spread.scatter_(2, best, g[:, :, None]).flatten(1)
            if g_bias is not None:
                g_bias[part] = g.sum(0)
            if inverse is not None:
                along = torch.mul(g, raw, out=scratch[1, :, : g.shape[1]]).sum(0).mul_(inverse).mul_(inverse).neg_()
                g *= inverse
            else:
                along = None
            g = g.to(weight.dtype)
            if g_weight is not None:
                _weight_gradient(g, along, weight[part], low, g_weight[part])
            if g_unit.dtype == g.dtype:
                g_unit.addmm_(g, weight[part])
            else:
                g_unit += g @ weight[part]
        if config.reduce is not None:
            for gradient in (g_unit, g_scale, g_offset):
                config.reduce(gradient)
        return g_unit.to(unit.dtype), g_weight, g_bias, g_scale, g_offset, None, None, None, None


def _map(cosine: Tensor, threshold: Tensor, config: ChunkConfig) -> tuple[Tensor | None, Tensor]:
    """η of a chunk, with the leaf to take its slope at; no leaf where η is the identity."""
    if config.negatives is None:
        return None, cosine
    with torch.enable_grad():
        leaf = cosine.detach().requires_grad_()
        return leaf, config.negatives(leaf, threshold[:, None])


def _weight_gradient(g: Tensor, along: Tensor | None, centers: Tensor, unit: Tensor, out: Tensor) -> None:
    """Write ∂L/∂w of a chunk: gᵀx̂, plus what is taken away along w, which goes first so that the product adds to it."""
    if along is None:
        torch.mm(g.t(), unit, out=out)
    else:
        torch.mul(centers, along[:, None].to(centers.dtype), out=out)
        out.addmm_(g.t(), unit)


def _chunks(labels: Tensor, classes: int, config: ChunkConfig) -> list[tuple[slice, Tensor, Tensor]]:
    """Rows of the weight of each chunk, with the samples whose class is in it and where in the chunk it is."""
    order = labels.argsort()
    bounds = torch.arange(0, classes + config.chunk, config.chunk, device=labels.device)
    cuts = torch.searchsorted(labels[order], bounds).tolist()
    found = []
    for index, start in enumerate(range(0, classes, config.chunk)):
        rows = order[cuts[index] : cuts[index + 1]]
        stop = min(start + config.chunk, classes)
        if stop < start + config.chunk:
            rows = rows[labels[rows] < classes]
        found.append((slice(start * config.sub_centers, stop * config.sub_centers), rows, labels[rows] - start))
    return found
