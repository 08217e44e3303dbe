"""Cosines of features with class centres that are never normalised in memory."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12  # smallest norm divided by, as in torch.nn.functional.normalize


def inverse_norms(weight: Tensor) -> Tensor:
    """1/‖w‖ of every row, in at least float32."""
    return torch.linalg.vector_norm(weight, dim=1, dtype=wide(weight.dtype)).clamp_min_(EPSILON).reciprocal_()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type to reduce in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def cosines(unit: Tensor, weight: Tensor, bias: Tensor | None, *, sub_centres: int, normalised: bool) -> Tensor:
    """Cosines (or inner products plus bias) of a batch with every row of `weight`, best sub-centre of each class."""
    cosine = raw_cosines(unit, weight, bias, normalised)[0]
    return cosine if sub_centres == 1 else cosine.unflatten(1, (-1, sub_centres)).amax(2)


def target_cosines(
    unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, sub_centres: int, normalised: bool
) -> Tensor:
    """The cosine of each sample with its own class (B,); 0 where the label is not a class of `weight`."""
    classes = weight.shape[0] // sub_centres
    if classes == 0:
        return torch.zeros(len(labels), dtype=wide(weight.dtype), device=weight.device)
    rows = labels.clamp(0, classes - 1)
    own = weight.view(classes, sub_centres, -1)[rows]
    cosine = torch.einsum("bd,bkd->bk", unit.to(own.dtype), own).to(wide(own.dtype))
    if normalised:
        cosine *= inverse_norms(own.flatten(0, 1)).view_as(cosine)
    if bias is not None:
        cosine += bias.view(classes, sub_centres)[rows]
    return torch.where((labels >= 0) & (labels < classes), cosine.amax(1), 0.0)


def raw_cosines(unit: Tensor, weight: Tensor, bias: Tensor | None, normalised: bool) -> tuple[Tensor, Tensor | None]:
    """Cosines (or inner products plus bias) with every row of `weight` (B, rows), and 1/‖w‖ if it was used."""
    cosine = (unit.to(weight.dtype) @ weight.t()).to(wide(weight.dtype))
    inverse = inverse_norms(weight) if normalised else None
    if inverse is not None:
        cosine *= inverse
    if bias is not None:
        cosine += bias
    return cosine, inverse
