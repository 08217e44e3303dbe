"""From what a picture is stored as (palettes, 16 bits, floats, alpha, CMYK) to uint8 RGB, a strip of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from visavis.types import ByteArray

if TYPE_CHECKING:
    from jaxtyping import UInt8

_STRIP = 1_000_000
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def strip_rows(width: int) -> int:
    """How many rows make a strip of about a megapixel."""
    return max(1, _STRIP // max(1, width))


def to_rgb(image: Image.Image) -> UInt8[ByteArray, "H W 3"]:
    """A loaded Pillow picture as uint8 (H, W, 3) RGB: alpha over white, more than 8 bits scaled by their white.

    The whole is never held in more than its own mode and the answer: six conversions of a picture are six pictures.
    """
    answer = np.empty((image.height, image.width, 3), np.uint8)
    rows, convert = strip_rows(image.width), _converter(image)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        answer[top:bottom] = convert(image.crop((0, top, image.width, bottom)))
    return answer


def _converter(image: Image.Image) -> Callable[[Image.Image], ByteArray]:
    if image.mode.startswith(("I", "F")):
        white = _white(image)
        return lambda strip: scaled(np.asarray(strip), white)
    if image.mode in _ALPHA or "transparency" in image.info:
        return lambda strip: blended(np.asarray(strip.convert("RGBA")))
    return lambda strip: np.asarray(strip.convert("RGB"))


def _white(image: Image.Image) -> float:
    """The value that shows as white: of 12 bits 4,095, of 16 bits 65,535, of more and of floats see `white_of`."""
    bits = getattr(image, "tag_v2", {}).get(258, (0,))
    if image.mode.startswith("I;16"):
        return 4095.0 if tuple(bits) == (12,) else 65_535.0
    low, high = np.ravel(image.getextrema()).astype(float).tolist()
    return white_of(high, integral=image.mode == "I") if low == low and high == high else 1.0


def white_of(largest: float, *, integral: bool) -> float:
    """The white of values up to `largest`: 65,535 or what exceeds it; of floats the least of 1, 255 and 65,535."""
    steps = (65_535.0,) if integral else (1.0, 255.0, 65_535.0)
    return next((white for white in steps if largest <= white), largest)


def scaled(values: npt.NDArray[np.generic], white: float) -> ByteArray:
    """Gray (H, W) or color (H, W, 3) values from 0 to `white` as uint8 RGB; NaN is black."""
    levels = np.nan_to_num(values.astype(np.float64) * (255 / white), nan=0.0, posinf=255.0, neginf=0.0)
    rgb = np.rint(levels.clip(0, 255)).astype(np.uint8)
    return np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else rgb


def blended(rgba: UInt8[ByteArray, "H W 4"]) -> UInt8[ByteArray, "H W 3"]:
    """RGBA (H, W, 4) over white: c' = (c·α + 255·(255 − α)) / 255, rounded."""
    answer = np.empty((*rgba.shape[:2], 3), np.uint8)
    for top in range(0, len(rgba), rows := strip_rows(rgba.shape[1])):
        strip = rgba[top : top + rows]
        alpha = strip[..., 3:].astype(np.uint16)
        over = strip[..., :3] * alpha + 255 * (255 - alpha) + 127
        answer[top : top + rows] = over // 255
    return answer
