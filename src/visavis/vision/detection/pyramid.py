"""Looking at a picture at many sizes, a tile at a time: what is searched is bounded in pixels, not by a side.

A network that sees a window of `CELL` pixels every `STRIDE` is run on the picture shrunk step by step, until the
largest face fits the window. Each size is cut into tiles that overlap by what the window needs, so that the answer is
that of the whole while memory is that of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from visavis.opencv import cv2
from visavis.types import ByteArray

if TYPE_CHECKING:
    from jaxtyping import UInt8

STRIDE, CELL = 2, 12
SEARCHED = 2_000_000  # pixels of the largest size a picture is looked at in, unless the caller names a smallest face
_TILE = 330  # fits a processor's cache with all of P-Net's channels
_HALVE = 1_000_000


@dataclass(frozen=True)
class Tile:
    """Pixels (H, W, 3) of a picture's shrunk copy from (left, top) on, and that copy's size (width, height)."""

    pixels: ByteArray
    left: int
    top: int
    size: tuple[int, int]


def smallest_face(shape: tuple[int, ...], min_face: int | None) -> float:
    """The side of the smallest face looked for in a picture of `shape` (H, W, ...).

        max(20, 12·√(H·W / 2·10⁶))   where the caller names none

    that is 20 pixels up to 5.5 megapixels, 29 in 12 and 59 in 48.
    """
    if min_face is not None:
        return float(min_face)
    return max(20.0, CELL * float(np.sqrt(shape[0] * shape[1] / SEARCHED)))


def levels(shape: tuple[int, ...], smallest: float, factor: float) -> list[tuple[int, int]]:
    """The sizes (width, height) a picture is looked at in, the largest first."""
    height, width = shape[:2]
    sizes: list[tuple[int, int]] = []
    scale = CELL / smallest
    while min(height, width) * scale >= CELL:
        sizes.append((int(np.ceil(width * scale)), int(np.ceil(height * scale))))
        scale *= factor
    return sizes


def tiles(image: UInt8[ByteArray, "H W 3"], sizes: list[tuple[int, int]]) -> Iterator[Tile]:
    """All tiles of all sizes; a size is resized from a copy at least twice as large, not from the whole each time."""
    source = image
    for size in sizes:
        while source.shape[0] * source.shape[1] > max(_HALVE, 16 * size[0] * size[1]):
            source = _resized(source, (source.shape[1] // 2, source.shape[0] // 2))
        whole = source if source.shape[1::-1] == size else _resized(source, size)
        for top in _starts(size[1]):
            for left in _starts(size[0]):
                yield Tile(whole[top : top + _TILE, left : left + _TILE], left, top, size)


def _starts(side: int) -> range:
    """Where tiles begin; neighbors overlap by what a window needs more than its stride."""
    return range(0, max(1, side - (CELL - STRIDE)), _TILE - (CELL - STRIDE))


def _resized(image: ByteArray, size: tuple[int, int]) -> ByteArray:
    how = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
