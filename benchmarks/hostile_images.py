"""Pictures made to cost: a few bytes that ask for much time or memory. Generators, so that no such file lies around.

`bombs()` gives name -> bytes. Each is either decoded within the limits or refused; see benchmarks/upload_bombs.py.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, color: int = 2, bits: int = 8, more: bytes = b"", rows: int | None = None) -> bytes:
    """A black PNG; `more` chunks stand before its pixels."""
    row = bytes(1 + (width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] * bits + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256)) if color == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + header + palette + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(tags: list[tuple[int, int, int, int]], body: bytes = b"") -> bytes:
    """A little-endian TIFF of (tag, type, count, value); the body stands at byte 8."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def exif_of_many_tags(size: int, tags: int) -> bytes:
    """An EXIF block every tag of which names the whole block."""
    return tiff([(1000 + i, 7, size, 0) for i in range(tags)], bytes(max(0, size - 12 * tags - 20)))


@functools.cache
def noise(height: int, width: int) -> Image.Image:
    """A picture no encoder shrinks."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def black(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """A picture every encoder shrinks to nothing."""
    return Image.new(mode, (width, height))


def progressive(image: Image.Image, quality: int) -> bytes:
    """A progressive JPEG by OpenCV, which has no limit on its size."""
    from visavis.opencv import cv2

    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", np.asarray(image), options)[1].tobytes()


def repeated_scans(times: int, height: int = 6300, width: int = 6300) -> bytes:
    """A progressive JPEG whose last scan comes `times` times more."""
    data = saved(black(height, width), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * times + b"\xff\xd9"


def arithmetic_jpeg(height: int, width: int) -> bytes:
    """A JPEG with arithmetic coding and no data: the decoder goes on with zeros."""
    tables = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    parts = bytes([1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0])
    frame = b"\xff\xc9" + struct.pack(">HBHHB", 17, 8, height, width, 3) + parts
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0])
    return b"\xff\xd8" + tables + frame + scan + bytes(64) + b"\xff\xd9"


def baseline_without_data(height: int, width: int) -> bytes:
    """The header of a JPEG and the end of one."""
    data = saved(noise(64, 64), "JPEG")
    at = data.find(b"\xff\xc0")
    start = data.find(b"\xff\xda")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 : start + 2 + length] + b"\xff\xd9"


def faces(height: int, width: int, side: int) -> Image.Image:
    """A wall of faces, each `side` pixels high."""
    from visavis.synthetic import face

    one = Image.fromarray(face(0, 1, 1, size=112)[0]).resize((side, side), Image.Resampling.LANCZOS)
    wall = np.tile(np.asarray(one), (-(-height // side), -(-width // side), 1))[:height, :width]
    return Image.fromarray(np.ascontiguousarray(wall))


def gif_of_blocks(count: int) -> bytes:
    """A GIF with one comment of so many blocks of one byte."""
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b"\x21\xfe" + b"\x01x" * count + b"\0\x3b"


def webp_animation() -> bytes:
    """An animation of 36 megapixels."""
    return saved(black(6000, 6000), "WEBP", save_all=True, append_images=[Image.new("RGB", (6000, 6000), "red")])


BOMBS: dict[str, Callable[[], bytes]] = {
    # what was found first
    "png 100000x100000": lambda: png(100_000, 100_000, rows=1),
    "png 6300x6300": lambda: png(6300, 6300),
    "png 6300x6300 16-bit RGBA": lambda: png(6300, 6300, color=6, bits=16),
    "png zTXt of 100 MB": lambda: png(56, 56, more=chunk(b"zTXt", b"k\0\0" + zlib.compress(b"A" * 100_000_000, 9))),
    "png iCCP of 100 MB": lambda: png(56, 56, more=chunk(b"iCCP", b"k\0\0" + zlib.compress(b"A" * 100_000_000, 9))),
    "gif 50 frames of 9 MP": lambda: saved(black(3000, 3000, "L"), "GIF", save_all=True,
                                           append_images=[Image.new("L", (3000, 3000), i) for i in range(50)]),
    "tiff deflate 36 MP": lambda: saved(black(6000, 6000), "TIFF", compression="tiff_deflate"),
    "webp 38 MP": lambda: saved(black(2400, 16_000), "WEBP"),
    "jpeg progressive 40 MP": lambda: saved(black(6300, 6300), "JPEG", progressive=True),
    "jpeg 40 MP, last scan 500 times": lambda: repeated_scans(500),
    "jpeg 40000x1000": lambda: saved(noise(500, 1000).resize((40_000, 1000)), "JPEG", quality=30),
    "ppm of 39 MP without pixels": lambda: b"P6 39000000 1 255\n" + bytes(1000),
    # twenty new ones
    "jpeg of 4 million empty segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 4_000_000,
    "jpeg arithmetic 40 MP without data": lambda: arithmetic_jpeg(6300, 6300),
    "jpeg baseline 40 MP without data": lambda: baseline_without_data(6300, 6300),
    "jpeg progressive of noise": lambda: progressive(noise(4000, 6000), 40),
    "jpeg 65500x600": lambda: saved(black(600, 65_500), "JPEG"),
    "jpeg with EXIF of 5,000 tags of 60 KB": lambda: exif_jpeg(),
    "jpeg of 300 scans, 1 MP": lambda: repeated_scans(4000, 1000, 1000),
    "png of 1.3 million empty IDAT": lambda: png(56, 56, more=chunk(b"IDAT", b"") * 1_300_000),
    "png of 1.3 million unknown chunks": lambda: png(56, 56, more=chunk(b"abCd", b"") * 1_300_000),
    "png with EXIF of 60,000 tags of 8 MB": lambda: png(
        56, 56, more=chunk(b"eXIf", exif_of_many_tags(8_000_000, 60_000))),
    "png palette with alpha 40 MP": lambda: png(6300, 6300, color=3),
    "png 40000x1000": lambda: png(40_000, 1000),
    "tiff of 4,000 tags of 15 MB": lambda: tiff(
        [(256, 4, 1, 8), (257, 4, 1, 8), *[(40_000 + i, 7, 15_000_000, 8) for i in range(4000)]], bytes(15_000_000)),
    "tiff of 3 million strips": lambda: tiff(
        [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 3_000_000, 8),
         (278, 4, 1, 1), (279, 4, 3_000_000, 8)], bytes(12_000_000)),
    "gif of 7 million blocks": lambda: gif_of_blocks(7_000_000),
    "gif 40 MP": lambda: saved(black(6300, 6300, "L"), "GIF"),
    "bmp with run lengths of nothing": lambda: rle_bmp(),
    "ppm with a maximum of 254": lambda: b"P6 2300 2300 254\n" + bytes(3 * 2300 * 2300),
    "ppm in digits": lambda: b"P3 1600 1600 255\n" + b"0 " * (3 * 1600 * 1600),
    "webp animation of 36 MP": webp_animation,
    "webp of noise, lossless": lambda: saved(noise(1800, 2500), "WEBP", lossless=True, quality=0, method=0),
    "avif 36 MP": lambda: saved(black(6000, 6000), "AVIF", speed=10),
    "avif of noise, 8 MP": lambda: saved(noise(2000, 4000), "AVIF", speed=10, quality=70),
    "jpeg wall of faces of 24 pixels, 12 MP": lambda: saved(faces(3000, 4000, 24), "JPEG", quality=85),
    "jpeg wall of faces of 60 pixels, 40 MP": lambda: saved(faces(6300, 6300, 60), "JPEG", quality=60),
    "jpeg of noise, 12 MP": lambda: saved(noise(3000, 4000), "JPEG", quality=80),
}  # fmt: skip


def exif_jpeg() -> bytes:
    """A small JPEG whose EXIF names itself 5,000 times."""
    data = saved(noise(64, 64), "JPEG")
    exif = b"Exif\0\0" + exif_of_many_tags(65_000, 5000)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def rle_bmp() -> bytes:
    """A BMP whose run lengths end lines that were never begun."""
    body = b"\0\0" * 8_000_000
    info = struct.pack("<IiiHHIIiiII", 40, 1000, 1000, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + len(info) + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + bytes(1024) + body


def bombs() -> dict[str, bytes]:
    """All of them."""
    return {name: make() for name, make in BOMBS.items()}
