"""What other formats' containers may hold, checked before a decoder sees them, and what of them it needs to see.

Pillow walks chunks, blocks and tags in Python and loads what they name, wanted or not: 16 MB of empty PNG chunks take
seconds, and a TIFF directory may name one region of the file 65,535 times.
"""

from __future__ import annotations

import itertools
import re
import struct
from typing import cast

from visavis.errors import DataError

MAX_PARTS = 4096
_PART_BYTES = 1024  # more parts are fine where they are at least this long on the average
_MAX_TAG_BYTES = 8_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_TIFF_INSIDE = re.compile(b"|".join(map(re.escape, _TIFF)))
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)  # bytes of a TIFF type


def checked_container(data: bytes) -> tuple[bytes, bytes]:
    """The file as a decoder should see it, and its EXIF block (b"" when there is none or it is inside elsewhere).

    Raises:
        DataError: more parts than a picture has.
    """
    if data[:8] == _PNG:
        return _png(data)
    if data[:4] == b"RIFF":
        return data, _webp_exif(data)
    if data[:3] == b"GIF":
        _check_gif(data)
    elif data[:4] in _TIFF:
        _check_tiff(data, 0)
    elif data[4:8] == b"ftyp":
        for found in itertools.islice(_TIFF_INSIDE.finditer(data), MAX_PARTS):  # EXIF, wherever it is
            _check_tiff(data, found.start())
    return data, b""


def _refuse(what: str) -> DataError:
    return DataError(f"{what}, more than a picture has; save it again")


def _png(data: bytes) -> tuple[bytes, bytes]:
    """Without the chunks that do not change pixels: text, profiles, times and EXIF, whose bytes are given apart."""
    parts, exif, at, count = [_PNG], b"", 8, 0
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if kind in _NEEDED:
            parts.append(data[at:end])
        elif kind == b"eXIf":
            exif = exif or data[at + 8 : end - 4]
        at, count = end, count + 1
        if count > MAX_PARTS + len(data) // _PART_BYTES:
            raise _refuse(f"a PNG of more than {count - 1:,} chunks")
        if kind == b"IEND":
            break
    return b"".join(parts), exif


def _check_gif(data: bytes) -> None:
    """Count the blocks before the first frame."""
    if len(data) < 13:
        return
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    count = 0
    while at + 2 < len(data) and data[at] == 0x21:
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
            count += 1
            if count > MAX_PARTS:
                raise _refuse(f"a GIF of more than {MAX_PARTS:,} blocks before its first frame")
        at, count = at + 1, count + 1


def _webp_exif(data: bytes) -> bytes:
    at, count = 12, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at, count = at + 8 + length + length % 2, count + 1
        if count > MAX_PARTS + len(data) // _PART_BYTES:
            raise _refuse(f"a WebP of more than {count - 1:,} chunks")
    return b""


def _check_tiff(data: bytes, base: int) -> None:
    """Add up what the first directory of a TIFF header at `base` names."""
    if data[base + 2 : base + 4] in (b"+\0", b"\0+"):
        raise DataError("a BigTIFF, which is not read; save it as TIFF or PNG")
    order = "<" if data[base : base + 2] == b"II" else ">"
    start = base + (struct.unpack_from(order + "I", data, base + 4)[0] if len(data) >= base + 8 else len(data))
    if start + 2 > len(data):
        return
    count = struct.unpack_from(order + "H", data, start)[0]
    if count > MAX_PARTS:
        raise _refuse(f"a TIFF of {count:,} tags")
    total = 0
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = cast("tuple[int, int, int]", struct.unpack_from(order + "HHI", data, at))
        total += number * (_SIZES[kind] if kind < len(_SIZES) else 0)
        if tag in (273, 324) and number > 65_536:
            raise _refuse(f"a TIFF of {number:,} strips or tiles")
        if total > max(_MAX_TAG_BYTES, len(data)):
            raise _refuse(f"a TIFF whose tags name {total:,} bytes of {len(data):,}")
