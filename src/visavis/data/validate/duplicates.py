"""Equal and nearly equal pictures among any number of them, by digests and perceptual hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int64]
BITS = 128
_EXACT_LIMIT = 20_000
_BLOCK = 1 << 19
_SAMPLE = 200_000  # pictures from which the medians are taken
_NEIGHBORS = 64  # of one picture in one bucket: thousands of blank pictures must not cost their square
_DEGREE = 64  # look-alikes kept of one picture
_SURE = 22  # bits within which at least _RECALL of the pairs are found; a crop moved by four pixels differs in so many
_RECALL = 0.95


def equal_bytes(digests: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """The groups of at least two pictures with equal digests (N, 16), each as sorted indices."""
    index = np.flatnonzero(valid)
    _, group, sizes = np.unique(digests[index], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.ravel(), kind="stable")
    parts = np.split(index[order], np.cumsum(sizes)[:-1])
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


@dataclass(frozen=True)
class HashReference:
    """What the features of pictures are held against: their mean (128,) and the median of their directions (128,).

    A hash against fixed thresholds is nearly constant over aligned faces, since they all look like the mean face;
    against the set's medians every bit halves the set, and near-duplicates differ in few bits.
    """

    mean: npt.NDArray[np.float32]
    median: npt.NDArray[np.float32]

    @classmethod
    def of(cls, features: npt.NDArray[np.floating]) -> HashReference:
        """That of a set (N, 128); of more than 200,000 pictures that of 200,000, evenly spread."""
        spread = np.linspace(0, len(features) - 1, min(len(features), _SAMPLE)).astype(np.int64)
        sample = features[spread].astype(np.float32)
        mean = sample.mean(0)
        return cls(mean, np.median(_directions(sample, mean), axis=0))

    def hashes(self, features: npt.NDArray[np.floating]) -> Hashes:
        """128-bit hashes (N, 2): which of a picture's frequencies lie above the median."""
        hashes = np.empty((len(features), 2), np.uint64)
        for start in range(0, len(features), _BLOCK):
            block = slice(start, start + _BLOCK)
            above = _directions(features[block].astype(np.float32), self.mean) > self.median
            hashes[block] = np.ascontiguousarray(np.packbits(above, axis=1)).view(np.uint64)
        return hashes


def perceptual_hashes(features: npt.NDArray[np.floating], valid: npt.NDArray[np.bool_]) -> Hashes:
    """128-bit hashes (N, 2) of a set's pictures against its own reference, which the `valid` ones make."""
    if not valid.any():
        return np.zeros((len(features), 2), np.uint64)
    return HashReference.of(features[valid]).hashes(features)


def _directions(features: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centered = features - mean
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6)


def radius_for(count: int) -> int:
    """Within how many of 128 bits pictures are looked at again.

    Unrelated aligned faces differ in 64 ± 7 bits, with a tail: of `lfw-dev`'s 45 million pairs 7·10⁻⁷ differ in at most
    24 and 1.5·10⁻⁵ in at most 30. The radius shrinks with the set so that the chance ones stay fewer than the pictures.
    """
    return 30 if count <= _EXACT_LIMIT else 28 if count <= 100_000 else 26 if count <= 1_000_000 else 24


def close_hashes(
    hashes: Hashes,
    valid: npt.NDArray[np.bool_],
    *,
    radius: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.int64]:
    """Pairs (K, 3) of indices i < j and the bits in which their hashes differ, at most `radius` (see `radius_for`).

    Up to 20,000 pictures all pairs are compared. Beyond, only pictures that agree in all of some 15 to 24 bits are, for
    many random choices of those bits (Indyk and Motwani, Approximate Nearest Neighbors, STOC 1998): of pairs that
    differ in d bits the share 1 − (1 − p)^T is found with T choices of w bits, p = C(128 − d, w) / C(128, w), at least
    95 % at d = 22 and all but 1 in 10⁶ at d = 8. Of a picture that has 64 no more are looked for.

    Args:
        hashes: (N, 2).
        valid: which pictures take part (N,).
        radius: bits.
        progress: called with (done, total).
    """
    index = np.flatnonzero(valid)
    radius = radius_for(len(index)) if radius is None else radius
    if len(index) <= _EXACT_LIMIT:
        return _all_pairs(hashes, index, radius)
    return bucket_search(hashes, index, radius=radius, width=int(np.log2(len(index))) + 1, progress=progress)


