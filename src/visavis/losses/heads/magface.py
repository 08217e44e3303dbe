"""MagFace: a margin that grows with the feature's norm, and a pull that makes the norm a quality."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class MagFaceHead(Head):
    """ψ = cos(θ + m(a)), plus λ_g g(a), with a = ‖x‖ cut to [l_a, u_a],
    m(a) = l_m + (u_m − l_m)(a − l_a)/(u_a − l_a) and g(a) = a/u_a² + 1/a.

    The gradient goes through a into m and g. Past θ + m = π the target falls on as in ArcFace; the published code
    drops the margin wherever cos θ < 0 ("easy margin").

    Args:
        scale: s > 0.
        low_norm, high_norm: l_a, u_a with 0 < l_a < u_a.
        low_margin, high_margin: l_m ≤ u_m in radians, in [0, π/2).
        regularizer: λ_g ≥ 0.
        detach_margin: let the gradient of the target pass as if there were no margin; g(a) keeps its own.

    Raises:
        RecipeError: a parameter out of range or an empty interval.

    Source: arXiv:2103.06627v4; m(a) and g(a) as in the authors' published code.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        low_norm: float = 10.0,
        high_norm: float = 110.0,
        low_margin: float = 0.45,
        high_margin: float = 0.8,
        regularizer: float = 35.0,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(scale=scale)
        self.detach_margin = detach_margin
        self.low_norm = checked("low_norm", low_norm, 0.0, 1e6, open_low=True)
        self.high_norm = checked("high_norm", high_norm, 0.0, 1e6, open_low=True)
        half = math.pi / 2
        self.low_margin = checked("low_margin", low_margin, 0.0, half, open_high=True, unit="radians")
        self.high_margin = checked("high_margin", high_margin, 0.0, half, open_high=True, unit="radians")
        self.regularizer = checked("regularizer", regularizer, 0.0, 1e6)
        if self.low_norm >= self.high_norm or self.low_margin > self.high_margin:
            raise RecipeError(
                "MagFace needs low_norm < high_norm and low_margin <= high_margin, "
                f"got norms {low_norm:g}, {high_norm:g} and margins {low_margin:g}, {high_margin:g}"
            )

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """cos(θ + m(a)) and λ_g g(a)."""
        size = norm.clamp(self.low_norm, self.high_norm)
        slope = (self.high_margin - self.low_margin) / (self.high_norm - self.low_norm)
        margin = self.low_margin + slope * (size - self.low_norm)
        pull = size / self.high_norm**2 + 1.0 / size
        return TargetLogit(add_angle(cosine, margin), self.regularizer * pull)
