"""AdaCos: the scale of a margin-free softmax, chosen anew at every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import angle
from visavis.losses.head import Head, TargetLogit

if TYPE_CHECKING:
    from jaxtyping import Float


class AdaCosHead(Head):
    """z_j = s cos θ_j with s⁽⁰⁾ = √2 log(C − 1) and s⁽ᵗ⁾ = log B⁽ᵗ⁾ / cos(min(π/4, θ_med⁽ᵗ⁾)).

    B⁽ᵗ⁾ = mean_i Σ_{j≠y} exp(s⁽ᵗ⁻¹⁾ cos θ_ij) and θ_med is the median target angle of the batch (of all ranks), taken
    before the loss of the same batch. With Partial FC the sum runs over the sampled classes. `scale` is what the
    checkpoint keeps.

    Args:
        fixed: keep s⁽⁰⁾, the paper's "fixed AdaCos".

    Raises:
        RecipeError: fewer than 3 classes, for which s⁽⁰⁾ is not positive.

    Source: arXiv:1905.00292, the fixed and the dynamical scale parameter.
    """

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__(scale=1.0)
        self.sees_negatives = not fixed
        self.current: Tensor
        self.register_buffer("current", torch.ones(()))

    def setup(self, num_classes: int, sample_rate: float) -> None:
        """Set s⁽⁰⁾."""
        if num_classes < 3:
            raise RecipeError(f"AdaCos needs at least 3 classes, got {num_classes}")
        self.current.fill_(math.sqrt(2.0) * math.log(num_classes - 1))

    def update_negatives_state(self, reduced: Float[Tensor, " B"], cosine: Float[Tensor, " B"]) -> None:
        """Set s⁽ᵗ⁾; kept if the batch gives none that is positive and finite."""
        mass = reduced.logsumexp(0) - math.log(len(reduced))
        scale = mass / angle(cosine).median().clamp_max(math.pi / 4).cos()
        if torch.isfinite(scale) and scale > 0:
            self.current.copy_(scale)

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos θ."""
        return TargetLogit(cosine)

    def scales(self, norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The current s."""
        return self.current.to(norm.dtype).expand_as(norm)
