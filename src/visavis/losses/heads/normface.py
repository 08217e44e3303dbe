"""NormFace: softmax of scaled cosines, without margin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from visavis.losses.head import Head, TargetLogit

if TYPE_CHECKING:
    from jaxtyping import Float


class NormFaceHead(Head):
    """z_j = s cos θ_j for every class; s fixed, or learned with the network.

    The paper learns s; a fixed one is the default here because a learned s has no use once a margin is wanted.

    Args:
        scale: s > 0, or its first value. The loss of C balanced classes cannot fall below
            log(1 + (C − 1) exp(−s C/(C − 1))), so s must grow with log C.
        learn_scale: make s a parameter (kept positive as the exponential of one).

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:1704.06369, the normalized softmax with a learned scale.
    """

    def __init__(self, *, scale: float = 30.0, learn_scale: bool = False) -> None:
        super().__init__(scale=scale)
        self.log_scale = nn.Parameter(torch.tensor(scale).log()) if learn_scale else None

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos θ."""
        return TargetLogit(cosine)

    def scales(self, norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """s of each sample."""
        return super().scales(norm) if self.log_scale is None else self.log_scale.exp().to(norm.dtype).expand_as(norm)
