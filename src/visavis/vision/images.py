"""Read and write pictures; everything returned is uint8 (H, W, 3) RGB. How files are decoded stands in `decoding`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from visavis.errors import DataError
from visavis.files import is_reserved
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.decoding import LARGE, MAX_PIXELS, ReducedImage, count_pixels, decode, decode_reduced

if TYPE_CHECKING:
    from jaxtyping import UInt8

__all__ = [
    "EXTENSIONS", "LARGE", "MAX_PIXELS", "ReducedImage", "count_pixels", "decode", "decode_reduced", "encode",
    "is_image_path", "read", "read_bytes", "resize", "write",
]  # fmt: skip
EXTENSIONS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jfif",
        ".png",
        ".bmp",
        ".webp",
        ".ppm",
        ".tif",
        ".tiff",
        ".gif",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    }
)


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file name ends as a picture's does."""
    name: str = os.fspath(path)
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A picture file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        if is_reserved(path):
            raise DataError(f"{os.fspath(path)}: the gallery's own file, not a picture")
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot read the picture ({error.strerror})") from error


def read(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> UInt8[ByteArray, "H W 3"]:
    """Decode a picture file; see `decode`."""
    return decode(read_bytes(path), name=os.fspath(path), max_pixels=max_pixels)


def encode(image: UInt8[ByteArray, "H W 3"], extension: str = ".jpg", *, quality: int = 95) -> bytes:
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


def write(path: str | os.PathLike[str], image: UInt8[ByteArray, "H W 3"], *, quality: int = 95) -> None:
    """Write a uint8 (H, W, 3) RGB picture; the extension chooses the format."""
    Path(path).write_bytes(encode(image, Path(path).suffix.lower(), quality=quality))


def resize(image: UInt8[ByteArray, "H W *C"], size: tuple[int, int]) -> UInt8[ByteArray, "h w *C"]:
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
