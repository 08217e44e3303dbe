"""Distances between unit rows, from one matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float

_TINY = 1e-12


def unit_rows(raw: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Scale each row of (N, D) to length 1, in float32 or better; a row of zeros stays zero and has no NaN gradient."""
    return functional.normalize(raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw, dim=1)


def squared_l2(queries: Float[Tensor, "Q D"], references: Float[Tensor, "R D"]) -> Float[Tensor, "Q R"]:
    """Squared Euclidean distances of unit rows, d(q, r) = ‖q − r‖² = 2 − 2 q·r, clamped to [0, ∞).

    Rounding can leave 2 − 2 q·r at −1e-7 for equal rows; the clamp makes it 0, with gradient 0, which is the gradient
    of ‖q − r‖² there.

    Args:
        queries: (Q, D), rows of length 1.
        references: (R, D), rows of length 1; may be `queries` itself.

    Returns:
        (Q, R) in [0, 4] up to rounding; symmetric to the bit when `references` is `queries`, on the CPU.
    """
    if references is queries and queries.device.type == "cpu" and queries.dtype in (torch.float32, torch.float64):
        return _Mutual.apply(queries)  # pyright: ignore[reportReturnType]
    two = torch.full((1,), 2.0, dtype=queries.dtype, device=queries.device)
    return torch.addmm(two, queries, references.T, alpha=-2.0).clamp(min=0.0)


class _Mutual(torch.autograd.Function):
    """Distances of rows among themselves: half the work forward and backward, since the matrix is symmetric.

    NumPy sees that x xᵀ is a product with itself and has BLAS compute one triangle; PyTorch computes both.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        x = rows.detach().numpy()
        squared = x @ x.T
        squared *= -2.0
        squared += 2.0
        clamped = squared.clip(0.0, out=squared)
        distances = torch.from_numpy(clamped)
        ctx.save_for_backward(rows, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        rows, distances = ctx.saved_tensors
        grad = grads[0].masked_fill(distances == 0, 0.0)
        return (grad + grad.T) @ rows * -2.0


def l2(squared: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Euclidean distances from squared ones, with gradient 0 instead of infinity at distance 0.

    sqrt has an infinite slope at 0, and infinity times the zero gradient of equal rows is NaN: one duplicated picture
    would poison a whole step.
    """
    apart = squared > _TINY
    return torch.where(apart, torch.where(apart, squared, torch.ones_like(squared)).sqrt(), torch.zeros_like(squared))