def _all_pairs(hashes: Hashes, index: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.int64]:
    chosen = hashes[index]
    found = []
    for i in range(len(chosen) - 1):
        distance = np.bitwise_count(chosen[i + 1 :] ^ chosen[i]).sum(1, dtype=np.int64)
        j = np.flatnonzero(distance <= radius)
        if len(j):
            found.append(np.column_stack([np.full(len(j), index[i]), index[i + 1 + j], distance[j]]))
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def choices_of(width: int) -> int:
    """How many random choices of `width` bits find `_RECALL` of the pairs that differ in `_SURE` bits."""
    agree = np.prod([(BITS - _SURE - i) / (BITS - i) for i in range(width)])
    return int(np.ceil(np.log(1 - _RECALL) / np.log1p(-agree)))


def bucket_search(
    hashes: Hashes,
    index: npt.NDArray[np.int64],
    *,
    radius: int,
    width: int,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.int64]:
    """`close_hashes` by buckets of pictures that agree in `width` bits; hashes (N, 2), index (M,) -> (K, 3)."""
    chosen = np.ascontiguousarray(hashes[index])
    count, rng = len(chosen), np.random.default_rng(0)
    codes = np.zeros(0, np.int64)  # i · N + j of every pair found, sorted
    degree = np.zeros(count, np.int64)
    total = choices_of(width)
    for done in range(total):
        new = [np.zeros(0, np.int64)]
        for i, j in _bucket_pairs(_keys(chosen, rng.permutation(BITS)[:width])):
            wanted = (degree[i] < _DEGREE) | (degree[j] < _DEGREE)
            i, j = i[wanted], j[wanted]
            near = np.bitwise_count(chosen[i] ^ chosen[j]).sum(1, dtype=np.uint8) <= radius
            low, high = np.minimum(i[near], j[near]), np.maximum(i[near], j[near])
            new.append(low * count + high)
        fresh = np.sort(np.concatenate(new))  # none occurs twice in one choice
        fresh = fresh[~_among(fresh, codes)]
        if len(fresh):
            degree += np.bincount(fresh // count, minlength=count) + np.bincount(fresh % count, minlength=count)
            codes = np.insert(codes, np.searchsorted(codes, fresh), fresh)
        if progress is not None:
            progress(done + 1, total)
    i, j = codes // count, codes % count
    distance = np.bitwise_count(chosen[i] ^ chosen[j]).sum(1, dtype=np.int64)
    return np.column_stack([index[i], index[j], distance])


def _keys(hashes: Hashes, bits: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """The chosen bits of every hash, side by side in one number."""
    key = np.zeros(len(hashes), np.uint32)
    for place, bit in enumerate(bits.tolist()):
        word = hashes[:, bit // 64] >> np.uint64(bit % 64)
        key |= (word.astype(np.uint32) & np.uint32(1)) << np.uint32(place)
    return key


def _among(values: Codes, known: Codes) -> npt.NDArray[np.bool_]:
    """Which of `values` occur in the sorted `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def _bucket_pairs(key: npt.NDArray[np.uint32]) -> Iterator[tuple[Codes, Codes]]:
    """Pairs of equal keys, in blocks of bounded size: the s-th neighbors in sorted order, s = 1, 2, ..."""
    order = np.argsort(key)
    ordered = key[order]
    alive = np.arange(len(ordered) - 1)
    for step in range(1, _NEIGHBORS + 1):
        alive = alive[alive + step < len(ordered)]
        alive = alive[ordered[alive] == ordered[alive + step]]
        if not len(alive):
            return
        for start in range(0, len(alive), _BLOCK):
            part = alive[start : start + _BLOCK]
            yield order[part], order[part + step]
