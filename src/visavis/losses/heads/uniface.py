"""UniFace: a unified cross-entropy whose learned threshold is the same for every class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class UniFaceHead(Head):
    """L = log(1 + e^(−s(cos θ_y − m) + b)) + λ Σ_{j≠y} log(1 + e^(s cos θ_j − b)), b learned.

    b/s is the similarity that separates genuine from impostor pairs. The paper's other balance, a share r of the
    negatives, is `sample_rate` of the classes; b starts at log(10 C r) as in the published code, whose cut of the
    logits to [−s, s] is left out (log(1 + eˣ) needs none).

    Args:
        scale: s > 0.
        margin: m in cosine units, in [0, 2).
        balance: λ > 0.

    Raises:
        RecipeError: a parameter out of range.

    Source: Zhou et al., ICCV 2023, "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", sec. 3
    (marginal and balanced UCE loss); no arXiv version is known.
    """

    reduction = "sigmoid"

    def __init__(self, *, scale: float = 64.0, margin: float = 0.4, balance: float = 1.0) -> None:
        super().__init__(scale=scale)
        self.margin = checked("UniFace margin", margin, 0.0, 2.0, open_high=True)
        self.share = checked("balance", balance, 0.0, 1e3, open_low=True)
        self.bias = nn.Parameter(torch.zeros(()))

    def setup(self, num_classes: int, sample_rate: float) -> None:
        """Start b at log(10 C r)."""
        nn.init.constant_(self.bias, math.log(10.0 * num_classes * sample_rate))

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos θ − m."""
        return TargetLogit(cosine - self.margin)

    def offset(self) -> Float[Tensor, ""]:
        """The threshold: −b."""
        return -self.bias

    def balance(self) -> tuple[float, float]:
        """1 and λ."""
        return 1.0, self.share
