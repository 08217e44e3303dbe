"""Accuracy by folds: each fold is judged at the threshold best on the others, taken from their sorted scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visavis.metrics.error_rates import Float64, between
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer

DEFAULT_FOLDS = 10
_PLACES = 2**32 - 1


@dataclass(frozen=True)
class SortedScores:
    """Scores in falling order; accepting one more is a `step` of +1 (genuine) or −1 in the count of right decisions.

    `run_ends` are the places where acceptance may end: the last of each run of equal scores, −inf excluded.
    """

    order: IntArray
    scores: FloatArray
    step: npt.NDArray[np.int8]
    run_ends: IntArray | None

    @classmethod
    def of(cls, similarities: FloatArray, genuine: BoolArray) -> SortedScores:
        """Sort the scores (N,), −inf where not acquired."""
        order = falling_order(similarities)
        scores = similarities[order]
        step = genuine[order].astype(np.int8) * np.int8(2) - np.int8(1)
        last = np.ones(len(scores), bool)
        last[:-1] = scores[1:] != scores[:-1]
        last &= scores != -np.inf
        return cls(order, scores, step, None if last.all() else np.flatnonzero(last))

    def ascending(self, *, genuine: bool) -> Float[FloatArray, " G"]:
        """The sorted scores of the genuine or of the impostor comparisons, ascending."""
        chosen = self.scores[self.step > 0] if genuine else self.scores[self.step < 0]
        return np.ascontiguousarray(chosen[::-1])

    def best_threshold_without(self, left_out: Integer[IntArray, " K"]) -> float:
        """The best threshold of all comparisons but those at the places `left_out` (rising)."""
        step = self.step
        if len(left_out):
            step = step.copy()
            step[left_out] = 0
        gain = np.cumsum(step, dtype=np.int32)
        gain = gain if self.run_ends is None else gain[self.run_ends]
        best = max(0, int(gain.max(initial=0)))
        places = np.flatnonzero(gain == best)
        places = places if self.run_ends is None else self.run_ends[places]
        accepted = np.unique(places + 1 - np.searchsorted(left_out, places, "right"))  # counts of kept comparisons
        if best == 0 and (not len(accepted) or accepted[0] != 0):
            accepted = np.append(0, accepted)  # to accept none is as good
        n = int(accepted[(len(accepted) - 1) // 2])
        kept = len(self.scores) - len(left_out)
        above = self._score_without(n - 1, left_out) if n else math.inf
        below = self._score_without(n, left_out) if n < kept else -math.inf
        if below == -math.inf:
            return above if above != math.inf else 0.0
        return between(below, above)

    def _score_without(self, index: int, left_out: IntArray) -> float:
        """The `index`-th falling score among those kept."""
        skipped = int(np.searchsorted(left_out - np.arange(len(left_out)), index, "right"))
        return float(self.scores[index + skipped])


def falling_order(scores: Float[FloatArray, " N"]) -> Integer[IntArray, " N"]:
    """Places (N,) of the scores from the highest to the lowest, −inf allowed.

    Single precision is sorted together with its places, as integers in the order of the numbers they spell: a third
    less time than an argsort, since nothing is looked up.
    """
    if scores.dtype != np.float32 or len(scores) > _PLACES:
        return np.argsort(np.negative(scores, dtype=np.float64))  # NumPy sorts places of doubles fastest
    bits = np.ascontiguousarray(scores).view(np.uint32)
    falling = np.where(bits >> np.uint32(31), bits, ~bits & np.uint32(0x7FFFFFFF))
    key = falling.astype(np.uint64)
    key <<= np.uint64(32)
    key |= np.arange(len(scores), dtype=np.uint64)
    key.sort()
    key &= np.uint64(_PLACES)
    return key.view(np.int64)


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of each fold (K,) and the threshold it was judged at (K,); `match` (N,) are the decisions.

    `sizes` (K,) are the comparisons of each fold.
    """

    accuracy: Float64
    threshold: Float64
    match: BoolArray
    sizes: IntArray

    @property
    def is_even(self) -> bool:
        """Whether all folds are of one size."""
        return bool((self.sizes == self.sizes[0]).all())

    @property
    def mean(self) -> float:
        """Mean over folds, each weighing by its comparisons: the share of right decisions, as its interval takes it."""
        return float(self.accuracy.mean() if self.is_even else np.average(self.accuracy, weights=self.sizes))

    @property
    def std(self) -> float:
        """Standard deviation over folds, weighted as the mean; divisor K where they are of one size, as printed."""
        if self.is_even:
            return float(self.accuracy.std())
        return math.sqrt(float(np.average((self.accuracy - self.mean) ** 2, weights=self.sizes)))

    @property
    def standard_error(self) -> float:
        """Of the mean: standard deviation with divisor K − 1, by √K."""
        k = len(self.accuracy)
        return self.std * math.sqrt(k / (k - 1)) / math.sqrt(k) if k > 1 else math.nan


