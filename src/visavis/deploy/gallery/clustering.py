"""Grouping faces by person: a neighbor graph cut at a similarity, average linkage along its edges, no N² in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.topk import Found, top_k
from visavis.errors import DataError

NEIGHBORS = 64
_BLOCK = 512
_FEW = 8192  # rows up to which a block's similarities are selected from at once
_ROUNDING = 1e-6  # float32 products of unit vectors differ by so much between one order of summing and another
Vectors = npt.NDArray[np.float32]
Search = Callable[[Vectors, int], Found]


@dataclass(frozen=True)
class Group:
    """Faces taken for one person: their rows in order, and the lowest similarity of any two of them."""

    members: tuple[int, ...]
    lowest: float


@dataclass(frozen=True)
class Edges:
    """Pairs of rows at or above the threshold, each once with first < second, and their similarities."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


def cluster(
    vectors: Vectors, threshold: float, *, neighbors: int = NEIGHBORS, min_size: int = 2, search: Search | None = None
) -> list[Group]:
    """Groups of at least `min_size` rows, the largest first.

    Two groups are joined while the mean similarity over all their pairs is at least `threshold`, the most similar two
    first (average linkage, UPGMA: Sokal and Michener 1958). Only groups that some edge of the neighbor graph joins are
    compared. Nothing is lost by that where no row has more than `neighbors` others above the threshold: a mean that
    reaches it has a pair that does.

    Args:
        vectors: unit rows (N, D).
        threshold: the model's calibrated similarity.
        neighbors: edges kept of each row.
        min_size: of the groups returned.
        search: gives the k most similar rows to each probe, as `top_k` does; exact by blocks when None.

    Raises:
        DataError: `min_size` below 2, no matrix, or a threshold outside (−1, 1).
    """
    if min_size < 2:
        raise DataError(f"a group has at least 2 faces, got min_size = {min_size}")
    labels = average_linkage(vectors, neighbor_graph(vectors, threshold, neighbors=neighbors, search=search), threshold)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
    groups = [Group(tuple(p.tolist()), lowest_similarity(vectors[p])) for p in parts if len(p) >= min_size]
    return sorted(groups, key=lambda group: (-len(group.members), group.members))


def neighbor_graph(
    vectors: Vectors, threshold: float, *, neighbors: int = NEIGHBORS, search: Search | None = None
) -> Edges:
    """The `neighbors` most similar others of every row, as far as they reach `threshold`; block by block."""
    if vectors.ndim != 2 or not -1 < threshold < 1 or neighbors < 1:
        raise DataError(
            f"grouping wants rows (N, D), a threshold in (-1, 1) and at least 1 neighbor, got shape {vectors.shape}, "
            f"{threshold} and {neighbors}"
        )
    vectors = np.ascontiguousarray(vectors, np.float32)
    find = search or (lambda probes, k: _most_similar(vectors, probes, k))
    parts = [np.empty((3, 0))]
    for start in range(0, len(vectors), _BLOCK):
        similarity, row = find(vectors[start : start + _BLOCK], neighbors + 1)
        own = start + np.arange(len(row))[:, None]
        i, j = np.nonzero((similarity >= threshold - _ROUNDING) & (row >= 0) & (row != own))
        a, b = own[i, 0], row[i, j]
        parts.append(np.stack([np.minimum(a, b), np.maximum(a, b), similarity[i, j]]).astype(np.float64))
    first, second, similarity = np.concatenate(parts, axis=1)
    key = first * max(len(vectors), 1) + second
    _, once = np.unique(key, return_index=True)
    return Edges(first[once].astype(np.int64), second[once].astype(np.int64), similarity[once].astype(np.float32))


def _most_similar(vectors: Vectors, probes: Vectors, k: int) -> Found:
    """The k rows most similar to each probe, in any order."""
    n = len(vectors)
    if n > _FEW:
        return top_k(probes, lambda a, b: vectors[a:b], n, k)
    similarity = probes @ vectors.T
    row = np.argpartition(-similarity, min(k, n) - 1, axis=1)[:, :k]
    return np.take_along_axis(similarity, row, 1), row


