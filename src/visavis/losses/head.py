"""What a head is: a formula of the target cosine, and the few facts the shared machinery needs to know about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from visavis.errors import RecipeError

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class TargetLogit:
    """The logits of the true classes in cosine units (B,), and a term (B,) added to the loss of each sample."""

    logit: Tensor
    regularizer: Tensor | None = None


class Head(nn.Module):
    """Base of every head: z_y = s·ψ(cos θ_y, ‖x‖) for the true class, z_j = s·η(cos θ_j) for the others.

    A subclass gives `target` (ψ) and, where the paper says so, `negatives` (η), `scales` (s) or `observe` (state).
    What depends on random numbers draws them from (seed, step), so that ranks and a resumed run agree.

    Attributes a subclass may set:
        normalized: False for plain inner products with a bias.
        has_negatives: True if η is not the identity.
        reduction: "sigmoid" for one-against-all losses, which then give `offset` and `balance`.
        sees_negatives: True if the head wants `observe_negatives`.
        sub_centers: centers per class the head asks for.
        detach_margin: True to let the gradient pass as if ψ were the identity.
        label_smoothing: smoothing the head itself asks for.
    """

    normalized: ClassVar[bool] = True
    has_negatives: bool = False
    reduction: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"
    sees_negatives: bool = False
    sub_centers: int = 1
    detach_margin: bool = False
    label_smoothing: float = 0.0

    def __init__(self, *, scale: float = 64.0) -> None:
        super().__init__()
        self.scale = checked("scale", scale, 0.0, 1e4, open_low=True)

    def setup(self, num_classes: int, sample_rate: float) -> None:
        """Learn the number of classes and the share of them a step looks at; called once, before training."""

    def target_logit(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> TargetLogit:
        """ψ over the target cosines (B,) and the feature norms (B,); differentiable in both."""
        raise NotImplementedError

    def negative_logits(self, cosine: Float[Tensor, "B C"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B C"]:
        """η over a chunk (B, n) of other classes; `target` (B, 1) is `negative_threshold`. The identity by default."""
        return cosine

    def negative_threshold(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """What a negative's cosine is compared with (B,), called without gradient: ψ unless overridden."""
        return self.target_logit(cosine, norm).logit

    def scales(self, norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The scale s of each sample (B,); constant unless overridden."""
        return torch.full_like(norm, self.scale)

    def offset(self) -> Float[Tensor, ""] | None:
        """What is added to every logit of a "sigmoid" head, 0-d."""
        return None

    def balance(self) -> tuple[float, float]:
        """Weights of the positive and of the negative part of a "sigmoid" head."""
        return 1.0, 1.0

    def update_state(self, cosine: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> None:
        """Update the head's state from a training batch, the same on every rank; called without gradient."""

    def update_negatives_state(self, reduced: Float[Tensor, " B"], cosine: Float[Tensor, " B"]) -> None:
        """Update the state from log Σ_{j≠y} exp(s cos θ_j) (B,) and the target cosines (B,), before the loss."""


def checked(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
    unit: str = "",
) -> float:
    """Return `value` if it lies in the range.

    Raises:
        RecipeError: it does not; for radians the message offers the conversion from degrees.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and (low < value if open_low else low <= value) and (value < high if open_high else value <= high):
        return float(value)
    interval = f"{'(' if open_low else '['}{_number(low)}, {_number(high)}{')' if open_high else ']'}"
    hint = ""
    if unit == "radians" and number and value > high:
        hint = f" ({value:g} degrees is {math.radians(value):.3g} radians)"
    raise RecipeError(f"{name} must lie in {interval}{' ' + unit if unit else ''}, got {value!r}{hint}")


def _number(value: float) -> str:
    for text, known in (("π/2", math.pi / 2), ("π", math.pi)):
        if value == known:
            return text
    return f"{value:g}"
