"""Accuracy by folds: each fold is judged at the threshold best on the others, taken from their sorted scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from visavis.evaluate.curves import Float64, between
from visavis.types import BoolArray, FloatArray, IntArray

DEFAULT_FOLDS = 10


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of each fold (K,) and the threshold it was judged at (K,); `match` (N,) are the decisions."""

    accuracy: Float64
    threshold: Float64
    match: BoolArray

    @property
    def mean(self) -> float:
        """Mean over folds, each weighing the same."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation over folds with divisor K, as the field prints it."""
        return float(self.accuracy.std())

    @property
    def standard_error(self) -> float:
        """Of the mean: standard deviation with divisor K − 1, by √K."""
        k = len(self.accuracy)
        return float(self.accuracy.std(ddof=1)) / math.sqrt(k) if k > 1 else math.nan


def fold_accuracy(similarities: FloatArray, genuine: BoolArray, fold: IntArray) -> FoldAccuracy:
    """Judge every fold of at least two at the best threshold of the others (exact, no grid).

    Of several best thresholds the middle one is taken (see `best_threshold`); −inf never matches.
    """
    order = np.argsort(-similarities)
    scores, truth, folds = similarities[order], genuine[order], fold[order]
    names = np.unique(fold)
    match = np.zeros(len(fold), bool)
    accuracy, thresholds = np.empty(len(names)), np.empty(len(names))
    for k, name in enumerate(names):
        others = folds != name
        thresholds[k] = _best_of_sorted(scores[others], truth[others])
        here = ~others
        match[order[here]] = decided = scores[here] >= thresholds[k]
        accuracy[k] = np.count_nonzero(decided == truth[here]) / len(decided)
    return FoldAccuracy(accuracy, thresholds, match)


def best_threshold(similarities: FloatArray, genuine: BoolArray) -> float:
    """The threshold that decides most comparisons rightly; of several the middle one, half way to the next score.

    Between two neighbouring scores every threshold decides the same. If several such gaps are best, the ⌈n/2⌉-th from
    the top is taken; within it the middle.
    """
    order = np.argsort(-similarities)
    return _best_of_sorted(similarities[order], genuine[order])


def _best_of_sorted(scores: FloatArray, genuine: BoolArray) -> float:
    """`best_threshold` of falling scores."""
    gain = np.empty(len(scores) + 1, np.int32)
    gain[0] = 0
    np.cumsum(genuine.astype(np.int8) * np.int8(2) - np.int8(1), dtype=np.int32, out=gain[1:])
    usable = np.ones(len(gain), bool)  # entry j accepts the first j scores; a tie is accepted whole or not at all
    usable[1:-1] = scores[1:] != scores[:-1]
    if len(scores) and scores[-1] == -np.inf:
        usable[int(np.searchsorted(-scores, np.inf, "left")) + 1 :] = False
    best = gain[usable].max()
    ties = np.flatnonzero(usable & (gain == best))
    accepted = int(ties[(len(ties) - 1) // 2])
    above = float(scores[accepted - 1]) if accepted else math.inf
    below = float(scores[accepted]) if accepted < len(scores) else -math.inf
    if below == -math.inf:
        return above if above != math.inf else 0.0
    return between(below, above)


def cut_folds(genuine: BoolArray, folds: int = DEFAULT_FOLDS) -> IntArray:
    """Folds for a list that has none: genuine and impostor comparisons each cut into contiguous, equal blocks.

    As many as asked for, or as the rarer kind has comparisons; 1 if there is only one of a kind.
    """
    result = np.zeros(len(genuine), np.int64)
    folds = min(folds, int(np.count_nonzero(genuine)), int(np.count_nonzero(~genuine)))
    for kind in (genuine, ~genuine):
        n = int(np.count_nonzero(kind))
        result[kind] = np.arange(n) * folds // max(n, 1)
    return result