def average_linkage(
    vectors: Vectors, edges: Edges, threshold: float, *, known: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """A label for each row: the number of its group, by first row; rows alone have one of their own.

    The mean similarity of two groups of unit vectors is the product of their sums over the product of their sizes, so
    that no matrix of pairs is needed.

    Args:
        vectors: unit rows (N, D).
        edges: of the neighbor graph.
        threshold: mean similarity from which two groups are joined.
        known: a person's number for each row, −1 where it is not known: rows of one person are one group from the
            beginning, and rows of two are never joined.
    """
    groups = _Groups(vectors, edges, known)
    for group in groups.begin_with_known():
        groups.compare(group, threshold)
    for a, b in groups.most_similar_first():
        if groups.may_join(a, b):
            keep = groups.join(a, b)
            groups.compare(keep, threshold)
    _, first, label = np.unique(groups.of, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[label]


@final
class _Groups:
    """Groups of rows, each named by one of them, with the pairs that may be joined."""

    def __init__(self, vectors: Vectors, edges: Edges, known: npt.NDArray[np.int64] | None = None) -> None:
        n = len(vectors)
        self._person = np.full(n, -1, np.int64) if known is None else known.copy()  # of each group, by its name
        self.of = np.arange(n)  # the group of every row
        self._sums, self._sizes = vectors.astype(np.float32, copy=True), np.ones(n, np.int64)
        self._members: dict[int, npt.NDArray[np.int64]] = {}  # of groups of several rows
        self._age = np.zeros(n, np.int64)
        self._near: dict[int, npt.NDArray[np.int64]] = {}
        ends = np.concatenate([edges.first, edges.second])
        order = np.argsort(ends, kind="stable")
        self._others = np.concatenate([edges.second, edges.first])[order].astype(np.int32)
        self._starts = np.searchsorted(ends[order], np.arange(n + 1))
        self._edges = edges
        self._grown: list[tuple[float, int, int, int, int]] = []  # pairs with a group of several rows

    def begin_with_known(self) -> list[int]:
        """Make one group of the rows of each known person; returns the groups of several."""
        order = np.argsort(self._person, kind="stable")
        order = order[self._person[order] >= 0]
        cuts = np.flatnonzero(np.diff(self._person[order])) + 1
        several = [rows for rows in np.split(order, cuts) if len(rows) > 1]
        for rows in several:
            keep = int(rows[0])
            self._near[keep] = np.concatenate([self._neighbors(row) for row in rows.tolist()])
            self._members[keep], self.of[rows] = rows, keep
            self._sums[keep], self._sizes[keep] = self._sums[rows].sum(0), len(rows)
            self._age[rows], self._age[keep] = -1, 1
        return [int(rows[0]) for rows in several]

    def may_join(self, a: int, b: int) -> bool:
        """Whether two groups are not known to be two people."""
        return self._person[a] < 0 or self._person[b] < 0 or self._person[a] == self._person[b]

    def most_similar_first(self) -> Iterator[tuple[int, int]]:
        """Pairs of groups, the most similar first; what `compare` finds meanwhile takes its place among them."""
        order = np.lexsort((self._edges.second, self._edges.first, -self._edges.similarity))
        for i in order.tolist():
            similarity = float(self._edges.similarity[i])
            yield from self._grown_down_to(similarity)
            a, b = int(self._edges.first[i]), int(self._edges.second[i])
            if self._age[a] == self._age[b] == 0:
                yield a, b
        yield from self._grown_down_to(-np.inf)

    def _grown_down_to(self, similarity: float) -> Iterator[tuple[int, int]]:
        while self._grown and -self._grown[0][0] > similarity:
            _, a, b, age_a, age_b = heapq.heappop(self._grown)
            if self._age[a] == age_a and self._age[b] == age_b:  # else one has grown or been absorbed since
                yield a, b

    def join(self, a: int, b: int) -> int:
        """Make one group of two; returns its name."""
        keep, gone = (a, b) if self._sizes[a] >= self._sizes[b] else (b, a)
        self._person[keep] = max(self._person[keep], self._person[gone])
        self._near[keep] = np.concatenate([self._neighbors(keep), self._neighbors(gone)])
        self._near.pop(gone, None)
        moved = self._members.pop(gone, np.array([gone]))
        self._members[keep] = np.concatenate([self._members.get(keep, np.array([keep])), moved])
        self.of[moved] = keep
        self._sums[keep] += self._sums[gone]
        self._sizes[keep] += self._sizes[gone]
        self._age[keep] += 1
        self._age[gone] = -1
        return keep

    def compare(self, group: int, threshold: float) -> None:
        """Note the neighbors whose mean similarity to a group reaches the threshold."""
        others = np.unique(self.of[self._near[group]])
        others = self._near[group] = others[others != group]
        mean = (self._sums[others] @ self._sums[group]) / (self._sizes[others] * self._sizes[group])
        for i in np.flatnonzero(mean >= threshold - _ROUNDING).tolist():
            x, y = sorted((group, int(others[i])))
            heapq.heappush(self._grown, (-float(mean[i]), x, y, int(self._age[x]), int(self._age[y])))

    def _neighbors(self, group: int) -> npt.NDArray[np.int64]:
        near = self._near.get(group)
        return self._others[self._starts[group] : self._starts[group + 1]].astype(np.int64) if near is None else near


def lowest_similarity(vectors: Vectors) -> float:
    """The lowest similarity of any two rows (n, D), block by block; 1 for a single row."""
    lowest = 1.0
    for start in range(0, len(vectors), _BLOCK):
        for other in range(start, len(vectors), _BLOCK):
            lowest = min(lowest, float((vectors[start : start + _BLOCK] @ vectors[other : other + _BLOCK].T).min()))
    return lowest
