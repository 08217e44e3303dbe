"""Distances between unit rows, from one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-12


def unit_rows(raw: Tensor) -> Tensor:
    """Scale each row of (N, D) to length 1, in float32 or better; a row of zeros stays zero and has no NaN gradient."""
    return functional.normalize(raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw, dim=1)


def squared_l2(queries: Tensor, references: Tensor) -> Tensor:
    """Squared Euclidean distances of unit rows, d(q, r) = ‖q − r‖² = 2 − 2 q·r, clamped to [0, ∞).

    Rounding can leave 2 − 2 q·r at −1e-7 for equal rows; the clamp makes it 0, with gradient 0, which is the gradient
    of ‖q − r‖² there.

    Args:
        queries: (Q, D), rows of length 1.
        references: (R, D), rows of length 1; may be `queries` itself.

    Returns:
        (Q, R) in [0, 4] up to rounding.
    """
    two = torch.full((1,), 2.0, dtype=queries.dtype, device=queries.device)
    return torch.addmm(two, queries, references.T, alpha=-2.0).clamp(min=0.0)


def l2(squared: Tensor) -> Tensor:
    """Euclidean distances from squared ones, with gradient 0 instead of infinity at distance 0.

    sqrt has an infinite slope at 0, and infinity times the zero gradient of equal rows is NaN: one duplicated picture
    would poison a whole step.
    """
    apart = squared > _TINY
    return torch.where(apart, torch.where(apart, squared, torch.ones_like(squared)).sqrt(), torch.zeros_like(squared))
