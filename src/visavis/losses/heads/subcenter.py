"""Sub-center ArcFace: several centers per class, so that noisy pictures find one of their own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class SubCenterArcFaceHead(Head):
    """ψ(cos θ) = cos(θ + m), where cos θ_j is the largest cosine with the K centers of class j.

    Any head gets sub-centers with `MarginSoftmax(sub_centers=K)`; this one asks for them itself.

    Args:
        scale: s > 0.
        margin: m in radians, in [0, π/2).
        sub_centers: K in [1, 32]; the paper's best is 3.
        detach_margin: let the gradient of the target pass as if m were 0.

    Raises:
        RecipeError: a parameter out of range.

    Source: Deng et al., ECCV 2020, "Sub-center ArcFace", sec. 3; past π − m as in ArcFace.
    """

    def __init__(
        self, *, scale: float = 64.0, margin: float = 0.5, sub_centers: int = 3, detach_margin: bool = False
    ) -> None:
        super().__init__(scale=scale)
        self.margin = checked("sub-center ArcFace margin", margin, 0.0, math.pi / 2, open_high=True, unit="radians")
        if isinstance(sub_centers, bool) or not isinstance(sub_centers, int) or not 1 <= sub_centers <= 32:
            raise RecipeError(f"sub_centers must be a whole number in [1, 32], got {sub_centers!r}")
        self.sub_centers = sub_centers
        self.detach_margin = detach_margin

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos(θ + m), continued monotonically."""
        return TargetLogit(add_angle(cosine, self.margin))
