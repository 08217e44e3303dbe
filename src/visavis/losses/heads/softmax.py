"""Plain softmax: a linear classifier with bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from visavis.losses.head import Head, TargetLogit

if TYPE_CHECKING:
    from jaxtyping import Float


class SoftmaxHead(Head):
    """Cross-entropy of a linear classifier: z_j = w_jᵀx + b_j for every class, nothing normalized.

    Source: the softmax loss every other head starts from; rows D8 and M5 of the reference systems.
    """

    normalized = False

    def __init__(self) -> None:
        super().__init__(scale=1.0)

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(z) = z: the inner product itself."""
        return TargetLogit(cosine)
