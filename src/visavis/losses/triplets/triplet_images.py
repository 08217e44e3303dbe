"""Mined triplets as pictures: anchor, positive and negative side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from visavis.errors import DataError
from visavis.types import ByteArray, FloatArray, Triplets

if TYPE_CHECKING:
    from jaxtyping import UInt8


def strips(
    images: UInt8[ByteArray, "N H W 3"], triplets: Triplets, *, limit: int = 8, distances: FloatArray | None = None
) -> ByteArray:
    """Up to `limit` strips A|P|N, (T, H, 3 W, 3); the hardest first (smallest d(a, n) − d(a, p)) if `distances` come.

    Args:
        images: uint8 (N, H, W, 3) RGB that the triplets index.
        triplets: what was mined.
        limit: most strips, at least 0.
        distances: (N, N), to order by; else in the miner's order.

    Raises:
        DataError: pictures of another shape, or a triplet that points past them.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(f"strips want pictures uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
    columns = (triplets.anchor, triplets.positive, triplets.negative)
    highest = max((int(c.max()) for c in columns if len(c)), default=-1)
    if highest >= len(images):
        raise DataError(f"a triplet points at picture {highest} of {len(images)}")
    order = np.arange(len(triplets))
    if distances is not None:
        gap = distances[triplets.anchor, triplets.negative] - distances[triplets.anchor, triplets.positive]
        order = np.argsort(gap, kind="stable")
    chosen = order[: max(0, limit)]
    return np.concatenate([images[c[chosen]] for c in columns], axis=2)


def sheet(rows: UInt8[ByteArray, "N H W 3"], *, columns: int = 2, gap: int = 4) -> ByteArray:
    """Strips (T, H, W, 3) as one white-ruled picture, `columns` side by side; T = 0 gives one white pixel."""
    count, height, width = rows.shape[:3]
    if count == 0:
        return np.full((1, 1, 3), 255, np.uint8)
    columns = min(columns, count)
    lines = -(-count // columns)
    page = np.full((lines * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i in range(count):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        page[top : top + height, left : left + width] = rows[i]
    return page
