"""Encoded pictures within limits of time and memory; with `images` the only file that knows OpenCV's BGR."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.container_limits import checked_container
from visavis.vision.heif import is_heif, load_heif, open_heif
from visavis.vision.image_formats import damaged, what_it_is
from visavis.vision.image_modes import blended, strip_rows, to_rgb
from visavis.vision.jpeg_markers import JpegHeader, read_jpeg_header
from visavis.vision.orientation import exif_orientation, upright

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

T = TypeVar("T")
MAX_PIXELS = 64_000_000
LARGE = 24_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF", "AVIF")
_JPEG = b"\xff\xd8\xff"
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# What Pillow decodes in Python, some 0.3 µs a pixel and more.
_SLOW = {"bmp_rle": "BMP with run lengths", "ppm": "PPM with an odd maximum", "ppm_plain": "PPM in decimal digits"}
_SLOW_PIXELS = 1_000_000


@dataclass(frozen=True, eq=False)
class ReducedImage:
    """A decoded picture, uint8 (H, W, 3) RGB, and what its sides were divided by: 1, 2, 4 or 8."""

    pixels: ByteArray
    divisor: int = 1

    def whole(self, points: Float[npt.NDArray[np.float32], "*S"]) -> Float[npt.NDArray[np.float32], "*S"]:
        """Coordinates in `pixels` as those of the whole picture; a pixel's center is at whole numbers in both."""
        return points if self.divisor == 1 else (points + np.float32(0.5)) * self.divisor - np.float32(0.5)


def decode(data: bytes, *, name: str = "picture", max_pixels: int = MAX_PIXELS) -> UInt8[ByteArray, "H W 3"]:
    """Decode JPEG, PNG, BMP, WebP, PPM, TIFF, AVIF, HEIC or the first frame of a GIF into uint8 (H, W, 3) RGB.

    EXIF orientation is applied, gray is repeated over three channels, alpha is blended onto white, CMYK is converted.
    Size, scans and parts are read from the header first, so that a picture beyond the limits costs nothing.

    Raises:
        DataError: not a picture, damaged or truncated, larger than `max_pixels`, or made to be slow to decode.
    """
    return decode_reduced(data, name=name, max_pixels=max_pixels, large=None).pixels


def decode_reduced(
    data: bytes,
    *,
    name: str = "picture",
    max_pixels: int = MAX_PIXELS,
    max_whole: int | None = None,
    large: int | None = LARGE,
) -> ReducedImage:
    """`decode`, but a JPEG of more than `large` pixels at a half, a quarter or an eighth of its sides.

    A JPEG's decoder reaches those sizes in less time and memory than the full one. The other formats' decoders hold the
    whole picture, up to seven bytes a pixel: `max_whole` is the most pixels they may have, `max_pixels` when None.
    """
    if not data:
        raise DataError(f"{name}: expected a picture, got an empty file")
    if data[:3] == _JPEG:
        return _decode_jpeg(_jpeg_header(data, name), name, max_pixels, large)
    most_whole = max_pixels if max_whole is None else min(max_whole, max_pixels)
    if is_heif(data):
        return ReducedImage(_decode_heif(data, name, most_whole))
    data, exif = _named(checked_container, data, name)
    image = _open(data, name)
    _check_size(image, len(data), name, most_whole)
    orientation = exif_orientation(exif or image.info.get("exif", b""))
    if data[:4] == b"RIFF" and not getattr(image, "is_animated", False):
        del image  # its canvases, twice four bytes a pixel
        return ReducedImage(upright(_decode_webp(data, name), orientation))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return ReducedImage(upright(to_rgb(image), orientation))
    except Exception as error:
        raise damaged(name, error) from error


def _jpeg_header(data: bytes, name: str) -> JpegHeader:
    header = _named(read_jpeg_header, data, name)
    if header is None:
        raise DataError(f"{name}: damaged or truncated picture (a JPEG without a frame or a scan)")
    return header


def _check_pixels(width: int, height: int, name: str, most: int) -> None:
    if width * height > most:
        raise DataError(f"{name}: {width}×{height} pixels exceed the limit of {most:,}; shrink the picture first")


def _check_size(image: Image.Image, size: int, name: str, max_pixels: int) -> None:
    width, height = image.size
    _check_pixels(width, height, name, max_pixels)
    tiles = getattr(image, "tile", None)
    decoder = tiles[0][0] if tiles else ""
    if decoder in _SLOW and (width * height > _SLOW_PIXELS or size > 4 * _SLOW_PIXELS):
        raise DataError(f"{name}: {width}×{height} pixels stored as {_SLOW[decoder]}; save it as PNG or JPEG")


def _decode_jpeg(header: JpegHeader, name: str, max_pixels: int, large: int | None) -> ReducedImage:
    pixels = header.width * header.height
    _check_pixels(header.width, header.height, name, max_pixels)
    if header.bits != 8:
        raise DataError(f"{name}: a JPEG of {header.bits} bits a color; save it as a JPEG of 8 or a PNG of 16")
    divisor = 1
    while large is not None and pixels > large * divisor**2 and divisor < 8:
        divisor *= 2
    if header.whole and header.components in (1, 3):
        buffer = np.frombuffer(header.plain, np.uint8)
        bgr = cv2.imdecode(buffer, _REDUCED[divisor] | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is not None:
            return ReducedImage(upright(_swapped(np.asarray(bgr, np.uint8)), header.orientation), divisor)
    image = _open(header.plain, name)
    if divisor > 1:
        image.draft("RGB", (-(-image.width // divisor), -(-image.height // divisor)))
        divisor = round(header.width / image.width)
    try:
        image.load()
        return ReducedImage(upright(to_rgb(image), header.orientation), divisor)
    except Exception as error:
        raise damaged(name, error) from error


def _decode_heif(data: bytes, name: str, max_pixels: int) -> ByteArray:
    opened = open_heif(data, name)
    width, height = opened.size
    _check_pixels(width, height, name, max_pixels)
    return to_rgb(load_heif(opened, name))


def _swapped(image: ByteArray) -> ByteArray:
    """BGR <-> RGB in place, a strip of rows at a time; OpenCV keeps a copy of the whole."""
    for top in range(0, len(image), rows := strip_rows(image.shape[1])):
        strip = image[top : top + rows]
        strip[:] = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
    return image


def _decode_webp(data: bytes, name: str) -> ByteArray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{name}: damaged or truncated picture (WebP)")
    if pixels.shape[2] == 3:
        return _swapped(np.asarray(pixels, np.uint8))
    pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA), np.uint8)
    return blended(pixels)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: {error}; shrink the picture first") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: {what_it_is(data)}") from error
    except Exception as error:  # a decoder's own fault on hostile bytes is still the picture's
        raise damaged(name, error) from error


def count_pixels(data: bytes, *, name: str = "picture") -> int:
    """Pixels of an encoded picture, by its header; at least 1. What cannot be read raises as `decode` does."""
    if data[:3] == _JPEG:
        header = _jpeg_header(data, name)
        return max(1, header.width * header.height)
    if is_heif(data):
        width, height = open_heif(data, name).size
        return max(1, width * height)
    with _open(_named(checked_container, data, name)[0], name) as image:
        return max(1, image.width * image.height)


def _named(function: Callable[[bytes], T], data: bytes, name: str) -> T:
    """Call a reader that does not know what the picture is called."""
    try:
        return function(data)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
