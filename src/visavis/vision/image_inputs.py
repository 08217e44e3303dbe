"""A picture in whatever form a caller holds it: the same face comes of the file, its bytes, a PIL image or an array."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any, cast

import numpy as np

from visavis._moved import former_arguments
from visavis.errors import DataError
from visavis.types import ByteArray
from visavis.vision.image_modes import blended, scaled, to_rgb, white_of
from visavis.vision.images import LARGE, MAX_PIXELS, ReducedImage, decode_reduced, encode, read_bytes
from visavis.vision.orientation import upright

_ORIENTATION = 0x0112


@former_arguments(picture="image")
def load_image(
    image: Any, *, name: str = "picture", max_pixels: int = MAX_PIXELS, large: int | None = LARGE
) -> ReducedImage:
    """Decode or convert a picture to uint8 (H, W, 3) RGB; a large JPEG reduced (see `decode_reduced`).

    Args:
        image: a path, a data URL, bytes, an open binary file, a PIL image, or an array in RGB order (OpenCV's BGR
            must be turned first): uint8, uint16 or float, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with alpha. Floats
            reach to 1, 255 or 65,535, whichever their largest value fits under. Or a function that decodes one when
            its turn has come, so that of many pictures one is held at a time.
        name: what error messages call it; a path names itself.
        max_pixels: the most it may have.
        large: pixels above which a JPEG is decoded reduced; never when None.

    Raises:
        DataError: unreadable, damaged or too large, or an array of another type or shape.
    """
    if isinstance(image, ReducedImage):
        return image
    if callable(image):
        decoded: Any = image()
        return decoded
    if isinstance(image, str) and image[:5].lower() == "data:":
        return decode_reduced(_data_url(image, name), name=name, max_pixels=max_pixels, large=large)
    if isinstance(image, str | os.PathLike):
        path = os.fspath(cast("str", image))
        return decode_reduced(read_bytes(path), name=path, max_pixels=max_pixels, large=large)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_reduced(bytes(cast("bytes", image)), name=name, max_pixels=max_pixels, large=large)
    if callable(getattr(image, "read", None)):
        return decode_reduced(_read_open(image, name), name=name, max_pixels=max_pixels, large=large)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        _check(image.width * image.height, name, max_pixels)
        image.load()
        return ReducedImage(upright(to_rgb(image), int(image.getexif().get(_ORIENTATION, 1))))
    return ReducedImage(_array(np.asarray(image), name, max_pixels))


@former_arguments(picture="image")
def encoded(image: Any, *, name: str = "picture") -> bytes:
    """The bytes of a picture file of whatever `load_image` takes: a file's own, or a PNG of pixels held in memory.

    Raises:
        DataError: as `load_image`; what is a file already is not looked into.
    """
    if isinstance(image, str) and image[:5].lower() == "data:":
        return _data_url(image, name)
    if isinstance(image, str | os.PathLike):
        return read_bytes(os.fspath(cast("str", image)))
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(cast("bytes", image))
    if callable(getattr(image, "read", None)):
        return _read_open(image, name)
    return encode(load_image(image, name=name).pixels, ".png")


def _read_open(file: Any, name: str) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise DataError(f"{name}: expected a file opened with mode 'rb', got one that reads {type(data).__name__}")
    return data


def _check(pixels: int, name: str, most: int) -> None:
    if pixels > most:
        raise DataError(f"{name}: {pixels:,} pixels exceed the limit of {most:,}; shrink the picture first")


def _data_url(text: str, name: str) -> bytes:
    head, comma, body = text.partition(",")
    try:
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name}: expected a data URL like data:image/jpeg;base64,..., got a damaged one") from error


def _array(array: np.ndarray, name: str, most: int) -> ByteArray:
    channels = array.shape[2] if array.ndim == 3 else 1
    known = array.dtype == np.uint8 or array.dtype == np.uint16 or array.dtype.kind == "f"
    if not known or array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        raise DataError(
            f"{name}: expected an array (H, W), (H, W, 3) or (H, W, 4) in RGB order of uint8, uint16 or float, got "
            f"{array.dtype} {array.shape}"
        )
    _check(array.shape[0] * array.shape[1], name, most)
    if array.dtype == np.uint8 and channels == 3:
        return array
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise DataError(f"{name}: expected finite values, got NaN or infinity")
        white = 65_535.0 if array.dtype == np.uint16 else white_of(float(array.max()), integral=False)
        array = scaled(array, white)
    if array.ndim == 2 or channels == 1:
        array = np.repeat(array.reshape(*array.shape[:2], -1)[..., :1], 3, axis=2)
    return blended(array) if array.shape[2] == 4 else array
