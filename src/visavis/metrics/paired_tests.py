"""Two models on the same comparisons: is the difference more than luck, and how small a one could have been seen?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import Float64, allowed_false_matches, rate_name
from visavis.metrics.intervals import comparison_weights, normal_quantile, percentile_interval, subject_weights
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Integer


@dataclass(frozen=True)
class McNemar:
    """Comparisons that only one of two models decided rightly, and the exact two-sided p of so uneven a split."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Bool[BoolArray, " N"], second: Bool[BoolArray, " N"]) -> McNemar:
    """Exact test of equal accuracy from paired decisions (N,), True where right.

        p = min(1, 2·Σ_{k ≤ min(b, c)} C(b + c, k)·2^{−(b + c)})

    for b and c comparisons that only the first, only the second model got right (McNemar, Psychometrika 12, 1947, with
    the binomial in place of χ²). Pairs are taken as independent; where subjects repeat see `paired_bootstrap`.
    """
    if first.shape != second.shape:
        raise ProtocolError(f"a paired test wants the same comparisons, got {first.shape} and {second.shape}")
    b = int(np.count_nonzero(first & ~second))
    c = int(np.count_nonzero(second & ~first))
    return McNemar(b, c, min(1.0, 2 * _binomial_tail(min(b, c), b + c)))


def _binomial_tail(successes: int, trials: int) -> float:
    """P(X ≤ successes) for X ~ Binomial(trials, ½), summed in logarithms."""
    if not trials:
        return 1.0
    base = math.lgamma(trials + 1) - trials * math.log(2)
    return math.fsum(math.exp(base - math.lgamma(k + 1) - math.lgamma(trials - k + 1)) for k in range(successes + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several, so that the chance of any false claim keeps to the level.

        p̃_(i) = max_{j ≤ i} min(1, (m − j + 1)·p_(j))        for p_(1) ≤ … ≤ p_(m)

    Holm, Scand. J. Stat. 6, 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def minimum_detectable_difference(
    discordant: float, comparisons: int, *, power: float = 0.8, significance: float = 0.05
) -> float:
    """The smallest difference of accuracies that McNemar's test finds with `power` at this share of discordant pairs.

    Solves n = (z_{1−α/2}·√ψ + z_{1−β}·√(ψ − δ²))² / δ² for δ, with ψ = `discordant` (Connor, Biometrics 43, 1987).
    """
    if not 0 <= discordant <= 1 or comparisons < 1:
        raise ProtocolError(f"wanted a share in [0, 1] of at least one comparison, got {discordant}, {comparisons}")
    a, b = normal_quantile(1 - significance / 2), normal_quantile(power)
    low, high = 0.0, math.sqrt(discordant)
    for _ in range(200):
        middle = (low + high) / 2
        needed = a * math.sqrt(discordant) + b * math.sqrt(max(discordant - middle * middle, 0.0))
        low, high = (middle, high) if middle * math.sqrt(comparisons) < needed else (low, middle)
    return min(high, discordant)


@dataclass(frozen=True)
class Difference:
    """Second model minus first: the value, its interval over subjects and the bootstrap's two-sided p."""

    value: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class PairedDecisions:
    """One model's similarities (N,), −inf where not acquired, and which of its decisions were right (N,)."""

    similarities: FloatArray
    right: BoolArray


def paired_bootstrap(
    models: tuple[PairedDecisions, PairedDecisions],
    genuine: Bool[BoolArray, " N"],
    subjects: tuple[Integer[IntArray, " N"], Integer[IntArray, " N"]],
    *,
    fmrs: Sequence[float] = (),
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Differences of accuracy and of TMR at each FMR, when subjects are drawn again for both models alike.

    Returns:
        "accuracy" and one entry for each rate's name.
    """
    count = int(max(subjects[0].max(), subjects[1].max())) + 1
    drawn = subject_weights(count, replicates=replicates, seed=seed)
    rated = [_Rated.of(m.similarities, genuine) for m in models]
    names = ["accuracy", *(rate_name(f) for f in fmrs)]
    values = np.full((2, len(names), replicates), np.nan)
    step = max(1, 2_000_000 // len(genuine))
    for start in range(0, replicates, step):
        weights = comparison_weights(drawn[start : start + step], *subjects)
        for row, w in enumerate(weights):
            for k, model in enumerate(models):
                values[k, :, start + row] = _figures(w, model.right, rated[k], fmrs)
    ones = np.ones(len(genuine))
    observed = [_figures(ones, m.right, r, fmrs) for m, r in zip(models, rated, strict=True)]
    return {
        name: _difference(observed[1][i] - observed[0][i], values[1, i] - values[0, i]) for i, name in enumerate(names)
    }


@dataclass(frozen=True)
class _Rated:
    """The order of falling similarity, the truth in it, and the last place of each run of equals."""

    order: IntArray
    genuine: BoolArray
    ends: IntArray

    @classmethod
    def of(cls, similarities: FloatArray, genuine: BoolArray) -> _Rated:
        order = np.argsort(-similarities, kind="stable")
        scores = similarities[order]
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True) & (scores != -np.inf))
        return cls(order, genuine[order], ends)


def _figures(weights: Float64, right: BoolArray, rated: _Rated, fmrs: Sequence[float]) -> list[float]:
    total = float(weights.sum())
    figures = [float(weights @ right) / total if total else math.nan]
    w = weights[rated.order]
    true = np.cumsum(np.where(rated.genuine, w, 0.0))
    false = np.cumsum(np.where(rated.genuine, 0.0, w))
    for fmr in fmrs:
        if true[-1] <= 0 or false[-1] <= 0:
            figures.append(math.nan)
            continue
        allowed = allowed_false_matches(fmr, int(false[-1]))
        last = int(np.searchsorted(false[rated.ends], allowed, "right")) - 1
        figures.append(0.0 if last < 0 else float(true[rated.ends[last]] / true[-1]))
    return figures


def _difference(value: float, replicates: Float64) -> Difference:
    drawn = replicates[np.isfinite(replicates)]
    if not len(drawn):
        return Difference(value, (math.nan, math.nan), math.nan)
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return Difference(value, percentile_interval(drawn), min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


@dataclass(frozen=True)
class SeedEffect:
    """Runs that differ by their seed only: their spread, and for two groups whether they differ by more than that."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    difference: float
    p_value: float


def seed_effect(first: Sequence[float], second: Sequence[float]) -> SeedEffect:
    """Exact permutation test of the difference of means of two groups of runs.

        p = #{splits with |difference| ≥ the observed} / #{splits}

    Three against three runs can show p = 0.1 at best, four against four 0.03.

    Raises:
        ProtocolError: a group without runs, or so many that the splits cannot be counted out.
    """
    if not first or not second or len(first) + len(second) > 20:
        raise ProtocolError(f"the effect of seeds wants 1 to 20 runs in all, got {len(first)} and {len(second)}")
    together = np.array([*first, *second])
    n = len(first)
    observed = float(np.mean(second) - np.mean(first))
    splits = list(combinations(range(len(together)), n))
    chosen = np.zeros((len(splits), len(together)), bool)
    for row, split in enumerate(splits):
        chosen[row, list(split)] = True
    means = np.where(chosen, together, 0).sum(axis=1) / n
    others = np.where(chosen, 0, together).sum(axis=1) / len(second)
    extreme = np.count_nonzero(np.abs(others - means) >= abs(observed) - 1e-12)
    return SeedEffect(tuple(first), tuple(second), observed, extreme / len(splits))
