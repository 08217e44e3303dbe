"""What a JPEG's markers say before it is decoded: size, kind, number of scans, orientation, and where it ends.

ITU-T T.81, annex B. Asking a library costs as much as decoding a face crop does, and tells nothing of the scans, each
of which costs a progressive decoder a pass over the whole picture however few bytes it has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from visavis.errors import DataError
from visavis.vision.orientation import exif_orientation

MAX_SEGMENTS = 4096
MAX_SCANNED = 1_000_000_000  # pixels, of all scans together; a decoder takes 0.4 ns or more for each
_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SOS, _EOI, _APP1, _APP14, _COM = 0xDA, 0xD9, 0xE1, 0xEE, 0xFE
# In entropy-coded data 0xFF is followed by 0 (stuffed) or a restart marker; anything else ends the scan.
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class JpegHeader:
    """Height, width, components and bits of a JPEG's frame; `whole` when its end marker is there.

    `plain` is the file without its application segments but Adobe's (which says how colors are stored) and comments.
    """

    height: int
    width: int
    components: int
    bits: int
    progressive: bool
    scans: int
    whole: bool
    orientation: int
    plain: bytes


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walk a JPEG's markers; None when they are damaged before the first scan.

    Raises:
        DataError: more than 4,096 segments, or scans that together pass over more than 10⁹ pixels.
    """
    at, scans, segments, orientation = 2, 0, 0, 1
    frame: tuple[int, ...] | None = None
    kept: list[tuple[int, int]] = []
    while True:
        begins = data.find(b"\xff", at)  # a decoder skips what stands between segments
        at = begins if begins >= 0 else len(data)
        if at + 4 > len(data):
            break
        marker, start = data[at + 1], at
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            segments += 1
        elif marker == _EOI:
            break
        else:
            segments += 1
            at += 2 + max(2, data[at + 2] << 8 | data[at + 3])
            if marker in _SOF and frame is None and start + 10 <= len(data):
                height, width = data[start + 5] << 8 | data[start + 6], data[start + 7] << 8 | data[start + 8]
                frame = (height, width, data[start + 9], data[start + 4], marker in _PROGRESSIVE)
            elif marker == _APP1 and data[start + 4 : start + 10] == b"Exif\0\0" and orientation == 1:
                orientation = exif_orientation(data[start + 10 : at])
            if marker == _COM or (0xE0 <= marker <= 0xEF and marker != _APP14):
                kept.append((start, at))
            if marker == _SOS:
                scans += 1
                found = _MARKER.search(data, at)
                at = found.end() - 2 if found else len(data)
        if segments > MAX_SEGMENTS:
            raise DataError(f"a JPEG of more than {MAX_SEGMENTS:,} segments; save it again")
        if frame is not None and scans > 1 and scans * frame[0] * frame[1] > MAX_SCANNED:
            raise DataError(f"a JPEG of {frame[1]}×{frame[0]} pixels in {scans} scans or more; save it not progressive")
    if frame is None or not scans:
        return None
    whole = data[at : at + 2] == b"\xff\xd9"
    return JpegHeader(*frame[:4], bool(frame[4]), scans, whole, orientation, _without(data, kept))


def _without(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """The file without some spans of it; itself when there are none."""
    if not spans:
        return data
    parts: list[bytes] = []
    at = 0
    for start, end in spans:
        parts.append(data[at:start])
        at = end
    return b"".join([*parts, data[at:]])
