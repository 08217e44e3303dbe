"""Parts of aligned faces, as DeepID looks at them: several regions and scales, one small network for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis._moved import former_arguments
from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.alignment import template_points
from visavis.vision.images import encode

DEEPID_SIZE = (55, 47)


@dataclass(frozen=True)
class Patch:
    """A window of the aligned face: center (x, y) and height in pixels of the 112 × 112 ArcFace frame; maybe gray."""

    name: str
    center: tuple[float, float]
    height: float
    gray: bool = False

    def cut(self, crops: ByteArray, size: tuple[int, int] = DEEPID_SIZE) -> ByteArray:
        """Cut crops (N, S, S, 3) to (N, *size, 3); what lies outside the crop repeats its border.

        Raises:
            DataError: the crops are not square ArcFace crops.
        """
        if crops.ndim != 4 or crops.shape[1] != crops.shape[2] or crops.shape[3] != 3:
            raise DataError(f"patches are cut from square ArcFace crops (N, S, S, 3), got {crops.shape}")
        scale = self.height / size[0] * crops.shape[1] / 112
        # Pixel (u, v) of the patch shows (center + (u − middle)·scale) of the crop; centers of pixels are whole.
        x, y = ((c + 0.5) * crops.shape[1] / 112 - 0.5 for c in self.center)
        warp = np.array([[scale, 0, x - scale * (size[1] - 1) / 2], [0, scale, y - scale * (size[0] - 1) / 2]])
        out = np.empty((len(crops), *size, 3), np.uint8)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for crop, patch in zip(crops, out, strict=True):
            if scale > 1.5:  # bilinear sampling alone would skip pixels
                crop = cv2.GaussianBlur(crop, (0, 0), 0.35 * scale)
            patch[:] = cv2.warpAffine(crop, warp, (size[1], size[0]), flags=how, borderMode=cv2.BORDER_REPLICATE)
            if self.gray:
                patch[:] = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)[..., None]
        return out


@former_arguments(grey="gray")
def deepid_patches(scales: Sequence[float] = (1.0,), *, gray: bool = False) -> tuple[Patch, ...]:
    """DeepID's ten regions at each scale, in color and (with `gray`) also without.

    Five are of the whole face, five are centered at the landmarks: both eyes' outer parts, nose tip, mouth corners. The
    paper has 10 regions × 3 scales × color and gray = 60 patches (section 3.2); the exact windows it does not give.
    """
    middle = 56.0
    points = template_points("arcface", (112, 112))
    whole = (
        ("face", (middle, 63.0), 108.0),
        ("upper", (middle, 46.0), 76.0),
        ("lower", (middle, 80.0), 72.0),
        ("left", (41.0, 64.0), 88.0),
        ("right", (71.0, 64.0), 88.0),
    )
    names = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    local = tuple((name, (float(x), float(y)), 52.0) for name, (x, y) in zip(names, points, strict=True))
    return tuple(
        Patch(f"{name}_{round(100 * s)}" + ("_gray" if g else ""), center, height * s, g)
        for g in ((False, True) if gray else (False,))
        for s in scales
        for name, center, height in (*whole, *local)
    )


class PatchSource(Source):
    """One patch of every picture of another source."""

    def __init__(self, base: Source, patch: Patch, size: tuple[int, int] = DEEPID_SIZE) -> None:
        self.base, self.patch, self.size = base, patch, size
        self.path, self.names, self.identities, self.labels = base.path, base.names, base.identities, base.labels
        self.skipped = base.skipped

    def read(self, index: int) -> bytes:
        """The patch as a PNG file."""
        return encode(self.image(index), ".png")

    def image(self, index: int) -> ByteArray:
        """The patch, uint8 (*size, 3); (H, W, 3)."""
        return self.patch.cut(self.base.image(index)[None], self.size)[0]
