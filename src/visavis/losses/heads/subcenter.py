"""Sub-centre ArcFace: several centres per class, so that noisy pictures find one of their own."""

from __future__ import annotations

import math

from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked


class SubCentreArcFace(Head):
    """ψ(cos θ) = cos(θ + m), where cos θ_j is the largest cosine with the K centres of class j.

    Any head gets sub-centres with `MarginSoftmax(sub_centres=K)`; this one asks for them itself.

    Args:
        scale: s > 0.
        margin: m in radians, in [0, π/2).
        sub_centres: K in [1, 32]; the paper's best is 3.
        detach_margin: let the gradient of the target pass as if m were 0.

    Raises:
        RecipeError: a parameter out of range.

    Source: Deng et al., ECCV 2020, "Sub-center ArcFace", sec. 3; past π − m as in ArcFace.
    """

    def __init__(
        self, *, scale: float = 64.0, margin: float = 0.5, sub_centres: int = 3, detach_margin: bool = False
    ) -> None:
        super().__init__(scale=scale)
        self.margin = checked("sub-centre ArcFace margin", margin, 0.0, math.pi / 2, open_high=True, unit="radians")
        if isinstance(sub_centres, bool) or not isinstance(sub_centres, int) or not 1 <= sub_centres <= 32:
            raise RecipeError(f"sub_centres must be a whole number in [1, 32], got {sub_centres!r}")
        self.sub_centres = sub_centres
        self.detach_margin = detach_margin

    def target(self, cosine: Tensor, norm: Tensor) -> TargetLogit:
        """ψ(cos θ) = cos(θ + m), continued monotonically."""
        return TargetLogit(add_angle(cosine, self.margin))
