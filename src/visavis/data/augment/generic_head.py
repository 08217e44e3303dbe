"""A generic head behind every aligned crop: turn a real face a little, nod it, and light it from another side."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from visavis.opencv import cv2
from visavis.types import FloatArray
from visavis.vision.alignment import get_template

# In pixels of the 112-row ArcFace frame, from its middle column: an ellipsoid as wide, high and deep as the mean head,
# with a nose on it; found by eye on real crops turned by up to 25 degrees.
_MIDDLE_COLUMN = 55.5
_MIDDLE_ROW, _HALF_WIDTH, _HALF_HEIGHT, _DEPTH = 68.0, 42.0, 60.0, 42.0
_NOSE_ROW, _NOSE_DEPTH, _NOSE_WIDTH, _NOSE_HEIGHT = 70.0, 9.0, 6.0, 10.0
_VERTICAL_LIGHT = 0.6  # faces are lit from the side more strongly than from below
_DARKEST, _BRIGHTEST = 0.25, 1.9


class GenericHead:
    """The same head for every crop (H, W) of the ArcFace frame or its center columns, in the crop's pixels.

        z(x, y) = D · √max(0, 1 − u² − v²) + nose,   u = (x − c_x) / a,  v = (y − c_y) / b

    A turn by θ moves a point to x' = x · cos θ + z · sin θ (a nod likewise in y), less the mean shift of the five
    landmarks, which alignment would take back. No hidden side is made up: meant for up to 25 degrees.

    After the idea of Masi et al., arXiv:1603.07057v2, section 3.1, with one smooth head for their ten scans.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.unit = size[0] / 112
        self.column = (size[1] - 1) / 2
        self.row = (_MIDDLE_ROW + 0.5) * self.unit - 0.5
        rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
        self.depth = self._depth((columns - self.column) / self.unit, (rows + 0.5) / self.unit - 0.5)
        landmarks = get_template("arcface").points  # what alignment would bring back after a turn
        self.landmark_depth = float(self._depth(landmarks[:, 0] - _MIDDLE_COLUMN, landmarks[:, 1]).mean())

    def _depth(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """z in the crop's pixels at template coordinates x (from the middle column) and y."""
        u, v = x / _HALF_WIDTH, (y - _MIDDLE_ROW) / _HALF_HEIGHT
        skull = _DEPTH * np.sqrt(np.maximum(0, 1 - u**2 - v**2))
        nose = _NOSE_DEPTH * np.exp(-((x / _NOSE_WIDTH) ** 2) - ((y - _NOSE_ROW) / _NOSE_HEIGHT) ** 2)
        return ((skull + nose) * self.unit).astype(np.float32)

    def turned(self, x: FloatArray, y: FloatArray, *, yaw: float, pitch: float) -> tuple[FloatArray, FloatArray]:
        """Where in the frontal crop the points (x, y) of the turned one come from; float32 maps, angles in radians.

        Shapes: (H, W) each.

        x = (x' − z(x, y) · sin θ) / cos θ has x on both sides: two rounds from x = x' settle it to a fraction of a
        pixel at these angles.
        """
        x0, y0 = (
            (place - center + self.landmark_depth * np.float32(np.sin(angle))) / np.float32(np.cos(angle)) + center
            for place, center, angle in ((x, self.column, yaw), (y, self.row, pitch))
        )
        for _ in range(2):
            z = cv2.remap(self.depth, x, y, cv2.INTER_LINEAR)
            x, y = x0 - z * np.float32(np.tan(yaw)), y0 - z * np.float32(np.tan(pitch))
        return x, y

    def shading(self, x: FloatArray, y: FloatArray, *, side: float, above: float) -> FloatArray:
        """Brightness at (x, y) relative to frontal light: 1 + side · u + above · v, held within [0.25, 1.9]; (H, W)."""
        across, down = side / (_HALF_WIDTH * self.unit), _VERTICAL_LIGHT * above / (_HALF_HEIGHT * self.unit)
        constant = 1 - across * self.column - down * self.row
        return np.clip(x * np.float32(across) + y * np.float32(down) + np.float32(constant), _DARKEST, _BRIGHTEST)


@lru_cache(maxsize=8)
def generic_head(size: tuple[int, int]) -> GenericHead:
    """The head behind crops of (height, width); made once."""
    return GenericHead(size)
