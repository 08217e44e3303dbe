"""SphereFace2: one binary classifier per class instead of one softmax over all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from visavis.errors import RecipeError
from visavis.losses.angles import angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class SphereFace2Head(Head):
    """L = λ/r log(1 + e^(−r·ψ(cos θ_y) − b)) + (1 − λ)/r Σ_{j≠y} log(1 + e^(r·η(cos θ_j) + b)).

    With g(z) = 2((z + 1)/2)ᵗ − 1:  margin "C": ψ = g(cos θ) − m, η = g(cos θ) + m;  "A": ψ = g(cos min(θ + m, π)),
    η = g(cos θ);  "M": ψ = g(cos min(mθ, π)), η = g(cos θ). The bias b is learned, starting where the expected loss
    of an untrained network is smallest. The published code multiplies all this by 50; use the head's weight for that.

    Args:
        kind: "C" (additive on the cosine), "A" (additive on the angle) or "M" (multiplicative).
        scale: r > 0.
        margin: m; "C": [0, 2); "A": radians, [0, π/2); "M": [1, 10].
        balance: λ in (0, 1).
        power: t ≥ 1.
        detach_margin: gradients as if ψ = η = cos θ, as the published code has it.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:2108.01513v3; g, the three kinds and the initial bias as in the authors' published code.
    """

    reduction = "sigmoid"
    has_negatives = True

    def __init__(
        self,
        *,
        kind: Literal["C", "A", "M"] = "C",
        scale: float = 40.0,
        margin: float = 0.4,
        balance: float = 0.7,
        power: float = 3.0,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(scale=scale)
        if kind not in ("C", "A", "M"):
            raise RecipeError(f"SphereFace2 kind must be 'C', 'A' or 'M', got {kind!r}")
        self.kind = kind
        if kind == "C":
            self.margin = checked("SphereFace2-C margin", margin, 0.0, 2.0, open_high=True)
        elif kind == "A":
            self.margin = checked("SphereFace2-A margin", margin, 0.0, math.pi / 2, open_high=True, unit="radians")
        else:
            self.margin = checked("SphereFace2-M margin", margin, 1.0, 10.0)
        self.share = checked("balance", balance, 0.0, 1.0, open_low=True, open_high=True)
        self.power = checked("power", power, 1.0, 100.0)
        self.detach_margin = detach_margin
        self.bias = nn.Parameter(torch.zeros(()))

    def setup(self, num_classes: int, sample_rate: float) -> None:
        """Set b to the minimum of the expected loss at θ = π/2 for all classes."""
        others = max(1.0, (num_classes - 1) * sample_rate)
        right = torch.zeros(1, dtype=torch.float64)  # cos θ of an untrained network
        positive = self.scale * float(self.target_logit(right, right).logit)
        negative = self.scale * float(self.negative_logits(right[:, None], right[:, None]))
        z = self.share / ((1.0 - self.share) * others)
        root = math.sqrt((1.0 - z) ** 2 + 4.0 * z * math.exp(positive - negative))
        nn.init.constant_(self.bias, math.log(2.0 * z) - negative - math.log(1.0 - z + root))

    def _shape(self, cosine: Tensor) -> Tensor:
        return 2.0 * ((cosine + 1.0) / 2.0).clamp_min(0.0).pow(self.power) - 1.0

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ of the kind."""
        if self.kind == "C":
            return TargetLogit(self._shape(cosine) - self.margin)
        if self.margin == (0.0 if self.kind == "A" else 1.0):
            return TargetLogit(self._shape(cosine))
        accumulation_dtype = angle(cosine) + self.margin if self.kind == "A" else angle(cosine) * self.margin
        return TargetLogit(self._shape(accumulation_dtype.clamp_max(math.pi).cos()))

    def negative_logits(self, cosine: Float[Tensor, "B C"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B C"]:
        """η of the kind."""
        mapped = self._shape(cosine) + (self.margin if self.kind == "C" else 0.0)
        return cosine + (mapped - cosine).detach() if self.detach_margin else mapped

    def offset(self) -> Float[Tensor, ""]:
        """b."""
        return self.bias

    def balance(self) -> tuple[float, float]:
        """λ/r and (1 − λ)/r."""
        return self.share / self.scale, (1.0 - self.share) / self.scale
