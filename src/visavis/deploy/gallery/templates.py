"""How samples stand for a subject: one template, more where they fall apart, and which of them do not fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.clustering import average_linkage, neighbor_graph
from visavis.deploy.gallery.index import Vector, fuse

MAX_TEMPLATES = 8  # of a subject: searches look at so many times more rows


def template_numbers(vectors: Vector, threshold: float) -> npt.NDArray[np.int64]:
    """Which template each sample (n, D) of a subject is part of, by average linkage cut at the calibrated threshold.

    The largest group is 0, which stands for the mean of all samples (see `TemplateIndex`); every other group, also a
    single sample, has a template of its own besides, up to `MAX_TEMPLATES`. Where no mean similarity of two groups lies
    below the threshold all are 0, and the subject has one template.
    """
    if not -1 < threshold < 1:
        return np.zeros(len(vectors), np.int64)
    labels = average_linkage(vectors, neighbor_graph(vectors, threshold), threshold)
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    numbers = rank[labels]
    return np.where(numbers < MAX_TEMPLATES, numbers, 0)


def similarity_to_rest(vectors: Vector, weights: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The similarity of each sample (n, D) to the template of all others (leave one out), (n,); 1 for a single one."""
    if len(vectors) < 2:
        return np.ones(len(vectors), np.float32)
    rest = np.ones(len(vectors), bool)
    similarity = np.empty(len(vectors), np.float32)
    for i in range(len(vectors)):
        rest[i] = False
        similarity[i] = vectors[i] @ fuse(vectors[rest], np.asarray(weights)[rest])
        rest[i] = True
    return similarity
