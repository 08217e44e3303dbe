"""Files of every format with bytes changed, cut, doubled and moved: decoded, or refused in one line."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from visavis.errors import DataError
from visavis.vision import images

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
INTERESTING = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xd9\xff\xda", b"\xff\xe1\0")


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seeds():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "hello"
    yield saved(NOISE, "JPEG", exif=exif)
    yield saved(NOISE, "JPEG", progressive=True)
    yield saved(NOISE.convert("CMYK"), "JPEG")
    yield saved(NOISE, "PNG", exif=exif)
    yield saved(NOISE.quantize(16), "PNG", transparency=1)
    yield saved(NOISE, "GIF")
    yield saved(NOISE, "TIFF", compression="tiff_deflate")
    yield saved(NOISE, "BMP")
    yield saved(NOISE, "WEBP", exif=exif)
    yield saved(NOISE.convert("RGBA"), "WEBP", lossless=True)
    yield saved(NOISE, "PPM")
    yield saved(NOISE, "AVIF", speed=10)
    try:
        import pillow_heif
    except ImportError:
        return
    buffer = io.BytesIO()
    pillow_heif.from_pillow(NOISE).save(buffer, quality=50)
    yield buffer.getvalue()


def changed(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) if rng.random() < 0.5 else min(64, len(out)))
        match rng.randrange(5):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                out[at : at + 4] = rng.choice(INTERESTING)
            case 2:
                del out[at : at + rng.randrange(1, 200)]
            case 3:
                start = rng.randrange(len(out))
                out[at:at] = out[start : start + rng.randrange(1, 300)]
            case 4:
                del out[at + 1 :]
        out = out or bytearray(b"x")
    return bytes(out)


def refusal(read, data) -> str:
    """What a reader says of a file; "x: " when it takes it."""
    try:
        read(data, name="x")
    except DataError as error:
        return str(error)
    return "x: "


@pytest.mark.parametrize("seed", range(4))
def test_changed_files_are_decoded_or_refused_in_one_line(seed):
    rng, whole = random.Random(seed), list(seeds())
    for _ in range(700):
        data = changed(rng.choice(whole), rng)
        for read in (images.decode, images.count_pixels):
            said = refusal(read, data)
            assert said.startswith("x: "), data[:40]
            assert "\n" not in said, data[:40]


@pytest.mark.parametrize(
    "data",
    [b"\xff\xd8\xff\xe0\0\0\0\xff\xe1\0", b"\xff\xd8\xff", b"\xff\xd8\xff\xff",
     b"\xff\xd8" + b"\xff" * 9, b"\xff\xd8\xff\xc0\0\x11"],
)  # fmt: skip
def test_jpegs_that_end_within_a_marker(data):
    with pytest.raises(DataError, match=r"^x: "):
        images.decode(data, name="x")
