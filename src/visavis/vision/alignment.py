"""The five-point alignment: the templates, typed once, and the similarity warp onto them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, unknown_name
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.images import resize

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

Antialias = Literal["none", "area", "box"]
Fit = Literal["crop", "image"]
Points = tuple[tuple[float, float], ...]

# Left eye, right eye, nose tip, left and right mouth corner, in pixels of a 112 × 112 crop (as in insightface).
_ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


@dataclass(frozen=True)
class Template:
    """Where the five landmarks of an aligned face lie: `points` (5, 2) as x, y in a frame of `size` (height, width)."""

    name: str
    size: tuple[int, int]
    points: npt.NDArray[np.float64]
    column: int | None = 0  # where the frame begins in the square 112 × 112 ArcFace crop; None: it is no part of one


def _arcface_columns(name: str, width: int, *, column: int | None = None) -> Template:
    """The center `width` columns of the ArcFace frame, kept at `column` of square crops (the center when None)."""
    points = np.array(_ARCFACE_POINTS)
    points[:, 0] -= (112 - width) / 2
    return Template(name, (112, width), points, (112 - width) // 2 if column is None else column)


TEMPLATES = {
    "arcface": _arcface_columns("arcface", 112),
    "sphereface": _arcface_columns("sphereface", 96),  # reference-systems row S2: the same points, x − 8
}
# Named by model folders and one recipe of the benchmarks, not offered: crops made by warping those 96-wide points
# into a 112-wide picture, so that the face lies 8 pixels left of the center.
FORMER_TEMPLATES = {"sphereface-left": _arcface_columns("sphereface-left", 96, column=0)}


def get_template(template: str | Sequence[Sequence[float]], size: tuple[int, int] = (112, 112)) -> Template:
    """A template by its name in `TEMPLATES`, or from its five points (5, 2), x and y in a crop of `size`.

    Raises:
        DataError: unknown name, or not five finite points that differ.
    """
    if isinstance(template, str):
        known = TEMPLATES | FORMER_TEMPLATES
        if template not in known:
            raise DataError(unknown_name("template", template, TEMPLATES))
        return known[template]
    return Template("five points", size, np.array(five_points(template)), None)


def five_points(values: object) -> Points:
    """Check five landmarks, x and y in pixels: left eye, right eye, nose tip, left and right mouth corner.

    Raises:
        DataError: not five pairs of finite numbers, or eyes that coincide.
    """
    try:
        points = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a template is a name or five points [x, y], got {values!r}") from error
    if points.shape != (5, 2) or not np.isfinite(points).all() or np.abs(points).max() > 4096:
        raise DataError(f"a template's five points are five pairs [x, y] in pixels of the crop, got {values!r}")
    if np.hypot(*(points[1] - points[0])) < 1:
        raise DataError(f"a template's eyes must lie a pixel apart at least, got {values!r}")
    return tuple((float(x), float(y)) for x, y in points)


def implausible(landmarks: npt.ArrayLike, shape: tuple[int, ...]) -> str | None:
    """Why five landmarks (5, 2), x and y, cannot be those of a face in a picture of `shape`; None where they can.

    Outside means that their mean lies outside the picture, or fewer than three of them in it: a crop would be empty.
    Left and right are exchanged where the mouth lies above the line of the eyes as the face sees it, which no turn in
    the plane does.
    """
    points = np.asarray(landmarks, np.float64)
    height, width = shape[:2]
    inside = ((points >= 0) & (points < (width, height))).all(axis=1)
    middle = points.mean(axis=0)
    if inside.sum() < 3 or not (0 <= middle[0] < width and 0 <= middle[1] < height):
        return f"landmarks outside the picture of {width}×{height}: around x {middle[0]:.0f}, y {middle[1]:.0f}"
    eyes, mouth = points[1] - points[0], points[3:].mean(axis=0) - points[:2].mean(axis=0)
    if eyes[0] * mouth[1] - eyes[1] * mouth[0] <= 0:
        return "left and right eye are exchanged, or the landmarks are in another order"
    return None


def template_points(
    template: str | Sequence[Sequence[float]], size: tuple[int, int], *, padding: float = 0.0
) -> npt.NDArray[np.float64]:
    """The template's points (5, 2) scaled to a crop of `size` = (height, width) with `padding` template pixels around.

    A pixel's center has integer coordinates, so scaling by s maps x to (x + ½)·s − ½. Five points given as such are
    those of the crop without its padding.
    """
    bare = (round(size[0] - 2 * padding), round(size[1] - 2 * padding))
    found = get_template(template, bare)
    frame = np.array([found.size[1], found.size[0]], float) + 2 * padding
    scale = np.array([size[1], size[0]], float) / frame
    return (found.points + padding + 0.5) * scale - 0.5


def fit_similarity(
    source: npt.ArrayLike, target: npt.ArrayLike, fit: Fit = "crop"
) -> Float[npt.NDArray[np.float64], "2 3"]:
    """The similarity (2, 3) of `source` onto `target` points (N, 2) with the least squared error in the crop or image.

    `image` is what MATLAB's cp2tform (row S2) does: it estimates the map from the target to the source and inverts it,
    so that errors count in pixels of the picture. Of noisy landmarks that map is another one, of a larger scale.
    """
    if fit == "crop":
        return estimate_similarity(source, target)
    back = np.vstack([estimate_similarity(target, source), [0.0, 0.0, 1.0]])
    return np.linalg.inv(back)[:2]


def estimate_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> Float[npt.NDArray[np.float64], "2 3"]:
    """The similarity (2, 3) that maps `source` points (N, 2) onto `target` (N, 2) with least squared error.

        min over s, R, t of Σ ‖s·R·x_i + t − y_i‖²,  R a rotation (never a reflection)

    Umeyama, IEEE TPAMI 13(4), 1991, equations 40–42.

    Raises:
        DataError: the points are not finite or all coincide, so that no similarity is determined.
    """
    x, y = np.asarray(source, float), np.asarray(target, float)
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 2 or len(x) < 2:
        raise DataError(f"alignment wants two equal lists of at least 2 points, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("alignment wants finite landmarks, got NaN or infinity")
    x_mean, y_mean = x.mean(0), y.mean(0)
    x_centered, y_centered = x - x_mean, y - y_mean
    variance = (x_centered**2).sum() / len(x)
    if variance < 1e-12:
        raise DataError("alignment wants landmarks that differ, got one point for all")
    u, singular, vt = np.linalg.svd(y_centered.T @ x_centered / len(x))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * signs) @ vt
    scale = (singular * signs).sum() / variance
    return np.column_stack([scale * rotation, y_mean - scale * rotation @ x_mean])


def align(
    image: UInt8[ByteArray, "H W 3"],
    landmarks: npt.ArrayLike,
    *,
    template: str | Sequence[Sequence[float]] = "arcface",
    size: tuple[int, int] | None = None,
    padding: float = 0.0,
    antialias: Antialias = "none",
    fit: Fit = "crop",
) -> UInt8[ByteArray, "h w 3"]:
    """Warp a face onto a template with bilinear sampling.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (5, 2) as x, y in pixels of `image`.
        template: name in `TEMPLATES`, or five points in a crop of `size`.
        size: (height, width) of the crop; the template's own when None.
        padding: template pixels kept around the frame (SphereFace trains on 2: the 100 × 116 crop, row S2).
        antialias: bilinear sampling reads four pixels, so below half size it misses most of them and aliases. `box`
            first averages k × k pixels, k the whole part of the face's size over the crop's (PIL's `reduce`); `area`
            averages to the crop's very scale, and so blurs twice; `none` samples whatever the scale.
        fit: where the landmarks' error is least; see `fit_similarity`.

    Returns:
        uint8 (height, width, 3) RGB; black where the picture ends.
    """
    if size is None:
        base = get_template(template).size
        size = (round(base[0] + 2 * padding), round(base[1] + 2 * padding))
    target = template_points(template, size, padding=padding)
    points = np.asarray(landmarks, np.float64)
    matrix = fit_similarity(points, target, fit)
    if antialias != "none":
        image, points = _averaged(image, points, matrix, size, whole=antialias == "box")
        matrix = fit_similarity(points, target, fit)
    return np.asarray(cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR), np.uint8)


def _averaged(
    image: ByteArray,
    points: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],
    size: tuple[int, int],
    *,
    whole: bool,
) -> tuple[ByteArray, npt.NDArray[np.float64]]:
    """The part of a picture a crop shows, averaged down to the crop's scale, and the landmarks in it.

    With `whole`, by the greatest whole number of pixels a side that leaves it no smaller than the crop.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    factor = int(1 / scale + 1e-6)
    if factor < 2 or (scale >= 0.5 and not whole):
        return image, points
    corners = np.array([[0, 0], [size[1], 0], [0, size[0]], [size[1], size[0]]], float) - 0.5
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    covered = corners @ inverse[:, :2].T + inverse[:, 2]
    margin = 2 / scale
    low = np.maximum(np.floor(covered.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(covered.max(0) + margin), [image.shape[1], image.shape[0]]).astype(int)
    if (high - low < 2).any():
        return image, points
    part = image[low[1] : high[1], low[0] : high[0]]
    if whole:
        right, bottom = -(high - low) % factor
        part = np.asarray(cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        fresh = (high - low + [right, bottom]) // factor
        ratio = np.full(2, 1 / factor)
    else:
        fresh = np.maximum(((high - low) * scale).round(), 1).astype(int)
        ratio = fresh / (high - low)
    moved = (points - low + 0.5) * ratio - 0.5
    return resize(np.ascontiguousarray(part), (int(fresh[1]), int(fresh[0]))), moved
