"""ArcFace: an additive margin on the angle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class ArcFaceHead(Head):
    """ψ(cos θ) = cos(θ + m); past θ = π − m, where the paper's formula would rise again, cos θ − m sin m.

    Args:
        scale: s > 0; the paper's experiments use 64.
        margin: m in radians, in [0, π/2).
        detach_margin: let the gradient of the target pass as if m were 0 (dψ/dcos θ = 1 instead of sin(θ + m)/sin θ):
            arcface_torch adds the margin under no_grad since December 2022, after the figures of its page were made.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:1801.07698v4, eq. 3; the extension past π − m is the one of the authors' published code.
    """

    def __init__(self, *, scale: float = 64.0, margin: float = 0.5, detach_margin: bool = False) -> None:
        super().__init__(scale=scale)
        self.margin = checked("ArcFace margin", margin, 0.0, math.pi / 2, open_high=True, unit="radians")
        self.detach_margin = detach_margin

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos(θ + m), continued monotonically."""
        return TargetLogit(add_angle(cosine, self.margin))