def fold_accuracy(sorted_scores: SortedScores, fold: Integer[IntArray, " N"]) -> FoldAccuracy:
    """Judge every fold of at least two at the best threshold of the others (exact, no grid).

    Of several best thresholds the middle one is taken (see `best_threshold`); −inf never matches. The scores are sorted
    once; a fold is left out by zeroing its steps in the running count of right decisions.
    """
    number = _numbered(fold)
    by_fold = np.argsort(number[sorted_scores.order], kind="stable")
    ends = np.cumsum(np.bincount(number))
    match = np.zeros(len(fold), bool)
    accuracy, thresholds = np.empty(len(ends)), np.empty(len(ends))
    for k, (first, last) in enumerate(zip(np.append(0, ends[:-1]), ends, strict=True)):
        here = by_fold[first:last]  # places of this fold in the falling order, themselves in order
        thresholds[k] = sorted_scores.best_threshold_without(here)
        scores = sorted_scores.scores[here]
        matched = len(scores) - int(scores[::-1].searchsorted(float(thresholds[k]), "left"))
        match[sorted_scores.order[here[:matched]]] = True
        right = np.count_nonzero(sorted_scores.step[here[:matched]] > 0) + np.count_nonzero(
            sorted_scores.step[here[matched:]] < 0
        )
        accuracy[k] = right / len(here)
    return FoldAccuracy(accuracy, thresholds, match, np.diff(ends, prepend=0))


def best_threshold(sorted_scores: SortedScores) -> float:
    """The threshold that decides most comparisons rightly; of several the middle one, half way to the next score.

    Between two neighboring scores every threshold decides the same. If several such gaps are best, the ⌈n/2⌉-th from
    the top is taken; within it the middle.
    """
    return sorted_scores.best_threshold_without(np.zeros(0, np.int64))


def cut_folds(genuine: Bool[BoolArray, " N"], folds: int = DEFAULT_FOLDS) -> Integer[IntArray, " N"]:
    """Folds for a list that has none: genuine and impostor comparisons each cut into contiguous, equal blocks.

    As many as asked for, or as the rarer kind has comparisons; 1 if there is only one of a kind.
    """
    result = np.zeros(len(genuine), np.int64)
    folds = min(folds, int(np.count_nonzero(genuine)), int(np.count_nonzero(~genuine)))
    for kind in (genuine, ~genuine):
        n = int(np.count_nonzero(kind))
        result[kind] = np.arange(n) * folds // max(n, 1)
    return result


def contiguous_folds(count: int, folds: int) -> Integer[IntArray, " {count}"]:
    """The fold of each of `count` things cut in order; the first count % folds have one more, as sklearn's KFold."""
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def _numbered(fold: IntArray) -> npt.NDArray[np.integer]:
    """Folds as 0..K−1 in the smallest type, which NumPy sorts by counting."""
    low, high = int(fold.min()), int(fold.max())
    if high - low >= 1 << 15 or high - low >= len(fold):
        return np.unique(fold, return_inverse=True)[1]
    shifted = (fold - low).astype(np.int16)
    present = np.bincount(shifted) > 0
    return (np.cumsum(present) - 1).astype(np.int16)[shifted]
