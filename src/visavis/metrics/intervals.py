"""How sure a figure is: intervals of rates, and the subject bootstrap where people occur in several comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import Float64, allowed_false_matches, rate_name
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer

CONFIDENCE = 0.95


def wilson(successes: float, trials: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion p̂ = k/n, which keeps inside [0, 1] and is honest at 0 and 1.

        (p̂ + z²/2n ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n)

    Wilson, J. Am. Stat. Assoc. 22, 1927.

    Raises:
        ProtocolError: no trials, or successes outside [0, trials].
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ProtocolError(f"a proportion wants 0 ≤ successes ≤ trials and trials ≥ 1, got {successes} of {trials}")
    z = normal_quantile(0.5 + confidence / 2)
    p = successes / trials
    center = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (center - half) / scale
    high = 1.0 if successes == trials else (center + half) / scale
    return low, high


def normal_quantile(probability: float) -> float:
    """The standard normal's quantile."""
    return NormalDist().inv_cdf(probability)


@dataclass(frozen=True)
class SubjectBootstrap:
    """Replicates of rates when subjects, not comparisons, are drawn again: `accuracy` (B,), `tmr` {fmr: (B,)}."""

    accuracy: Float64
    tmr: dict[str, Float64]

    def interval(self, values: Float64, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Percentile interval of the replicates that could be computed."""
        return percentile_interval(values, confidence=confidence)


def percentile_interval(values: Float64, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The central `confidence` of the finite `values` (B,)."""
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def subject_weights(subjects: int, *, replicates: int, seed: int) -> Integer[IntArray, "{replicates} {subjects}"]:
    """How often each subject is drawn in each replicate: (B, S), rows multinomial with sum S."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=replicates)


def subject_interval(
    hits: Bool[BoolArray, " N"], subject: Integer[IntArray, " N"], *, replicates: int, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of the share of `hits` (N,) when the subjects (N,) behind them, not the hits, are drawn again.

    A replicate's share is Σ_s w_s·hits_s / Σ_s w_s·n_s with w the number of times subject s was drawn.

    Returns:
        None without replicates or where a subject is not known (−1).
    """
    if not replicates or not len(subject) or subject.min() < 0:
        return None
    names, number = np.unique(subject, return_inverse=True)
    right, count = np.bincount(number, hits), np.bincount(number)
    rng = np.random.default_rng(seed)
    shares = np.empty(replicates)
    step = max(1, 10_000_000 // len(names))  # draws at a time: 80 MB
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        shares[start : start + size] = (drawn @ right) / (drawn @ count)
    return percentile_interval(shares)


def subject_difference(
    first: Bool[BoolArray, " N"],
    second: Bool[BoolArray, " N"],
    subject: Integer[IntArray, " N"],
    *,
    replicates: int,
    seed: int = 0,
) -> tuple[tuple[float, float], float] | None:
    """Interval and two-sided p of the difference of two shares of hits (N,) when their subjects (N,) are drawn again.

    Returns:
        None without replicates or where a subject is not known (−1).
    """
    if not replicates or not len(subject) or subject.min() < 0:
        return None
    names, number = np.unique(subject, return_inverse=True)
    gained = np.bincount(number, second.astype(np.float64) - first)
    drawn = subject_weights(len(names), replicates=replicates, seed=seed)
    shares = (drawn @ gained) / (drawn @ np.bincount(number))
    tail = min(np.count_nonzero(shares <= 0), np.count_nonzero(shares >= 0))
    return percentile_interval(shares), min(1.0, 2 * (tail + 1) / (replicates + 1))


def comparison_weights(
    drawn: Integer[IntArray, "R S"], reference_subject: Integer[IntArray, " N"], probe_subject: Integer[IntArray, " N"]
) -> Float[Float64, "R N"]:
    """Weights of comparisons when subjects are drawn `drawn` (B, S) times.

    A comparison of a subject with itself counts w_a times, one of two subjects w_a·w_b times (the two-way bootstrap of
    Owen, Ann. Appl. Stat. 1, 2007, which Bolle et al. 2004 call subsets bootstrap for one subject).
    """
    weights = drawn[:, reference_subject].astype(np.float64)
    other = np.flatnonzero(reference_subject != probe_subject)
    weights[:, other] *= drawn[:, probe_subject[other]]
    return weights


def bootstrap_subjects(
    similarities: Float[FloatArray, " N"],
    genuine: Bool[BoolArray, " N"],
    correct: Bool[BoolArray, " N"],
    subjects: tuple[Integer[IntArray, " N"], Integer[IntArray, " N"]],
    *,
    fmrs: tuple[float, ...] = (),
    replicates: int = 1000,
    seed: int = 0,
) -> SubjectBootstrap:
    """Draw subjects with replacement and compute accuracy and TMR@FMR anew each time.

    `correct` (N,) says which comparisons the folds decided rightly; thresholds are drawn anew only for the TMR.
    `subjects` are the subject numbers (N,) of reference and probe.
    """
    order = np.argsort(-similarities, kind="stable")
    scores, truth, right = similarities[order], genuine[order], correct[order]
    reference, probe = (s[order] for s in subjects)
    count = int(max(reference.max(), probe.max())) + 1
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True) & (scores != -np.inf))
    accuracy = np.empty(replicates)
    tmr = {rate_name(fmr): np.full(replicates, np.nan) for fmr in fmrs}
    drawn = subject_weights(count, replicates=replicates, seed=seed)
    step = max(1, 2_000_000 // len(scores))
    for start in range(0, replicates, step):
        weights = comparison_weights(drawn[start : start + step], reference, probe)
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore"):
            accuracy[start : start + step] = (weights * right).sum(axis=1) / total
        for row, w in enumerate(weights):
            _weighted_tmr(w, truth, ends, fmrs, tmr, start + row)
    return SubjectBootstrap(accuracy, tmr)


def _weighted_tmr(
    weights: Float64, genuine: BoolArray, ends: IntArray, fmrs: tuple[float, ...], out: dict[str, Float64], row: int
) -> None:
    """TMR at each FMR of one replicate: weights in the order of falling scores, `ends` the last of each tie."""
    true = np.cumsum(np.where(genuine, weights, 0.0))
    false = np.cumsum(np.where(genuine, 0.0, weights))
    if not len(ends) or true[-1] <= 0 or false[-1] <= 0:
        return
    for (_, values), fmr in zip(out.items(), fmrs, strict=True):
        allowed = allowed_false_matches(fmr, int(false[-1]))
        last = int(np.searchsorted(false[ends], allowed, "right")) - 1
        values[row] = 0.0 if last < 0 else true[ends[last]] / true[-1]
