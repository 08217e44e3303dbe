"""Exact top-k search by inner product, in chunks: product, then selection, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError

CHUNK = 16_384
Rows = Callable[[int, int], npt.NDArray[np.float32]]


def top_k(
    probes: npt.NDArray[np.float32], rows: Rows, n: int, k: int, *, chunk: int = CHUNK
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k rows most similar to each probe, best first, equal similarities by row.

        similarity = probes · rowsᵀ

    Args:
        probes: float32 (P, D).
        rows: gives float32 rows [start, stop) of the gallery, (stop − start, D).
        n: how many rows there are.
        k: how many to return; fewer when n is smaller.
        chunk: rows per product; the product of one chunk is all the memory used besides the result.

    Returns:
        similarities float32 (P, min(k, n)) and rows int64 of the same shape.

    Raises:
        DataError: k below 1 or probes that are no matrix.
    """
    if k < 1 or probes.ndim != 2:
        raise DataError(f"a search wants k of at least 1 and probes (P, D), got k = {k} and shape {probes.shape}")
    k = min(k, n)
    count = len(probes)
    best = np.full((count, k), -np.inf, np.float32)
    where = np.full((count, k), -1, np.int64)
    if k == 0 or count == 0:
        return best, where
    if count == 1:  # bound by memory: one product over everything keeps all cores streaming
        chunk = max(chunk, min(n, 4_194_304))
    across = np.ascontiguousarray(probes.T)
    product = np.empty((min(chunk, n), count), np.float32)
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        scores = np.dot(rows(start, stop), across, out=product[: stop - start])
        _merge(scores, start, best, where)
    return best, where


def _merge(
    scores: npt.NDArray[np.float32], start: int, best: npt.NDArray[np.float32], where: npt.NDArray[np.int64]
) -> None:
    """Fold one chunk's similarities (rows, P) into the best so far; after the first chunk few beat the k-th best."""
    k = best.shape[1]
    if len(scores) > 8 * k and not np.isfinite(best[0, -1]):  # the first chunk: cut before sorting
        cut = np.partition(scores, len(scores) - k, axis=0)[len(scores) - k]
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
