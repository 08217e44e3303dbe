"""Angles from cosines, with finite slopes everywhere and logits that never rise with the angle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def sine(cosine: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """sin θ from cos θ for θ in [0, π], with a finite slope at cos θ = ±1.

    √(1 − c²) has an infinite slope there; below the rounding error of c² it is constant instead.
    """
    return ((1.0 - cosine) * (1.0 + cosine)).clamp_min(torch.finfo(cosine.dtype).eps).sqrt()


def angle(cosine: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """θ = arccos(cos θ) in radians, with a finite slope at cos θ = ±1 and for cosines a rounding error beyond.

    atan2 keeps all digits near 0 and π, where arccos loses half of them.
    """
    return torch.atan2(sine(cosine), cosine)


def add_angle(cosine: Float[Tensor, "*S"], margin: float | Float[Tensor, "*#S"]) -> Float[Tensor, "*S"]:
    """cos(θ + m) while θ + m ≤ π, and cos θ − m sin m beyond, so that the logit never rises with θ.

    At θ = π − m the first branch is −1 and the second −(cos m + m sin m) ≤ −1: a step down, then a slope of −sin θ.
    `margin` m in radians, in [0, π/2], a number or one per cosine.
    """
    m = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    within = cosine * m.cos() - sine(cosine) * m.sin()
    return torch.where(cosine >= -m.cos(), within, cosine - m * m.sin())


def multiply_and_add_angle(cosine: Float[Tensor, "*S"], factor: float, margin: float) -> Float[Tensor, "*S"]:
    """cos(m₁θ + m₂) while m₁θ + m₂ ≤ π; beyond, cos θ shifted to start at or below −1.

    The shift makes m₁ = 1 agree with `add_angle`: −1 − (m₂ sin m₂ + cos m₂ − 1) at the angle where the branches meet.
    """
    wanted = factor * angle(cosine) + margin
    meeting = math.cos((math.pi - margin) / factor)
    step = margin * math.sin(margin) + math.cos(margin) - 1.0
    return torch.where(cosine >= meeting, wanted.cos(), cosine - meeting - 1.0 - step)


def multiply_angle(cosine: Float[Tensor, "*S"], factor: int) -> Float[Tensor, "*S"]:
    """φ(θ) = (−1)ᵏ cos(mθ) − 2k with k = ⌊mθ/π⌋, for whole m, falling from 1 to 1 − 2m on [0, π].

    cos(mθ) is the Chebyshev polynomial of cos θ, and k counts the bounds cos(jπ/m) passed: no arccos, no NaN.
    """
    before, power = torch.ones_like(cosine), cosine
    for _ in range(factor - 1):
        before, power = power, 2.0 * cosine * power - before
    passed = torch.zeros_like(cosine)
    for j in range(1, factor):
        passed = passed + (cosine < math.cos(j * math.pi / factor)).to(cosine.dtype)
    return (1.0 - 2.0 * passed.remainder(2.0)) * power - 2.0 * passed
