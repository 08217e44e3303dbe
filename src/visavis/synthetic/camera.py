"""What lies behind the head and what the camera does to the light: exposure, color, blur, noise, JPEG, few pixels."""

from __future__ import annotations

import numpy as np

from visavis.opencv import cv2
from visavis.synthetic.conditions import Conditions
from visavis.synthetic.identity import Map
from visavis.types import ByteArray


def background(rng: np.random.Generator, shape: tuple[int, int]) -> Map:
    """A blurred room, street or wall, linear light (H, W, 3)."""
    height, width = shape
    cells = int(rng.integers(2, 9))
    level = rng.uniform(0.03, 0.5)
    grid = rng.uniform(0.3, 1.7, (cells, cells, 1)) * rng.uniform(0.7, 1.3, (cells, cells, 3)) * level
    image = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 7))):
        corner = rng.uniform(-0.2, 1.0, 2) * (width, height)
        extent = rng.uniform(0.08, 0.8, 2) * (width, height)
        color = rng.uniform(0.0, 0.8, 3)
        low, high = corner.astype(int), (corner + extent).astype(int)
        if rng.random() < 0.6:
            cv2.rectangle(image, low.tolist(), high.tolist(), color.tolist(), -1)
        else:
            cv2.circle(image, low.tolist(), int(extent.min() / 2), color.tolist(), -1)
    blur = float(rng.uniform(0.4, 5.0)) * width / 112
    return np.clip(cv2.GaussianBlur(image, (0, 0), blur), 0, 1)


def develop(lit: Map, conditions: Conditions, rng: np.random.Generator, scale: float) -> ByteArray:
    """Linear light to a uint8 picture; `scale` is pixels per pixel of a 112-pixel crop; (H, W, 3)."""
    height, width = lit.shape[:2]
    if conditions.resolution < 1:
        small = (max(8, round(width * conditions.resolution)), max(8, round(height * conditions.resolution)))
        lit = cv2.resize(lit, small, interpolation=cv2.INTER_AREA)
        scale *= conditions.resolution
    if conditions.blur * scale > 0.3:
        lit = cv2.GaussianBlur(lit, (0, 0), conditions.blur * scale)
    if conditions.motion[0] * scale > 1:
        lit = cv2.filter2D(lit, -1, _streak(conditions.motion[0] * scale, conditions.motion[1]))
    image = np.maximum(lit * (conditions.tint * np.float32(conditions.exposure)), 0)
    cv2.pow(image, 0.45 * conditions.gamma, image)
    image = (image - np.float32(0.45)) * np.float32(255 * conditions.contrast) + np.float32(115)
    if conditions.noise > 0.5:
        image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(conditions.noise)
    done = np.clip(image, 0, 255).astype(np.uint8)
    if conditions.resolution < 1:
        done = cv2.resize(done, (width, height), interpolation=cv2.INTER_LINEAR)
    packed = cv2.imencode(".jpg", done, [cv2.IMWRITE_JPEG_QUALITY, conditions.quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def _streak(length: float, angle: float) -> Map:
    """The kernel of a camera that moved while it looked."""
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    middle = (size - 1) / 2
    reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = np.round((np.array([[middle, middle]]) + np.array([reach, -reach])) * 16).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_8, 4)
    kernel[size // 2, size // 2] += 1e-3
    return kernel / kernel.sum()
