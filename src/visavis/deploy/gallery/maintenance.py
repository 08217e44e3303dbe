"""Looking over a whole gallery: doubles, and how often strangers would be matched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.deploy.gallery.exchange import export_gallery as export_gallery  # where they were before
from visavis.deploy.gallery.exchange import import_gallery as import_gallery
from visavis.deploy.gallery.records import Candidate
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError
from visavis.metrics.intervals import wilson
from visavis.metrics.similarity import matches


@dataclass(frozen=True)
class DuplicateSubjects:
    """Two subjects so alike that they may be one person."""

    first: Candidate
    second: Candidate


@dataclass(frozen=True)
class Fpir:
    """The false positive identification rate measured: of `probes` strangers, `matched` reached the threshold.

    `interval` is Wilson's.
    """

    rate: float
    probes: int
    matched: int
    threshold: float
    interval: tuple[float, float]


def duplicates(gallery: Gallery, threshold: float, *, limit: int = 1000) -> list[DuplicateSubjects]:
    """Pairs of subjects whose templates reach `threshold`, most alike first, at most `limit`.

    Every template is searched among all others: N²·D multiplications, in chunks.
    """
    pairs: dict[tuple[int, int], float] = {}
    with gallery.searchable() as index:
        ids = index.ids.copy()
        n = len(ids)  # rows: a subject has one for each template
        top = min(n, 11 * index.most_templates)
        for start in range(0, n, 256):
            similarity, row = index.vectors.search(index.vectors.rows(start, min(start + 256, n)), top)
            for i, (values, others) in enumerate(zip(similarity, row, strict=True)):
                for value, other in zip(values.tolist(), others.tolist(), strict=True):
                    a, b = sorted((int(ids[start + i]), int(ids[other])))
                    if a != b and value >= threshold:
                        pairs[a, b] = max(float(value), pairs.get((a, b), -1.0))
    best = sorted(pairs.items(), key=lambda item: -item[1])[:limit]
    named = {i: gallery.subject(i).name for pair, _ in best for i in pair}
    return [DuplicateSubjects(Candidate(a, named[a], s), Candidate(b, named[b], s)) for (a, b), s in best]


def measure_fpir(gallery: Gallery, threshold: float, *, probes: int = 1000, seed: int = 0) -> Fpir:
    """How often a stranger would be matched in this very gallery.

    Each of `probes` subjects drawn without replacement plays the stranger: their template is searched among all others.
    This holds when no person is enrolled twice (see `duplicates`); templates of several pictures are a little more
    alike than single pictures, so that the rate errs upwards.

    Raises:
        DataError: fewer than 2 subjects.
    """
    with gallery.searchable() as index:
        n = len(index)
        if n < 2:
            raise DataError(f"{gallery.path}: measuring the FPIR wants at least 2 subjects, got {n}")
        ids = index.ids.copy()
        first = np.unique(ids, return_index=True)[1]  # the template of all samples comes first
        chosen = np.random.default_rng(seed).permutation(first)[:probes]
        matched = 0
        for start in range(0, len(chosen), 64):
            rows = chosen[start : start + 64]
            vectors = np.concatenate([index.vectors.rows(int(r), int(r) + 1) for r in rows])
            similarity, found = index.vectors.search(vectors, index.most_templates + 1)
            others = np.where(ids[found] == ids[rows][:, None], -np.inf, similarity).max(1)
            matched += int(matches(others, threshold).sum())
    return Fpir(matched / len(chosen), len(chosen), matched, threshold, wilson(matched, len(chosen)))
