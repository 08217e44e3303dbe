"""Exact top-k search by inner product, in chunks: product, then selection, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError

CHUNK = 16_384
FEW = 4  # up to so many probes, inner products row by row beat a matrix product: the rows are read at memory speed
_GROUP = 32
Rows = Callable[[int, int], npt.NDArray[np.float32]]
Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def top_k(probes: npt.NDArray[np.float32], rows: Rows, n: int, k: int, *, chunk: int = CHUNK, first: int = 0) -> Found:
    """The k rows most similar to each probe, best first, equal similarities by row.

        similarity = probes · rowsᵀ

    Args:
        probes: float32 (P, D).
        rows: gives float32 rows [start, stop) of the gallery, (stop − start, D).
        n: how many rows there are.
        k: how many to return; fewer when there are fewer rows.
        chunk: rows per product; the product of one chunk is all the memory used besides the result.
        first: the row to begin at.

    Returns:
        similarities float32 (P, min(k, n − first)) and rows int64 of the same shape.

    Raises:
        DataError: k below 1 or probes that are no matrix.
    """
    if k < 1 or probes.ndim != 2:
        raise DataError(f"a search wants k of at least 1 and probes (P, D), got k = {k} and shape {probes.shape}")
    k = min(k, n - first)
    count = len(probes)
    best = np.full((count, k), -np.inf, np.float32)
    where = np.full((count, k), -1, np.int64)
    if k == 0 or count == 0:
        return best, where
    if count <= FEW:  # the fewer steps the better for one probe; the next finds the rows still in the cache
        chunk = 4 * chunk if count == 1 else min(chunk, 2048)
    product = np.empty((min(chunk, n - first), count), np.float32, order="F" if count <= FEW else "C")
    across = np.ascontiguousarray(probes.T)
    for start in range(first, n, chunk):
        part = rows(start, min(start + chunk, n))
        scores = product[: len(part)]
        if count <= FEW:
            for p, probe in enumerate(probes):
                np.vecdot(part, probe, out=scores[:, p])
        else:
            np.dot(part, across, out=scores)
        _merge(scores, start, best, where)
    return best, where


def join(parts: Sequence[Found], k: int) -> Found:
    """The k best of several searches of the same probes."""
    similarity = np.concatenate([found[0] for found in parts], axis=1)
    row = np.concatenate([found[1] for found in parts], axis=1)
    similarity[row < 0] = -np.inf
    order = np.lexsort((row, -similarity), axis=1)[:, :k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(row, order, 1)


def _merge(
    scores: npt.NDArray[np.float32], start: int, best: npt.NDArray[np.float32], where: npt.NDArray[np.int64]
) -> None:
    """Fold one chunk's similarities (rows, P) into the best so far; after the first chunk few beat the k-th best."""
    k = best.shape[1]
    groups = len(scores) // _GROUP
    if groups > 2 * k and not np.isfinite(best[0, -1]):  # the first chunk: cut before sorting
        # The k-th best of the groups' maxima is no better than the k-th best of all.
        peaks = scores[: groups * _GROUP].reshape(groups, _GROUP, -1).max(1)
        cut = np.partition(peaks, groups - k, axis=0)[groups - k]
        hits = np.flatnonzero(scores >= cut)
    else:
        hits = np.flatnonzero(scores > best[:, -1])
    if not len(hits):
        return
    row, probe = np.divmod(hits, scores.shape[1])
    for p in np.unique(probe):
        mine = row[probe == p]
        values = np.concatenate([best[p], scores[mine, p]])
        rows = np.concatenate([where[p], mine + start])
        order = np.lexsort((rows, -values))[:k]
        best[p], where[p] = values[order], rows[order]
