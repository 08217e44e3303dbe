"""The error rates of a set of comparisons, exact: read off the sorted scores, with ties as the definitions say.

A comparison matches when its similarity is at least the threshold. With G genuine and I impostor comparisons

    fmr(t) = #{impostor ≥ t} / I        tmr(t) = #{genuine ≥ t} / G = 1 − fnmr(t)        (ISO/IEC 19795-1:2021, 3.3)

A comparison that could not be made (failure to acquire) has the similarity −inf: no threshold matches it, so the rates
are ISO's generalized ones and a system that refuses hard pictures gains nothing by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold and what it does: rates in [0, 1], `false_matches` and `true_matches` as counts."""

    threshold: float
    fmr: float
    tmr: float
    false_matches: int
    true_matches: int


@dataclass(frozen=True)
class ErrorCurve:
    """All operating points of a comparison set, held as the two sorted score lists (ascending, −inf = not acquired)."""

    genuine: FloatArray
    impostor: FloatArray

    def at(self, threshold: float) -> OperatingPoint:
        """The rates when similarities ≥ `threshold` match."""
        tm = len(self.genuine) - int(np.searchsorted(self.genuine, threshold, "left"))
        fm = len(self.impostor) - int(np.searchsorted(self.impostor, threshold, "left"))
        return OperatingPoint(float(threshold), fm / len(self.impostor), tm / len(self.genuine), fm, tm)

    def supports(self, fmr: float) -> bool:
        """Whether there are impostors enough that at least one may match at this false match rate."""
        return allowed_false_matches(fmr, len(self.impostor)) >= 1

    def at_fmr(self, fmr: float) -> OperatingPoint:
        """The point of highest tmr whose false match rate does not exceed `fmr`; never interpolated.

        Of the thresholds that give it, the one half way between the weakest accepted and the strongest refused
        comparison is returned, so that it does not sit on a score.
        """
        if not 0 <= fmr <= 1:
            raise ProtocolError(f"a false match rate lies in [0, 1], got {fmr}")
        allowed = allowed_false_matches(fmr, len(self.impostor))
        if allowed >= len(self.impostor):
            return self.at(self._lowest_finite)
        refused = float(self.impostor[len(self.impostor) - 1 - allowed])
        if refused == -math.inf:
            return self.at(self._lowest_finite)
        above = [
            float(a[p]) for a in (self.genuine, self.impostor) if (p := np.searchsorted(a, refused, "right")) < len(a)
        ]
        accepted = min(above, default=math.inf)
        return self.at(between(refused, accepted))

    @cached_property
    def _lowest_finite(self) -> float:
        first = [
            float(a[p]) for a in (self.genuine, self.impostor) if (p := np.searchsorted(a, -math.inf, "right")) < len(a)
        ]
        return min(first, default=0.0)

    @cached_property
    def auc(self) -> float:
        """Area under the ROC: P(genuine > impostor) + ½ P(genuine = impostor), over all pairs of comparisons."""
        not_above = np.searchsorted(self.impostor, self.genuine, "right")
        total = int(self._impostors_below.sum(dtype=np.int64)) + int(not_above.sum(dtype=np.int64))
        return total / (2 * len(self.genuine) * len(self.impostor))

    @cached_property
    def _impostors_below(self) -> IntArray:
        """How many impostors lie below each genuine score."""
        return np.searchsorted(self.impostor, self.genuine, "left")

    @cached_property
    def eer(self) -> float:
        """Equal error rate: where the ROC, drawn with straight lines between its points, meets fmr = fnmr."""
        low, high = self._eer_points
        gap_high, gap_low = low.fmr - (1 - low.tmr), high.fmr - (1 - high.tmr)
        if gap_high == gap_low:
            return low.fmr
        share = -gap_low / (gap_high - gap_low)
        return high.fmr + share * (low.fmr - high.fmr)

    @property
    def eer_threshold(self) -> float:
        """The threshold nearest to equal errors: the highest score at which fmr ≥ fnmr."""
        return self._eer_points[0].threshold

    @cached_property
    def _eer_points(self) -> tuple[OperatingPoint, OperatingPoint]:
        """The highest score at which fmr ≥ fnmr, and the next higher score (or above all of them)."""
        thresholds = [t for a in (self.genuine, self.impostor) if (t := self._last_crossed(a)) is not None]
        if not thresholds:  # so many failures to acquire that fmr stays below fnmr: their common level −inf is the last
            everything = OperatingPoint(-math.inf, 1.0, 1.0, len(self.impostor), len(self.genuine))
            return everything, self.at(self._lowest_finite)
        threshold = max(thresholds)
        above = [
            float(a[p]) for a in (self.genuine, self.impostor) if (p := np.searchsorted(a, threshold, "right")) < len(a)
        ]
        return self.at(threshold), self.at(min(above, default=math.inf))

    def _last_crossed(self, scores: FloatArray) -> float | None:
        """Bisect for the highest of `scores` (ascending) at which fmr ≥ fnmr."""
        low, high = -1, len(scores)
        while high - low > 1:
            middle = (low + high) // 2
            score = float(scores[middle])
            point = self.at(score) if score != -math.inf else None
            if point is None or point.fmr >= 1 - point.tmr:
                low = middle
            else:
                high = middle
        return None if low < 0 or scores[low] == -math.inf else float(scores[low])

    @cached_property
    def d_prime(self) -> float | None:
        """Separation |μ_g − μ_i| / √((σ_g² + σ_i²)/2) of the acquired comparisons; None where no spread is left."""
        genuine, impostor = (a[np.isfinite(a)].astype(np.float64) for a in (self.genuine, self.impostor))
        if not len(genuine) or not len(impostor):
            return None
        spread = math.sqrt((float(genuine.var()) + float(impostor.var())) / 2)
        return abs(float(genuine.mean()) - float(impostor.mean())) / spread if spread > 0 else None

    def detection_cost(self, *, prior: float = 0.01, miss: float = 1.0, false_match: float = 1.0) -> float:
        """Least normalized cost over all thresholds: min_t [c_m·π·fnmr + c_f·(1−π)·fmr] / min(c_m·π, c_f·(1−π))."""
        scores = (
            self.genuine
        )  # between two genuine scores a higher threshold only gains: the best is one of them, or inf
        first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]) & (scores != -np.inf))
        fnmr = np.append(first, len(scores)) / len(scores)
        fmr = np.append(len(self.impostor) - self._impostors_below[first], 0) / len(self.impostor)
        cost = miss * prior * fnmr + false_match * (1 - prior) * fmr
        return float(cost.min()) / min(miss * prior, false_match * (1 - prior))

    def roc(self, *, points: int = 0) -> tuple[Float64, Float64, Float64]:
        """(thresholds, fmr, tmr), thresholds falling from +inf; with `points` at most about so many, ends kept."""
        scores = np.unique(np.concatenate([_thin(self.genuine, points), _thin(self.impostor, points)]))
        scores = np.append(scores[np.isfinite(scores)], np.inf)[::-1].astype(np.float64)
        tm = len(self.genuine) - np.searchsorted(self.genuine, scores, "left")
        fm = len(self.impostor) - np.searchsorted(self.impostor, scores, "left")
        return scores, fm / len(self.impostor), tm / len(self.genuine)


