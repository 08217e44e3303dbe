"""Whether a picture's channels are in OpenCV's order: skin is redder than blue, in every light people photograph in."""

from __future__ import annotations

from typing import Literal

from visavis.types import ByteArray

ChannelOrder = Literal["RGB", "BGR", "auto"]
ORDERS: tuple[ChannelOrder, ...] = ("RGB", "BGR", "auto")
# Mean red − blue of the middle of an aligned face, in gray levels. Of 1,056 LFW crops 99.6 % have more than 0 (99 %
# more than 21), the others are gray pictures with exactly 0; none has less.
_BLUER = -5.0


def looks_bgr(crop: ByteArray) -> bool:
    """Whether an aligned face, uint8 (H, W, 3) taken for RGB, is bluer than red, so that its channels are exchanged."""
    height, width = crop.shape[:2]
    middle = crop[height * 2 // 5 : height * 4 // 5, width // 4 : width * 3 // 4].astype("f4")
    return float((middle[..., 0] - middle[..., 2]).mean()) < _BLUER
