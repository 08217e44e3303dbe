"""CosFace: an additive margin on the cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class CosFaceHead(Head):
    """ψ(cos θ) = cos θ − m.

    Args:
        scale: s > 0; the paper's experiments use 64.
        margin: m in cosine units, in [0, 2).

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:1801.09414v2, eq. 4.
    """

    def __init__(self, *, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(scale=scale)
        self.margin = checked("CosFace margin", margin, 0.0, 2.0, open_high=True)

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos θ − m."""
        return TargetLogit(cosine - self.margin)
