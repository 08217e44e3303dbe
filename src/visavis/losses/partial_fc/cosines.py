"""Cosines of features with class centers that are never normalized in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

EPSILON = 1e-12  # smallest norm divided by, as in torch.nn.functional.normalize


def inverse_norms(weight: Float[Tensor, "R D"]) -> Float[Tensor, " R"]:
    """1/‖w‖ of every row, in at least float32."""
    return (
        torch.linalg.vector_norm(weight, dim=1, dtype=accumulation_dtype(weight.dtype))
        .clamp_min_(EPSILON)
        .reciprocal_()
    )


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to reduce in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def cosines(
    unit: Float[Tensor, "B D"],
    weight: Float[Tensor, "R D"],
    bias: Float[Tensor, " R"] | None,
    *,
    sub_centers: int,
    normalized: bool,
) -> Float[Tensor, "B C"]:
    """Cosines (or inner products plus bias) of a batch with every row of `weight`, best sub-center of each class."""
    cosine = raw_cosines(unit, weight, bias, normalized)[0]
    return cosine if sub_centers == 1 else cosine.unflatten(1, (-1, sub_centers)).amax(2)


def target_cosines(
    unit: Float[Tensor, "B D"],
    weight: Float[Tensor, "R D"],
    bias: Float[Tensor, " R"] | None,
    labels: Integer[Tensor, " B"],
    *,
    sub_centers: int,
    normalized: bool,
) -> Float[Tensor, " B"]:
    """The cosine of each sample with its own class (B,); 0 where the label is not a class of `weight`."""
    classes = weight.shape[0] // sub_centers
    if classes == 0:
        return torch.zeros(len(labels), dtype=accumulation_dtype(weight.dtype), device=weight.device)
    rows = labels.clamp(0, classes - 1)
    own = weight.view(classes, sub_centers, -1)[rows]
    cosine = torch.einsum("bd,bkd->bk", unit.to(own.dtype), own).to(accumulation_dtype(own.dtype))
    if normalized:
        cosine *= inverse_norms(own.flatten(0, 1)).view_as(cosine)
    if bias is not None:
        cosine += bias.view(classes, sub_centers)[rows]
    return torch.where((labels >= 0) & (labels < classes), cosine.amax(1), 0.0)


def raw_cosines(
    unit: Float[Tensor, "B D"], weight: Float[Tensor, "R D"], bias: Float[Tensor, " R"] | None, normalized: bool
) -> tuple[Float[Tensor, "B R"], Float[Tensor, " R"] | None]:
    """Cosines (or inner products plus bias) with every row of `weight` (B, rows), and 1/‖w‖ if it was used."""
    cosine = (unit.to(weight.dtype) @ weight.t()).to(accumulation_dtype(weight.dtype))
    inverse = inverse_norms(weight) if normalized else None
    if inverse is not None:
        cosine *= inverse
    if bias is not None:
        cosine += bias
    return cosine, inverse
