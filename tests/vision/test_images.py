"""Pictures in every encoding the field uses, and every way they can be broken."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from visavis.errors import DataError
from visavis.vision import images


def smooth(height=24, width=32) -> np.ndarray:
    """A picture that JPEG keeps within a few levels: gradients, with red, green and blue told apart."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 5 * x, 60 + 4 * y, 200 - 3 * x], -1).clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_return_the_very_pixels(kind):
    assert np.array_equal(images.decode(saved(Image.fromarray(smooth()), kind)), smooth())


def test_lossless_webp():
    assert np.array_equal(images.decode(saved(Image.fromarray(smooth()), "WEBP", lossless=True)), smooth())


@pytest.mark.parametrize(
    "options", [{"quality": 95}, {"quality": 95, "progressive": True}, {"quality": 95, "subsampling": 0}]
)
def test_jpeg_is_rgb_not_bgr(options):
    decoded = images.decode(saved(Image.fromarray(smooth()), "JPEG", **options))
    assert np.abs(decoded.astype(int) - smooth()).max() <= 12


def test_jpeg_agrees_with_pillow():
    data = saved(Image.fromarray(smooth()), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(images.decode(data).astype(int) - np.asarray(image)).max() <= 2


# EXIF orientation: how the stored picture must be turned to stand upright (EXIF 2.3, table 6).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation(kind, orientation):
    stored = smooth()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    decoded = images.decode(saved(Image.fromarray(stored), kind, exif=exif, **options))
    expected = UPRIGHT[orientation](stored)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= (6 if kind == "JPEG" else 0)


def test_exif_behind_a_long_first_segment():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(smooth()), "JPEG", exif=exif, quality=95)
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + b"x" * 60_000
    assert images.decode(data[:2] + comment + data[2:]).shape == (32, 24, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_gray_becomes_three_equal_channels(kind):
    gray = smooth()[..., 0]
    decoded = images.decode(saved(Image.fromarray(gray), kind, **({"quality": 95} if kind == "JPEG" else {})))
    assert decoded.shape == (*gray.shape, 3)
    assert np.array_equal(decoded[..., 0], decoded[..., 2])
    assert np.abs(decoded[..., 1].astype(int) - gray).max() <= 6


def test_alpha_is_blended_onto_white():
    rgba = np.dstack([smooth(), np.full((24, 32), 255, np.uint8)])
    rgba[:12, :, 3] = 0
    rgba[12:18, :, 3] = 51  # a fifth of the color, four fifths white
    decoded = images.decode(saved(Image.fromarray(rgba), "PNG"))
    assert (decoded[:12] == 255).all()
    expected = 0.2 * smooth()[12:18] + 0.8 * 255
    assert np.abs(decoded[12:18] - expected).max() <= 1
    assert np.array_equal(decoded[18:], smooth()[18:])


def test_gray_with_alpha_and_transparent_palette():
    la = np.dstack([smooth()[..., 0], np.zeros((24, 32), np.uint8)])
    assert (images.decode(saved(Image.fromarray(la, "LA"), "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 1), 1)
    decoded = images.decode(saved(palette, "PNG", transparency=0))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[1, 1].tolist() == [0, 255, 0]


def test_cmyk_jpeg():
    decoded = images.decode(saved(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - smooth()).max() <= 16


def test_sixteen_bits_keep_the_high_byte():
    gray = np.linspace(0, 30_000, 24 * 32).reshape(24, 32).astype(np.uint16)
    done, png = cv2.imencode(".png", gray)
    assert done
    decoded = images.decode(png.tobytes())
    assert np.abs(decoded[..., 0] - gray / 257).max() <= 1
    done, png = cv2.imencode(".png", np.dstack([gray] * 3))
    assert done
    assert np.abs(images.decode(png.tobytes())[..., 1] - gray / 257).max() <= 1


def test_one_bit_and_first_frame_of_a_gif():
    bits = Image.fromarray(smooth()[..., 0] > 100)
    assert set(np.unique(images.decode(saved(bits, "PNG")))) == {0, 255}
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    decoded = images.decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.shape == (6, 8, 3)
    assert decoded[0, 0].tolist() == [255, 0, 0]


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_from_its_header():
    with pytest.raises(DataError, match=r"10000000000 pixels. exceeds limit"):
        images.decode(png_of_size(100_000, 100_000))
    with pytest.raises(DataError, match=r"32×24 pixels exceed the limit of 767"):
        images.decode(saved(Image.fromarray(smooth()), "BMP"), max_pixels=767)
    assert images.decode(saved(Image.fromarray(smooth()), "BMP"), max_pixels=768).shape == (24, 32, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_pictures_are_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match="picture"):
        images.decode(data[: int(len(data) * share)], name="x")


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am no picture", b"<svg></svg>", b"\xff\xd8\xff", b"%PDF-1.7", b"GIF89a"]
)
def test_what_is_no_picture(data):
    with pytest.raises(DataError, match=r"^a\.jpg: "):
        images.decode(data, name="a.jpg")


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_lossless_encoding_round_trip(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    images.write(path, smooth())
    assert np.array_equal(images.read(path), smooth())


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp"])
def test_lossy_encoding_keeps_channel_order(extension):
    decoded = images.decode(images.encode(smooth(), extension, quality=95))
    assert np.abs(decoded.astype(int) - smooth()).max() <= 20


def test_unknown_extension_and_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"'\.xyz'; use \.jpg"):
        images.encode(smooth(), ".xyz")
    with pytest.raises(DataError, match="cannot read the picture"):
        images.read(tmp_path / "none.png")


def test_resize_averages_when_it_shrinks():
    checker = np.indices((8, 8)).sum(0) % 2 * 255
    small = images.resize(np.dstack([checker.astype(np.uint8)] * 3), (4, 4))
    assert np.abs(small.astype(int) - 127.5).max() <= 0.5
    assert images.resize(smooth(), (48, 64)).shape == (48, 64, 3)
    assert images.resize(smooth(), (24, 32)) is not None


def test_is_image_path():
    assert images.is_image_path("a/b.JPG")
    assert not images.is_image_path("a/b.txt")
    assert not images.is_image_path("jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_pixels_are_counted_by_the_header(kind):
    assert images.count_pixels(saved(Image.fromarray(smooth(30, 70)), kind)) == 30 * 70
