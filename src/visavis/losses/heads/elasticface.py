"""ElasticFace: the margin of each sample is drawn from a normal distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked
from visavis.losses.partial_fc.sampling import step_generator

if TYPE_CHECKING:
    from jaxtyping import Float


class ElasticFace(Head):
    """ψ with a margin M_i ~ N(m, σ) of its own for every sample and step; the mean m in evaluation.

    With `plus` the margins of a batch are handed out by difficulty: the smallest target cosine gets the largest. (The
    published code indexes the sorted margins with the argsort of the cosines instead of their ranks.) Draws are a
    function of (seed, step), so they do not depend on the number of ranks and survive a resume; they are cut to the
    range a fixed margin may have.
    """

    highest: float

    def __init__(
        self, *, scale: float, margin: float, deviation: float, plus: bool, seed: int, detach_margin: bool
    ) -> None:
        super().__init__(scale=scale)
        self.detach_margin = detach_margin
        name, unit = type(self).__name__.removesuffix("Head"), "radians" if self.highest < 2.0 else ""
        self.margin = checked(f"{name} margin", margin, 0.0, self.highest, open_high=True, unit=unit)
        self.deviation = checked("deviation", deviation, 0.0, 1.0)
        self.plus, self.seed = plus, seed
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def update_state(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> None:
        """Count the step, so that the next one draws anew."""
        self.step += 1

    def margins(self, cosine: Tensor) -> Tensor:
        """The margins of the current step (B,)."""
        if not self.training:
            return torch.full_like(cosine, self.margin)
        draws = torch.randn(
            len(cosine), dtype=torch.float64, generator=step_generator(self.seed, "margins", int(self.step))
        )
        drawn = (self.margin + self.deviation * draws).clamp(0.0, self.highest).to(cosine)
        if not self.plus:
            return drawn
        hardest_first = cosine.detach().argsort()
        return torch.empty_like(drawn).scatter_(0, hardest_first, drawn.sort(descending=True).values)


class ElasticArcFaceHead(ElasticFace):
    """ψ(cos θ) = cos(θ + M_i), continued past π as in ArcFace.

    Args:
        scale: s > 0.
        margin: m in radians, in [0, π/2).
        deviation: σ ≥ 0 in radians; the paper's 0.05, with `plus` 0.0175.
        plus: hand out by difficulty.
        seed: of the draws.
        detach_margin: let the gradient of the target pass as if there were no margin.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:2109.09416, ElasticFace-Arc and ElasticFace-Arc+.
    """

    highest = math.pi / 2

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        deviation: float = 0.05,
        plus: bool = False,
        seed: int = 0,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(
            scale=scale, margin=margin, deviation=deviation, plus=plus, seed=seed, detach_margin=detach_margin
        )

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos(θ + M_i)."""
        return TargetLogit(add_angle(cosine, self.margins(cosine)))


class ElasticCosFaceHead(ElasticFace):
    """ψ(cos θ) = cos θ − M_i.

    Args:
        scale: s > 0.
        margin: m in cosine units, in [0, 2).
        deviation: σ ≥ 0; the paper's 0.05, with `plus` 0.025.
        plus: hand out by difficulty.
        seed: of the draws.
        detach_margin: let the gradient of the target pass as if there were no margin.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:2109.09416, ElasticFace-Cos and ElasticFace-Cos+.
    """

    highest = 2.0

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.35,
        deviation: float = 0.05,
        plus: bool = False,
        seed: int = 0,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(
            scale=scale, margin=margin, deviation=deviation, plus=plus, seed=seed, detach_margin=detach_margin
        )

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos θ − M_i."""
        return TargetLogit(cosine - self.margins(cosine))
