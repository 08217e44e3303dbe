"""Decode and encode pictures; the only file that knows OpenCV's BGR. Everything it returns is uint8 (H, W, 3) RGB."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from visavis.errors import DataError
from visavis.types import ByteArray

MAX_PIXELS = 64_000_000
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
_JPEG = b"\xff\xd8\xff"


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file name ends as a picture's does."""
    return os.path.splitext(os.fspath(path))[1].lower() in EXTENSIONS


def decode(data: bytes, *, name: str = "picture", max_pixels: int = MAX_PIXELS) -> ByteArray:
    """Decode JPEG, PNG, BMP, WebP, PPM, TIFF or the first frame of a GIF into uint8 (H, W, 3) RGB.

    EXIF orientation is applied, grey is repeated over three channels, alpha is blended onto white, CMYK is converted.
    The size is read from the header first, so that a picture of more than `max_pixels` pixels costs nothing.

    Raises:
        DataError: not a picture, damaged or truncated, or larger than `max_pixels`.
    """
    if not data:
        raise DataError(f"{name}: expected a picture, got an empty file")
    plain = _plain_jpeg_pixels(data)
    if 0 < plain <= max_pixels and _is_whole_jpeg(data):
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is not None:
            return _bytes(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    image = _open(data, name)
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"{name}: {width}×{height} pixels exceed the limit of {max_pixels:,}; shrink the picture first")
    if data[:3] == _JPEG and image.mode in ("RGB", "L") and not image.info.get("exif") and _is_whole_jpeg(data):
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is not None:
            return _bytes(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    return _decode_with_pillow(image, name)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: {error}; shrink the picture first") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        head = data[:8].hex(" ")
        raise DataError(
            f"{name}: expected a JPEG, PNG, BMP, WebP, PPM, TIFF or GIF picture, got {len(data)} bytes starting {head}"
        ) from error
    except Exception as error:  # a decoder's own fault on hostile bytes is still the picture's
        raise DataError(f"{name}: damaged picture ({error.__class__.__name__}: {error})") from error


def _plain_jpeg_pixels(data: bytes) -> int:
    """The number of pixels of an 8-bit grey or colour JPEG without EXIF, read from its markers; 0 for anything else.

    Asking Pillow costs as much as decoding a face crop does.
    """
    if data[:3] != _JPEG:
        return 0
    at, end = 2, len(data) - 10
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # start of frame: bits, height, width, components
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            return height * width if data[at + 4] == 8 and data[at + 9] in (1, 3) else 0
        if marker == 0xE1 or marker == 0xEE or marker < 0xC0 or marker in (0xD8, 0xD9, 0xDA, 0xFF):
            return 0  # EXIF, Adobe's colour transform, or something unexpected: Pillow knows better
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return 0


def _is_whole_jpeg(data: bytes) -> bool:
    """A JPEG that lost its end has no end-of-image marker in its last bytes; OpenCV would fill the rest with grey."""
    return b"\xff\xd9" in data[-64:]


def _decode_with_pillow(image: Image.Image, name: str) -> ByteArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):
                grey = np.asarray(image, np.float64)
                white = 65_535.0 if image.mode != "I" else max(65_535.0, grey.max())  # 16 bits, or more of them
                image = Image.fromarray((grey.clip(0) * 255 / white + 0.5).astype(np.uint8))
            if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
                rgba = image.convert("RGBA")
                white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
                image = Image.alpha_composite(white, rgba)
            return np.array(image.convert("RGB"), np.uint8)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError ...
        raise DataError(f"{name}: damaged or truncated picture ({error.__class__.__name__}: {error})") from error


def read(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """Decode a picture file; see `decode`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot read the picture ({error.strerror})") from error
    return decode(data, name=os.fspath(path), max_pixels=max_pixels)


def encode(image: ByteArray, extension: str = ".jpg", *, quality: int = 95) -> bytes:
    """Encode a uint8 (H, W, 3) RGB picture as JPEG, PNG, WebP or BMP, chosen by `extension`."""
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality]}
    if extension == ".webp":
        options[extension] = [cv2.IMWRITE_WEBP_QUALITY, quality]
    if extension not in (*options, ".png", ".bmp"):
        raise DataError(f"cannot write a picture as {extension!r}; use .jpg, .png, .webp or .bmp")
    done, buffer = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options.get(extension, []))
    if not done:
        raise DataError(f"cannot encode a picture of shape {image.shape} as {extension}")
    return buffer.tobytes()


def write(path: str | os.PathLike[str], image: ByteArray, *, quality: int = 95) -> None:
    """Write a uint8 (H, W, 3) RGB picture; the extension chooses the format."""
    Path(path).write_bytes(encode(image, Path(path).suffix.lower(), quality=quality))


def resize(image: ByteArray, size: tuple[int, int]) -> ByteArray:
    """Resize to `size` = (height, width); averages areas when shrinking, bilinear otherwise."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return _bytes(cv2.resize(image, (width, height), interpolation=how))


def _bytes(matrix: object) -> ByteArray:
    """OpenCV's stubs do not say that uint8 in is uint8 out."""
    return np.asarray(matrix, np.uint8)
