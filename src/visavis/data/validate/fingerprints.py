"""What is remembered of each picture for validation: a digest of its bytes, its size, and a perceptual feature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.processes import process_pool
from visavis.types import ByteArray

FEATURE = 128
_SIDE = 32
_CHUNK = 64


@dataclass(frozen=True)
class Fingerprints:
    """Of N pictures: `digest` (N, 16) bytes, `size` (N, 2), `feature` (N, 128); `faults` by index.

    Sizes are height, width. The feature is the 128 lowest frequencies but the mean of the gray 32 × 32 picture's cosine
    transform, in half precision, since millions of them are kept. A picture that cannot be decoded has size 0 and a
    feature of zeros.
    """

    digest: npt.NDArray[np.uint8]
    size: npt.NDArray[np.int32]
    feature: npt.NDArray[np.float16]
    faults: dict[int, str]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Which pictures could be decoded (N,)."""
        return self.size[:, 0] > 0


def _zigzag() -> npt.NDArray[np.int64]:
    """Positions of the lowest frequencies in a 32 × 32 transform, without the mean."""
    u, v = np.mgrid[0:_SIDE, 0:_SIDE]
    order = np.lexsort((u.ravel(), (u * u + v * v).ravel()))
    return order[1 : FEATURE + 1]


_ORDER = _zigzag()


def feature_of(image: ByteArray) -> npt.NDArray[np.float32]:
    """The perceptual feature (128,) of a uint8 (H, W, 3) RGB picture."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = np.asarray(cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(cv2.dct(small), np.float32).ravel()[_ORDER]


Row = tuple[bytes, tuple[int, int], npt.NDArray[np.float32], str]


def _one(source: Source, index: int) -> Row:
    empty = np.zeros(FEATURE, np.float32)
    try:
        data = source.read(index)
    except DataError as error:
        return b"\0" * 16, (0, 0), empty, str(error)
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        image = source.image(index)
    except DataError as error:
        return digest, (0, 0), empty, str(error)
    return digest, image.shape[:2], feature_of(image), ""


def _reading(source: Source) -> Callable[[int], Row]:
    return partial(_one, source)


def fingerprint(source: Source, *, workers: int = 1) -> Iterator[tuple[int, Row]]:
    """Yield (index, row) for every picture in order; `collect` puts the rows together.

    Raises:
        DataError: a worker process died.
    """
    with process_pool(_reading, source, workers=workers) as pool:
        yield from enumerate(pool.map(range(len(source)), chunk=_CHUNK))


class Collector:
    """Puts the rows of `fingerprint` together."""

    def __init__(self, count: int) -> None:
        self.digest = np.zeros((count, 16), np.uint8)
        self.size = np.zeros((count, 2), np.int32)
        self.feature = np.zeros((count, FEATURE), np.float16)
        self.faults: dict[int, str] = {}

    def add(self, index: int, row: Row) -> None:
        """Take one picture's row."""
        digest, size, feature, fault = row
        self.digest[index] = np.frombuffer(digest, np.uint8)
        self.size[index], self.feature[index] = size, feature
        if fault:
            self.faults[index] = fault

    def result(self) -> Fingerprints:
        """All rows."""
        return Fingerprints(self.digest, self.size, self.feature, self.faults)
