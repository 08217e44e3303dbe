"""The combined margin of the ArcFace paper: multiplied, added to the angle, taken from the cosine, all at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from visavis.losses.angles import add_angle, multiply_and_add_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class CombinedMarginHead(Head):
    """ψ(cos θ) = cos(m₁θ + m₂) − m₃; past m₁θ + m₂ = π it keeps falling with the slope of cos θ.

    With m₁ = 1 and m₃ = 0 it is ArcFace, with m₁ = 1 and m₂ = 0 CosFace. Published code ignores m₁ and m₂ when m₃ > 0.

    Args:
        scale: s > 0.
        m1: factor of the angle, in [1, 5].
        m2: radians, in [0, π/2).
        m3: cosine units, in [0, 2).
        detach_margin: let the gradient of the target pass as if there were no margin.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:1801.07698v4, eq. 4.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.3,
        m3: float = 0.2,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(scale=scale)
        self.m1 = checked("m1", m1, 1.0, 5.0)
        self.m2 = checked("m2", m2, 0.0, math.pi / 2, open_high=True, unit="radians")
        self.m3 = checked("m3", m3, 0.0, 2.0, open_high=True)
        self.detach_margin = detach_margin

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos(m₁θ + m₂) − m₃, continued monotonically."""
        turned = add_angle(cosine, self.m2) if self.m1 == 1.0 else multiply_and_add_angle(cosine, self.m1, self.m2)
        return TargetLogit(turned - self.m3)
