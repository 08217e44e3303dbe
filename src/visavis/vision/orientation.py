"""EXIF orientation: read without reading anything else, and applied."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from visavis.types import ByteArray

if TYPE_CHECKING:
    from jaxtyping import UInt8

_TAG, _SHORT = 0x0112, 3
_MAX_ENTRIES = 1000


def exif_orientation(exif: bytes) -> int:
    """The orientation 1 to 8 of an EXIF block (EXIF 2.3, table 6), 1 when it says none.

    A general reader loads every tag, and a block of 64 KB can name 5,000 tags of 64 KB each.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 1
    start = struct.unpack_from(order + "I", exif, 4)[0]
    if start + 2 > len(exif):
        return 1
    count = struct.unpack_from(order + "H", exif, start)[0]
    for at in range(start + 2, min(start + 2 + 12 * min(count, _MAX_ENTRIES), len(exif) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == _TAG and kind == _SHORT:
            value = struct.unpack_from(order + "H", exif, at + 8)[0]
            return value if 1 <= value <= 8 else 1
    return 1


def upright(image: UInt8[ByteArray, "H W *C"], orientation: int) -> UInt8[ByteArray, "h w *C"]:
    """Turn and mirror a stored picture (H, W, 3) as its orientation says."""
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)  # 5 is this alone
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
