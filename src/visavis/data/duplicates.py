"""Equal and nearly equal pictures among any number of them: digests, perceptual hashes, and a look at the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from visavis.types import ByteArray

Hashes = npt.NDArray[np.uint64]
BITS = 128
RADIUS = 30  # of 128 bits; unrelated pictures differ in 64 ± 6
SAME = 0.85  # correlation of the pixels from which two pictures count as one
_EXACT_LIMIT = 20_000
_BLOCK = 2_000_000
_NEIGHBOURS = 2_000  # of one bucket; thousands of blank pictures must not cost their square


@dataclass(frozen=True)
class Match:
    """Two pictures that are one: indices, and the correlation of their pixels (1.0 when their bytes are equal)."""

    first: int
    second: int
    correlation: float
    distance: int = 0


def equal_bytes(digests: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """The groups of at least two pictures with equal digests (N, 16), each as sorted indices."""
    index = np.flatnonzero(valid)
    _, group, sizes = np.unique(digests[index], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.ravel(), kind="stable")
    parts = np.split(index[order], np.cumsum(sizes)[:-1])
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


def perceptual_hashes(features: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> Hashes:
    """128-bit hashes (N, 2): which of a picture's frequencies lie above their median over the whole set.

    A hash against fixed thresholds is nearly constant over aligned faces, since they all look like the mean face;
    against the set's medians every bit halves the set, and near-duplicates differ in few bits.
    """
    centred = features - features[valid].mean(0) if valid.any() else features
    scaled = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    median = np.median(scaled[valid], axis=0) if valid.any() else np.zeros(features.shape[1], np.float32)
    return np.ascontiguousarray(np.packbits(scaled > median, axis=1)).view(np.uint64)


def close_hashes(hashes: Hashes, valid: npt.NDArray[np.bool_], *, radius: int = RADIUS) -> npt.NDArray[np.int64]:
    """Pairs (K, 3) of indices i < j and the bits in which their hashes differ, at most `radius`.

    Up to 20,000 pictures all pairs are compared. Beyond, the 128 bits are cut into bands, and only pictures that agree
    in a whole band are compared (multi-index hashing, Norouzi et al., arXiv 1307.2982v3): with B bands every pair of
    distance below B is found, and most of those up to `radius`. Bands are as narrow as the number of pictures lets the
    buckets stay small.
    """
    index = np.flatnonzero(valid)
    if len(index) <= _EXACT_LIMIT:
        return _all_pairs(hashes, index, radius)
    return banded_pairs(hashes, index, radius=radius, width=max(8, min(32, int(np.log2(len(index))) - 1)))


def _all_pairs(hashes: Hashes, index: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.int64]:
    chosen = hashes[index]
    found = []
    for i in range(len(chosen) - 1):
        distance = np.bitwise_count(chosen[i + 1 :] ^ chosen[i]).sum(1, dtype=np.int64)
        j = np.flatnonzero(distance <= radius)
        if len(j):
            found.append(np.column_stack([np.full(len(j), index[i]), index[i + 1 + j], distance[j]]))
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def banded_pairs(hashes: Hashes, index: npt.NDArray[np.int64], *, radius: int, width: int) -> npt.NDArray[np.int64]:
    """`close_hashes` by bands of `width` bits."""
    bits = np.unpackbits(hashes[index].view(np.uint8), axis=1)
    weights = (1 << np.arange(width, dtype=np.int64))[::-1]
    found = [np.zeros((0, 3), np.int64)]
    # Neighbouring frequencies go together in pictures; strided bands spread them, which keeps the buckets even.
    bands = BITS // width
    for band in range(bands):
        columns = np.arange(band, BITS, bands)[:width]
        key = bits[:, columns].astype(np.int64) @ weights
        for i, j in _bucket_pairs(key):
            distance = np.bitwise_count(hashes[index[i]] ^ hashes[index[j]]).sum(1, dtype=np.int64)
            near = distance <= radius
            found.append(np.column_stack([index[i[near]], index[j[near]], distance[near]]))
    return np.unique(np.concatenate(found), axis=0)


def _bucket_pairs(key: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs i < j of equal keys, in blocks of bounded size: the s-th neighbours in sorted order, s = 1, 2, ..."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    step = 1
    alive = np.arange(len(ordered) - 1)
    while len(alive) and step <= _NEIGHBOURS:
        alive = alive[alive + step < len(ordered)]
        alive = alive[ordered[alive] == ordered[alive + step]]
        for start in range(0, len(alive), _BLOCK):
            part = alive[start : start + _BLOCK]
            pair = np.sort(np.stack([order[part], order[part + step]]), axis=0)
            yield pair[0], pair[1]
        step += 1


def detail_of(picture: ByteArray) -> npt.NDArray[np.float32]:
    """The fine detail of a picture, (64, 64) float32: grey minus its blur, where no two photographs agree by chance."""
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    plain = np.asarray(grey, np.float32)
    return plain - np.asarray(cv2.GaussianBlur(plain, (0, 0), 4), np.float32)


def correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """The best correlation of two details over shifts of 12 % and scales of ±7 %, since crops of one photo differ."""
    best = 0.0
    for scale in (1.0, 0.93, 1.07):
        inside = b[8:-8, 8:-8]
        if scale != 1.0:
            side = round(len(inside) * scale)
            inside = np.asarray(cv2.resize(inside, (side, side)), np.float32)
        if float(inside.std()) < 1e-3 or float(a.std()) < 1e-3:
            return 0.0
        best = max(best, float(np.max(cv2.matchTemplate(a, inside, cv2.TM_CCOEFF_NORMED))))
    return best


def confirm(
    candidates: npt.NDArray[np.int64], picture: Callable[[int], ByteArray], *, threshold: float = SAME
) -> Iterator[Match | None]:
    """Compare the pixels of candidate pairs (K, 3); yields a `Match` or None for each, in the order of first index."""
    details: dict[int, npt.NDArray[np.float32]] = {}

    def detail(i: int) -> npt.NDArray[np.float32]:
        if i not in details:
            if len(details) > 4096:
                details.clear()
            details[i] = detail_of(picture(i))
        return details[i]

    for i, j, distance in candidates.tolist():
        value = correlation(detail(i), detail(j))
        yield Match(i, j, round(value, 4), distance) if value >= threshold else None
