"""CurricularFace: easy samples first, hard negatives later."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class CurricularFaceHead(Head):
    """ψ(cos θ) = cos(θ + m);  η(cos θ_j) = cos θ_j if cos θ_j ≤ ψ, else cos θ_j (t + cos θ_j).

    t is an average of the batches' mean target cosine, t ← α r + (1 − α) t from 0, updated before the loss and the
    same on every rank. Past θ + m = π the target falls on as in ArcFace, and is the bound for hard negatives there
    too, where the published code compares with cos(θ + m).

    Args:
        scale: s > 0.
        margin: m in radians, in [0, π/2).
        momentum: 1 − α in [0, 1).
        detach_margin: let the gradient of the target pass as if m were 0.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:2004.00288, the definitions of T(cos θ_y), N(t, cos θ_j) and of t.
    """

    has_negatives = True

    def __init__(
        self, *, scale: float = 64.0, margin: float = 0.5, momentum: float = 0.99, detach_margin: bool = False
    ) -> None:
        super().__init__(scale=scale)
        self.margin = checked("CurricularFace margin", margin, 0.0, math.pi / 2, open_high=True, unit="radians")
        self.momentum = checked("momentum", momentum, 0.0, 1.0, open_high=True)
        self.detach_margin = detach_margin
        self.stage: Tensor
        self.register_buffer("stage", torch.zeros(()))

    def update_state(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> None:
        """Move t towards the mean target cosine."""
        self.stage.mul_(self.momentum).add_((1.0 - self.momentum) * cosine.mean())

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos(θ + m), continued monotonically."""
        return TargetLogit(add_angle(cosine, self.margin))

    def negative_logits(self, cosine: Float[Tensor, "B C"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B C"]:
        """η: negatives above the target are modulated."""
        return torch.where(cosine > target, cosine * (self.stage.to(cosine.dtype) + cosine), cosine)
