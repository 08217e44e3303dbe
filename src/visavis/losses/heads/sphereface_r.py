"""SphereFace-R: SphereFace revived, with two ways to stay monotone and three to treat the feature's norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class SphereFaceRHead(Head):
    """v1: ψ(θ) = cos(min(m, π/θ) θ), η = cos θ_j.  v2: ψ(θ) = cos θ, η = cos(θ_j/m).

    With `detach_margin` (the paper's characteristic gradient detachment, its choice and the default) gradients pass
    as if ψ and η were cos θ.

    Args:
        version: "v1" (margin on the target) or "v2" (margin on the others).
        scale: s > 0: the scale for "hard", the wanted norm for "soft"; unused for "none".
        margin: m in [1, 10].
        features: "hard": normalized, scaled by s; "none": scaled by ‖x‖; "soft": scaled by ‖x‖, with
            t · |‖x‖ − s| added to the loss.
        softness: t ≥ 0 of "soft".
        detach_margin: the constant-gradient form.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:2109.05565 (versions, normalizations and detachment as named there); ψ, η and the soft constraint
    as in the authors' published code.
    """

    def __init__(
        self,
        *,
        version: Literal["v1", "v2"] = "v1",
        scale: float = 30.0,
        margin: float = 1.5,
        features: Literal["hard", "none", "soft"] = "hard",
        softness: float = 0.01,
        detach_margin: bool = True,
    ) -> None:
        super().__init__(scale=scale)
        if version not in ("v1", "v2"):
            raise RecipeError(f"SphereFace-R version must be 'v1' or 'v2', got {version!r}")
        if features not in ("hard", "none", "soft"):
            raise RecipeError(f"SphereFace-R features must be 'hard', 'none' or 'soft', got {features!r}")
        self.version, self.features = version, features
        self.margin = checked("SphereFace-R margin", margin, 1.0, 10.0)
        self.softness = checked("softness", softness, 0.0, 1e3)
        self.detach_margin = detach_margin
        self.has_negatives = version == "v2"

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ of the version; the soft constraint as a regularizer."""
        soft = self.softness * (norm - self.scale).abs() if self.features == "soft" else None
        if self.version == "v2":
            return TargetLogit(cosine, soft)
        return TargetLogit((self.margin * angle(cosine)).clamp_max(math.pi).cos(), soft)

    def negative_logits(self, cosine: Float[Tensor, "B C"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B C"]:
        """η of version 2."""
        mapped = (angle(cosine) / self.margin).cos()
        return cosine + (mapped - cosine).detach() if self.detach_margin else mapped

    def scales(self, norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """s for "hard", ‖x‖ otherwise."""
        return super().scales(norm) if self.features == "hard" else norm
