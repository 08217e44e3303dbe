"""What a head is: a formula of the target cosine, and the few facts the shared machinery needs to know about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from visavis.errors import RecipeError


@dataclass(frozen=True)
class TargetLogit:
    """The logits of the true classes in cosine units (B,), and a term (B,) added to the loss of each sample."""

    logit: Tensor
    regulariser: Tensor | None = None


class Head(nn.Module):
    """Base of every head: z_y = s·ψ(cos θ_y, ‖x‖) for the true class, z_j = s·η(cos θ_j) for the others.

    A subclass gives `target` (ψ) and, where the paper says so, `negatives` (η), `scales` (s) or `observe` (state).
    Attributes a subclass may set: `normalised` False for plain inner products with a bias; `reduction` "sigmoid" for
    one-against-all losses; `has_negatives` True if η is not the identity; `detach_margin` True to let the gradient
    pass as if ψ were the identity.
    """

    normalised: ClassVar[bool] = True
    has_negatives: ClassVar[bool] = False
    reduction: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"
    sub_centres: int = 1
    detach_margin: bool = False

    def __init__(self, *, scale: float = 64.0) -> None:
        super().__init__()
        self.scale = checked("scale", scale, 0.0, 1e4, open_low=True)

    def target(self, cosine: Tensor, norm: Tensor) -> TargetLogit:
        """ψ over the target cosines (B,) and the feature norms (B,); differentiable in both."""
        raise NotImplementedError

    def negatives(self, cosine: Tensor, target: Tensor) -> Tensor:
        """η over a chunk (B, n) of other classes; `target` (B, 1) is ψ without gradient. Identity unless overridden."""
        return cosine

    def scales(self, norm: Tensor) -> Tensor:
        """The scale s of each sample (B,); constant unless overridden."""
        return torch.full_like(norm, self.scale)

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        """Update the head's state from a training batch, the same on every rank; called without gradient."""


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


def sine(cosine: Tensor) -> Tensor:
    """sin θ from cos θ for θ in [0, π], with a finite slope at cos θ = ±1.

    √(1 − c²) has an infinite slope there; below the rounding error of c² it is constant instead.
    """
    return ((1.0 - cosine) * (1.0 + cosine)).clamp_min(torch.finfo(cosine.dtype).eps).sqrt()


def angle(cosine: Tensor) -> Tensor:
    """θ = arccos(cos θ) in radians, with a finite slope at cos θ = ±1 and for cosines a rounding error beyond.

    atan2 keeps all digits near 0 and π, where arccos loses half of them.
    """
    return torch.atan2(sine(cosine), cosine)
