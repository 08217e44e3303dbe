"""Random changes of training pictures, a whole batch at a time; the same seed and step give the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from visavis.data.augment.generic_head import generic_head
from visavis.errors import RecipeError
from visavis.opencv import cv2
from visavis.types import ByteArray, FloatArray

_LIMITS = {"rotate": 180.0, "yaw": 45.0, "pitch": 45.0, "warp": 10.0}  # 1 for the rest
_BEND = (5, 4)  # rows and columns of the displacements that a warp interpolates
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class _Bend:
    """What is done to one face: angles in radians, the light's tilt, and displacements (2, 5, 4) in template pixels."""

    yaw: float
    pitch: float
    side: float
    above: float
    moves: FloatArray


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a picture; all zero leaves it as it is.

    `flip`, `grayscale`, `random_erasing`, `low_resolution` and `blur` are probabilities. `shift` and `scale` are
    fractions of the side, `rotate` degrees, `brightness`, `contrast` and `saturation` the largest relative change. An
    erased rectangle covers up to `random_erasing_area` of the picture; a low resolution is at least
    `lowest_resolution` of the side. `random_crop` is the probability that a crop larger than the network's input is
    cut out at a random place, and not in the middle; unless it is 0 such crops are cut, never shrunk (SphereFace,
    reference-systems row S2: 116 × 100 to 112 × 96, 0.5).

    `yaw` and `pitch` turn the face as a generic head would turn, by a normal angle with half of that many degrees as
    its deviation and that many at most; `relight` tilts the light by a normal amount with two thirds of it as its
    deviation; `warp` bends the face by smooth displacements of that many pixels (standard deviation, of a crop of 112
    rows). The first three want crops aligned to the ArcFace frame or its center columns; see `generic_head`.
    """

    flip: float = 0.5
    shift: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grayscale: float = 0.0
    random_erasing: float = 0.0
    random_erasing_area: float = 0.3
    low_resolution: float = 0.0
    lowest_resolution: float = 0.3
    blur: float = 0.0
    random_crop: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    relight: float = 0.0
    warp: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            limit = _LIMITS.get(name, 1.0)
            if not 0 <= value <= limit:
                raise RecipeError(f"augment.{name} must lie in [0, {limit:g}], got {value}")

    def __call__(
        self,
        crops: ByteArray,
        rng: np.random.Generator,
        *,
        size: tuple[int, int],
        out: ByteArray | None = None,
        first: int = 0,
        total: int | None = None,
    ) -> ByteArray:
        """Change aligned crops (N, H, W, 3) and bring them to `size` = (height, width), all in one resampling.

        The crops are numbers `first` … `first` + N − 1 of a batch of `total`, and change as they do in the whole of it.
        """
        n = first + len(crops) if total is None else total
        out = np.empty((len(crops), *size, 3), np.uint8) if out is None else out[: len(crops)]
        matrices = self._geometry(rng, n, crops.shape[1:3], size)
        colors = self._color(rng, n)
        lows = np.where(rng.random(n) < self.low_resolution, rng.uniform(self.lowest_resolution, 1.0, n), 1.0)
        blurs = np.where(rng.random(n) < self.blur, rng.uniform(0.3, 1.2, n) * size[0] / 64, 0.0)
        boxes = self._boxes(rng, n, size)
        bends = self._bends(rng, n) if self.yaw or self.pitch or self.relight or self.warp else None
        rng.integers(0, 256, (int(np.count_nonzero(boxes[:first, 2])), 3))  # the colors of those before
        for place, crop in enumerate(crops):
            i, shading = first + place, None
            if bends is None:
                image = _resample(crop, matrices[i], size)
            else:
                image, shading = self._bend(crop, matrices[i], size, bends[i])
            if lows[i] < 1:
                image = _lower_resolution(image, lows[i])
            if blurs[i] > 0:
                image = cv2.GaussianBlur(image, (0, 0), float(blurs[i]))
            if colors is not None:
                image = _recolor(image, colors[i])
            if shading is not None:
                image = cv2.multiply(image, cv2.merge([shading] * 3), dtype=cv2.CV_8U)
            out[place] = image
            top, left, height, width = boxes[i]
            if height:
                out[place, top : top + height, left : left + width] = rng.integers(0, 256, 3)
        return out

    def _geometry(self, rng: np.random.Generator, n: int, source: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
        """One (2, 3) matrix a picture, from the crop's pixels to the output's: flip, rotate and scale about the center,
        shift, resize.
        """
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate, n))
        zoom = 1 + rng.uniform(-self.scale, self.scale, n)
        mirror = np.where(rng.random(n) < self.flip, -1.0, 1.0)
        height, width = size
        fit = min(source[0] / height, source[1] / width)
        shift = rng.uniform(-self.shift, self.shift, (n, 2)) * np.array([width, height])
        if self.random_crop:
            fit, slack = 1.0, np.array([source[1] - width, source[0] - height]) / 2
            if slack.min() < 0:
                raise RecipeError(
                    f"augment.random_crop wants crops of at least {height}×{width}, got {source[0]}×{source[1]}"
                )
            place = np.floor(rng.random((n, 2)) * (2 * slack + 1)) - slack
            shift += np.where(rng.random((n, 1)) < self.random_crop, place, slack % 1)
        cos, sin = np.cos(angle) * zoom / fit, np.sin(angle) * zoom / fit
        matrices = np.empty((n, 2, 3))
        matrices[:, 0, 0], matrices[:, 0, 1] = cos * mirror, -sin
        matrices[:, 1, 0], matrices[:, 1, 1] = sin * mirror, cos
        center = np.array([source[1] - 1, source[0] - 1]) / 2
        target = np.array([width - 1, height - 1]) / 2
        matrices[:, :, 2] = target + shift - matrices[:, :, :2] @ center
        return matrices

    def _bends(self, rng: np.random.Generator, n: int) -> list[_Bend]:
        """What `_bend` does to each picture."""
        angles = np.array([self.yaw, self.pitch])
        angles = np.deg2rad(np.clip(rng.normal(0, 1, (n, 2)) * angles / 2, -angles, angles))
        lights = rng.normal(0, 1, (n, 2)) * self.relight * 2 / 3
        moves = rng.normal(0, 1, (n, 2, *_BEND)) * self.warp
        return [
            _Bend(float(angle[0]), float(angle[1]), float(light[0]), float(light[1]), move.astype(np.float32))
            for angle, light, move in zip(angles, lights, moves, strict=True)
        ]

    def _bend(
        self, crop: ByteArray, matrix: np.ndarray, size: tuple[int, int], bend: _Bend
    ) -> tuple[np.ndarray, FloatArray | None]:
        """The resampled picture of a turned and warped face, and the brightness (height, width) it is to be given."""
        head = generic_head((crop.shape[0], crop.shape[1]))
        places = _grid(size) @ cv2.invertAffineTransform(matrix).astype(np.float32).T
        x, y = places[..., 0].copy(), places[..., 1].copy()
        if self.yaw or self.pitch:
            x, y = head.turned(x, y, yaw=bend.yaw, pitch=bend.pitch)
        if self.warp:
            move = [cv2.resize(m, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) * head.unit for m in bend.moves]
            x, y = x + move[0], y + move[1]
        image = cv2.remap(crop, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return image, head.shading(x, y, side=bend.side, above=bend.above) if self.relight else None

    def _color(self, rng: np.random.Generator, n: int) -> np.ndarray | None:
        """One (3, 4) matrix a picture: saturation about its luma, contrast about mid-gray, brightness."""
        if not (self.brightness or self.contrast or self.saturation or self.grayscale):
            return None
        saturation = 1 + rng.uniform(-self.saturation, self.saturation, n)
        saturation = np.where(rng.random(n) < self.grayscale, 0.0, saturation)[:, None, None]
        contrast = (1 + rng.uniform(-self.contrast, self.contrast, n))[:, None, None]
        gain = (1 + rng.uniform(-self.brightness, self.brightness, n))[:, None, None]
        mix = saturation * np.eye(3) + (1 - saturation) * _GRAY[None, None, :]
        matrices = np.empty((n, 3, 4), np.float32)
        matrices[:, :, :3] = mix * contrast * gain
        matrices[:, :, 3:] = 127.5 * (1 - contrast) * gain
        return matrices

    def _boxes(self, rng: np.random.Generator, n: int, size: tuple[int, int]) -> np.ndarray:
        """Rectangles (N, 4) as top, left, height, width; height 0 where nothing is erased."""
        area = rng.uniform(0.02, max(0.02, self.random_erasing_area), n) * size[0] * size[1]
        ratio = np.exp(rng.uniform(np.log(0.4), np.log(2.5), n))
        height = np.clip(np.sqrt(area * ratio), 1, size[0]).astype(int)
        width = np.clip(np.sqrt(area / ratio), 1, size[1]).astype(int)
        top = (rng.random(n) * (size[0] - height + 1)).astype(int)
        left = (rng.random(n) * (size[1] - width + 1)).astype(int)
        return np.column_stack([top, left, np.where(rng.random(n) < self.random_erasing, height, 0), width])


def _resample(crop: ByteArray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    flags = cv2.INTER_LINEAR
    return cv2.warpAffine(crop, matrix, (size[1], size[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=8)
def _grid(size: tuple[int, int]) -> FloatArray:
    """(height, width, 3): x, y, 1 of every pixel."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    return np.stack([columns, rows, np.ones_like(rows)], -1)


def _lower_resolution(image: np.ndarray, share: float) -> np.ndarray:
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(4, int(width * share)), max(4, int(height * share))), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _recolor(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.transform(image, matrix)  # saturates to 0..255
