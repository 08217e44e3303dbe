"""AdaFace: the kind of margin depends on the quality of the picture, read from the feature's norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis.losses.angles import angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class AdaFaceHead(Head):
    """ψ = cos(θ + g_angle) − g_add with g_angle = −m ẑ, g_add = m ẑ + m, ẑ = (‖x‖ − μ)/(σ/h) cut to [−1, 1].

    μ and σ are running means of the batches' mean and standard deviation of ‖x‖ (of all ranks), updated before the
    loss. No gradient goes through ‖x‖, and θ + g_angle is cut to [0, π]. Norms are cut to [0.001, 100] and σ gets
    10⁻³, as in the published code.

    Args:
        scale: s > 0.
        margin: m in [0, 1).
        spread: h > 0.
        momentum: 1 − α of the running means, in [0, 1); the published training uses α = 0.01.
        detach_margin: let the gradient of the target pass as if there were no margin, as CVLface trains.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:2204.00964, the definitions of ẑ, g_angle and g_add.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        spread: float = 0.333,
        momentum: float = 0.99,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(scale=scale)
        self.detach_margin = detach_margin
        self.margin = checked("AdaFace margin", margin, 0.0, 1.0, open_high=True)
        self.spread = checked("spread", spread, 0.0, 100.0, open_low=True)
        self.momentum = checked("momentum", momentum, 0.0, 1.0, open_high=True)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))

    def update_state(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> None:
        """Move μ and σ towards the batch's; σ of a single sample says nothing and is left."""
        norm = norm.clamp(1e-3, 100.0)
        self.mean.mul_(self.momentum).add_((1.0 - self.momentum) * norm.mean())
        if len(norm) > 1:
            self.deviation.mul_(self.momentum).add_((1.0 - self.momentum) * norm.std())

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ with the margins of each sample's quality."""
        norm = norm.detach().clamp(1e-3, 100.0)
        quality = ((norm - self.mean) / (self.deviation + 1e-3) * self.spread).clamp(-1.0, 1.0).to(cosine.dtype)
        turned = angle(cosine) - self.margin * quality
        return TargetLogit(turned.clamp(0.0, math.pi).cos() - self.margin * (1.0 + quality))