def error_curve(similarities: Float[FloatArray, " N"], genuine: Bool[BoolArray, " N"]) -> ErrorCurve:
    """Sort the similarities (N,) of genuine and impostor comparisons; NaN (not acquired) becomes −inf.

    Raises:
        ProtocolError: the shapes differ, or there is no genuine or no impostor comparison.
    """
    similarities, genuine = check_comparisons(similarities, genuine)
    parts = [similarities[genuine], similarities[~genuine]]
    for index, part in enumerate(parts):
        if np.isnan(part).any():
            parts[index] = np.where(np.isnan(part), -np.inf, part)
    return ErrorCurve(np.sort(parts[0]), np.sort(parts[1]))


def check_comparisons(
    similarities: Float[FloatArray, " N"], genuine: Bool[BoolArray, " N"]
) -> tuple[Float[FloatArray, " N"], Bool[BoolArray, " N"]]:
    """Refuse what is no set of comparisons: see `error_curve`."""
    similarities, genuine = np.asarray(similarities), np.asarray(genuine, bool)
    if similarities.shape != genuine.shape or similarities.ndim != 1:
        raise ProtocolError(f"wanted one similarity per comparison, got shapes {similarities.shape}, {genuine.shape}")
    positives = int(np.count_nonzero(genuine))
    if not 0 < positives < len(genuine):
        raise ProtocolError(
            f"verification needs genuine and impostor comparisons, got {positives} genuine and "
            f"{len(genuine) - positives} impostor; check the pair list"
        )
    return similarities, genuine


def allowed_false_matches(fmr: float, impostors: int) -> int:
    """How many false matches a rate allows: ⌊fmr·I⌋, safe against 1e-3·3000 = 2.9999."""
    return math.floor(fmr * impostors * (1 + 1e-12) + 1e-12)


def between(refused: float, accepted: float) -> float:
    """A threshold that refuses the one and accepts the other: their middle, or just above the highest score."""
    if accepted == math.inf:
        return float(np.nextafter(refused, math.inf))
    middle = 0.5 * (refused + accepted)
    return middle if refused < middle <= accepted else accepted


def rate_name(rate: float) -> str:
    """1e-3 for 0.001; 5e-4 for 0.0005; what JSON keys and tables call a rate."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _thin(scores: FloatArray, points: int) -> FloatArray:
    """Some of the sorted scores: spaced evenly in rank and, near the top where fmr is small, in its logarithm."""
    n = len(scores)
    if not points or n <= points:
        return scores
    linear = np.linspace(0, n - 1, points // 2)
    logarithmic = n - np.geomspace(1, n, points // 2)
    return scores[np.unique(np.concatenate([linear, logarithmic]).astype(np.int64))]
