"""One picture in every form people hold it in is one picture; what is not read is named by what it is."""

import base64
import io
import struct

import numpy as np
import pytest
from PIL import Image

from visavis.errors import DataError
from visavis.vision import images
from visavis.vision.image_inputs import load_image


def smooth(height=48, width=64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 3 * x, 60 + 2 * y, 200 - 2 * x], -1).clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGBA = np.dstack([smooth(), np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))])


WIDE = (smooth()[..., 0].astype(np.uint16) * 257) + 3


KINDS = {
    "jpeg": lambda: saved(Image.fromarray(smooth()), "JPEG", quality=95),
    "jpeg on its side": lambda: saved(Image.fromarray(smooth()), "JPEG", quality=95, exif=orientation(6)),
    "png": lambda: saved(Image.fromarray(smooth()), "PNG"),
    "png RGBA": lambda: saved(Image.fromarray(RGBA), "PNG"),
    "png gray 16": lambda: saved(Image.fromarray(WIDE), "PNG"),
    "png palette": lambda: saved(Image.fromarray(smooth()).quantize(32), "PNG"),
    "png palette with a transparent color": lambda: saved(
        Image.fromarray(smooth()).quantize(32), "PNG", transparency=3
    ),
    "png gray and alpha": lambda: saved(Image.fromarray(RGBA).convert("LA"), "PNG"),
    "gif": lambda: saved(Image.fromarray(smooth()), "GIF"),
    "tiff": lambda: saved(Image.fromarray(smooth()), "TIFF"),
    "tiff float": lambda: saved(Image.fromarray(smooth()[..., 0].astype(np.float32) / 255), "TIFF"),
    "tiff 16": lambda: saved(Image.fromarray(WIDE), "TIFF"),
    "webp with alpha": lambda: saved(Image.fromarray(RGBA), "WEBP", lossless=True),
    "webp on its head": lambda: saved(Image.fromarray(smooth()), "WEBP", lossless=True, exif=orientation(3)),
    "avif": lambda: saved(Image.fromarray(smooth()), "AVIF"),
    "bmp": lambda: saved(Image.fromarray(smooth()), "BMP"),
}


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_in_every_form(kind, tmp_path):
    data = KINDS[kind]()
    path = tmp_path / "picture"
    path.write_bytes(data)
    expected = images.decode(data)
    assert expected.std() > 10
    with path.open("rb") as file, Image.open(io.BytesIO(data)) as opened:
        forms = {
            "path": path,
            "text": str(path),
            "bytearray": bytearray(data),
            "file": file,
            "data URL": "data:image/x;base64," + base64.b64encode(data).decode(),
            "PIL": opened,
        }
        for name, form in forms.items():
            got = load_image(form).pixels.astype(int)
            assert got.shape == expected.shape, name
            assert np.abs(got - expected).max() <= (4 if "jpeg" in kind else 1), name


ARRAYS = {
    "uint8": (smooth(), smooth()),
    "gray": (smooth()[..., 0], np.repeat(smooth()[..., :1], 3, 2)),
    "one channel": (smooth()[..., :1], np.repeat(smooth()[..., :1], 3, 2)),
    "uint16": (smooth().astype(np.uint16) * 257, smooth()),
    "float to 1": (smooth() / 255, smooth()),
    "float to 255": (smooth().astype(np.float32), smooth()),
    "float16 to 1": ((smooth() / 255).astype(np.float16), smooth()),
    "RGBA": (RGBA, images.decode(saved(Image.fromarray(RGBA), "PNG"))),
    "RGBA 16": (RGBA.astype(np.uint16) * 257, images.decode(saved(Image.fromarray(RGBA), "PNG"))),
    "RGBA float": (RGBA / 255, images.decode(saved(Image.fromarray(RGBA), "PNG"))),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_show_what_they_are(kind):
    array, expected = ARRAYS[kind]
    got = load_image(array).pixels
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_twelve_bits_are_not_dark():
    """A TIFF that says 12 bits has its white at 4,095."""
    values = (smooth()[..., 0].astype(int) * 4095 // 255).ravel()
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    body = packed.astype(np.uint8).tobytes()
    tags = [(256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 4, 1, 48), (279, 4, 1, len(body))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)
    got = images.decode(data)[..., 0].astype(int)
    assert np.abs(got - smooth()[..., 0]).max() <= 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7", "a PDF, which is not read"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "a video, not a picture"),
        (b"\x1aE\xdf\xa3" + bytes(20), "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"PK\3\4", "a ZIP archive"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "got text"),
        (b"II+\0\x08\0\0\0" + bytes(40), "BigTIFF"),
        (b"\1\2\3\4", "4 bytes starting 01 02 03 04"),
    ],
)
def test_what_is_not_read_is_named(data, said):
    with pytest.raises(DataError, match=said):
        images.decode(data)


def test_damaged_data_urls_and_text_files():
    with pytest.raises(DataError, match="data URL"):
        load_image("data:image/png;base64,%%%")
    with pytest.raises(DataError, match="mode 'rb'"):
        load_image(io.StringIO("x"))
