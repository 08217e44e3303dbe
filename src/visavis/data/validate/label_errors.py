"""Probable label errors from embeddings: pictures far from their class and close to another, classes that are one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.metrics.similarity import matches, unit_rows
from visavis.types import FloatArray, IntArray

_CELLS = 20_000_000  # of a similarity matrix at a time


@dataclass(frozen=True)
class LabelError:
    """Picture `index` of class `label` looks like class `other`: similarity to each (leave-one-out for its own)."""

    index: int
    label: int
    other: int
    own_similarity: float
    other_similarity: float


@dataclass(frozen=True)
class SameClass:
    """Two classes whose centers are as close as pictures of one person."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class LabelReview:
    """What `review_labels` found, most suspicious first; `threshold` is the similarity that was taken as a match."""

    errors: tuple[LabelError, ...]
    same: tuple[SameClass, ...]
    threshold: float


def centers(embeddings: FloatArray, labels: IntArray, classes: int) -> npt.NDArray[np.float32]:
    """The unit mean (C, D) of each class's embeddings (N, D); rows of NaN do not count, an empty class is zeros."""
    good = np.isfinite(embeddings).all(1)
    sums = np.zeros((classes, embeddings.shape[1]), np.float64)
    np.add.at(sums, labels[good], embeddings[good])
    return unit_rows(sums).astype(np.float32)


def match_threshold(embeddings: FloatArray, labels: IntArray, *, pairs: int = 200_000, seed: int = 0) -> float:
    """The similarity above which two pictures are one person: mean + 5·σ of impostor similarities.

    Shapes: embeddings (N, D), labels (N,).

    Taken from random pairs of the set itself, so that it fits the model at hand: for a normal distribution of impostor
    similarities it stands for a false match rate of 3·10⁻⁷.
    """
    good = np.flatnonzero(np.isfinite(embeddings).all(1))
    if len(good) < 2:
        return 1.0
    rng = np.random.default_rng(seed)
    i, j = good[rng.integers(0, len(good), (2, pairs))]
    different = labels[i] != labels[j]
    i, j = i[different], j[different]
    if len(i) < 2:
        return 1.0
    similarity = np.einsum("nd,nd->n", embeddings[i], embeddings[j])
    return float(np.clip(similarity.mean() + 5 * similarity.std(), -1, 1))


def review_labels(embeddings: FloatArray, labels: IntArray, classes: int) -> LabelReview:
    """Find probable label errors and classes that may be one person.

    A picture is suspicious when its similarity to the center of another class reaches the match threshold and exceeds
    that to the center of the rest of its own class. Classes of one picture have no rest: they appear in `same`, when
    their center matches another's.

    Args:
        embeddings: (N, D) unit rows; NaN where a picture could not be embedded.
        labels: (N,) in 0 … classes − 1.
        classes: number of identities.
    """
    threshold = match_threshold(embeddings, labels)
    middle = centers(embeddings, labels, classes)
    good = np.isfinite(embeddings).all(1)
    sizes = np.bincount(labels[good], minlength=classes)
    sums = np.zeros((classes, embeddings.shape[1]), np.float64)
    np.add.at(sums, labels[good], embeddings[good])
    errors: list[LabelError] = []
    index = np.flatnonzero(good & (sizes[labels] > 1))
    rows = max(16, _CELLS // max(1, classes))
    for start in range(0, len(index), rows):
        block = index[start : start + rows]
        own_label = labels[block]
        rest = unit_rows(sums[own_label] - embeddings[block]).astype(np.float32)
        own = np.einsum("nd,nd->n", embeddings[block], rest)
        similarity = embeddings[block].astype(np.float32) @ middle.T
        similarity[np.arange(len(block)), own_label] = -2
        other = similarity.argmax(1)
        best = similarity[np.arange(len(block)), other]
        errors += [
            LabelError(int(block[k]), int(own_label[k]), int(other[k]), float(own[k]), float(best[k]))
            for k in np.flatnonzero(matches(best, threshold) & (best > own))
        ]
    errors.sort(key=lambda e: e.own_similarity - e.other_similarity)
    return LabelReview(tuple(errors), tuple(matching_centers(middle, middle, threshold, same_set=True)), threshold)


def matching_centers(a: FloatArray, b: FloatArray, threshold: float, *, same_set: bool = False) -> list[SameClass]:
    """Pairs of centers (C, D) and (E, D) of similarity at least `threshold`, best first; within one set i < j."""
    found: list[SameClass] = []
    rows = max(16, _CELLS // max(1, len(b)))
    for start in range(0, len(a), rows):
        similarity = a[start : start + rows] @ b.T
        i, j = np.nonzero(matches(similarity, threshold))
        for x, y in zip(i.tolist(), j.tolist(), strict=True):
            if not same_set or start + x < y:
                found.append(SameClass(start + x, y, float(similarity[x, y])))
    return sorted(found, key=lambda pair: -pair.similarity)
