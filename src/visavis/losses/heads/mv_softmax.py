"""MV-Softmax: misclassified negatives weigh more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import add_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class MVSoftmaxHead(Head):
    """ψ as CosFace or ArcFace; η(cos θ_j) = cos θ_j if cos θ_j ≤ ψ, else t cos θ_j + t − 1 (or cos θ_j + t − 1).

    That is the weight h = e^(s(t−1)(cos θ_j+1)) ("adaptive") or e^(s(t−1)) ("fixed") on the negatives that beat the
    target.

    Args:
        kind: "cosine" (MV-AM) or "angle" (MV-Arc).
        scale: s > 0.
        margin: m; "cosine": [0, 2); "angle": radians, [0, π/2).
        weight: t in [1, 10].
        adaptive: the first of the two weights.
        easy_margin: drop the margin of the target while cos θ_y ≤ m ("cosine") or ≤ 0 ("angle"), as the published code
            does; negatives are still compared with ψ.
        detach_margin: let the gradient of the target pass as if there were no margin.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:1912.00833, the indicator of misclassified vectors and both of its weights h.
    """

    has_negatives = True

    def __init__(
        self,
        *,
        kind: Literal["cosine", "angle"] = "cosine",
        scale: float = 32.0,
        margin: float = 0.35,
        weight: float = 1.2,
        adaptive: bool = True,
        easy_margin: bool = False,
        detach_margin: bool = False,
    ) -> None:
        super().__init__(scale=scale)
        self.easy_margin, self.detach_margin = easy_margin, detach_margin
        if kind not in ("cosine", "angle"):
            raise RecipeError(f"MV-Softmax kind must be 'cosine' or 'angle', got {kind!r}")
        self.kind = kind
        if kind == "angle":
            self.margin = checked("MV-Arc-Softmax margin", margin, 0.0, math.pi / 2, open_high=True, unit="radians")
        else:
            self.margin = checked("MV-AM-Softmax margin", margin, 0.0, 2.0, open_high=True)
        self.weight = checked("weight", weight, 1.0, 10.0)
        self.adaptive = adaptive

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ of the kind."""
        logit = self.negative_threshold(cosine, norm)
        if not self.easy_margin:
            return TargetLogit(logit)
        return TargetLogit(torch.where(cosine > (0.0 if self.kind == "angle" else self.margin), logit, cosine))

    def negative_threshold(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """ψ with its margin everywhere."""
        return add_angle(cosine, self.margin) if self.kind == "angle" else cosine - self.margin

    def negative_logits(self, cosine: Float[Tensor, "B C"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B C"]:
        """η: negatives above the target are raised."""
        raised = (self.weight * cosine if self.adaptive else cosine) + (self.weight - 1.0)
        return torch.where(cosine > target, raised, cosine)
