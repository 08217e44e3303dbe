"""A-Softmax (SphereFace): a multiplicative margin on the angle, with the feature's norm as its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.angles import multiply_angle
from visavis.losses.head import Head, TargetLogit, checked

if TYPE_CHECKING:
    from jaxtyping import Float


class ASoftmaxHead(Head):
    """z_y = ‖x‖ (cos θ + (φ(θ) − cos θ)/(1 + λ)),  φ(θ) = (−1)ᵏ cos(mθ) − 2k;  z_j = ‖x‖ cos θ_j.

    λ = max(λ_min, λ_base / (1 + γ it)) over the training steps it = 1, 2, …, kept in the checkpoint (row S11: the
    reference system loses it on resume). The gradient goes through ‖x‖.

    `legacy_schedule` follows row S6 instead: λ_base / (1 + γ it) while it < 3000, then λ_min, no maximum in between.
    `legacy_smoothing` ε follows row S7: the target distribution, 1 − ε for the class and ε/(C − 1) for the others, is
    used as the target of the cross-entropy and as the mask of the margin, so the margin shrinks by 1 − ε and φ leaks
    into every other logit.

    Args:
        margin: m, a whole number in [1, 6].
        lambda_base, lambda_min, gamma: of the schedule, ≥ 0.
        legacy_smoothing: ε in [0, 1).
        legacy_schedule: row S6's schedule.

    Raises:
        RecipeError: a parameter out of range.

    Source: arXiv:1704.08063v4, eq. 7 (φ, there ψ); λ from the authors' published code; rows S5–S7 of the
    reference systems.
    """

    def __init__(
        self,
        *,
        margin: int = 4,
        lambda_base: float = 1500.0,
        lambda_min: float = 5.0,
        gamma: float = 0.1,
        legacy_smoothing: float = 0.0,
        legacy_schedule: bool = False,
    ) -> None:
        super().__init__(scale=1.0)
        if isinstance(margin, bool) or not isinstance(margin, int) or not 1 <= margin <= 6:
            raise RecipeError(f"A-Softmax margin must be a whole number in [1, 6], got {margin!r}")
        self.margin = margin
        self.lambda_base = checked("lambda_base", lambda_base, 0.0, 1e9)
        self.lambda_min = checked("lambda_min", lambda_min, 0.0, 1e9)
        self.gamma = checked("gamma", gamma, 0.0, 1e3)
        self.smoothing = checked("legacy_smoothing", legacy_smoothing, 0.0, 1.0, open_high=True)
        self.legacy_schedule = legacy_schedule
        self.leak = 0.0
        self.has_negatives = self.smoothing > 0.0
        self.iteration: Tensor
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))

    def setup(self, num_classes: int, sample_rate: float) -> None:
        """The leak is spread over the other classes."""
        if self.smoothing and num_classes > 1:
            self.leak = self.smoothing / (num_classes - 1)
            # In the rule of cross_entropy every class, the true one included, gets ε/C.
            self.label_smoothing = self.smoothing * num_classes / (num_classes - 1)

    def update_state(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> None:
        """Count the step."""
        self.iteration += 1

    @property
    def annealing(self) -> float:
        """λ of the current step."""
        step = int(self.iteration)
        value = self.lambda_base / (1.0 + self.gamma * step)
        if self.legacy_schedule:
            return value if step < 3000 else self.lambda_min
        return max(self.lambda_min, value)

    def _mixed(self, cosine: Tensor, share: float) -> Tensor:
        return cosine + (multiply_angle(cosine, self.margin) - cosine) * (share / (1.0 + self.annealing))

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ(cos θ) = cos θ + (φ(θ) − cos θ)/(1 + λ)."""
        return TargetLogit(self._mixed(cosine, 1.0 - self.smoothing))

    def negative_logits(self, cosine: Float[Tensor, "B C"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B C"]:
        """The leak of row S7; unused otherwise."""
        return self._mixed(cosine, self.leak)

    def scales(self, norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """s = ‖x‖."""
        return norm
