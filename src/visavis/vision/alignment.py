"""The five-point alignment: the templates, typed once, and the similarity warp onto them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, unknown_name
from visavis.types import ByteArray

# Left eye, right eye, nose tip, left and right mouth corner, in pixels of a 112 × 112 crop (as in insightface).
_ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


@dataclass(frozen=True)
class Template:
    """Where the five landmarks of an aligned face lie: `points` (5, 2) as x, y in a frame of `size` (height, width)."""

    name: str
    size: tuple[int, int]
    points: npt.NDArray[np.float64]
    column: int = 0  # where the frame begins in the square 112 × 112 crop it is usually kept in


def _arcface_columns(name: str, width: int, *, column: int | None = None) -> Template:
    """The centre `width` columns of the ArcFace frame, kept at `column` of square crops (the centre when None)."""
    points = np.array(_ARCFACE_POINTS)
    points[:, 0] -= (112 - width) / 2
    return Template(name, (112, width), points, (112 - width) // 2 if column is None else column)


TEMPLATES = {
    "arcface": _arcface_columns("arcface", 112),
    "sphereface": _arcface_columns("sphereface", 96),  # reference-systems row S2: the same points, x − 8
    # Crops made by warping those 96-wide points into a 112-wide picture: the face lies 8 pixels left of the centre.
    "sphereface-left": _arcface_columns("sphereface-left", 96, column=0),
}


def get_template(name: str) -> Template:
    """Look a template up by name."""
    if name not in TEMPLATES:
        raise DataError(unknown_name("template", name, TEMPLATES))
    return TEMPLATES[name]


def template_points(name: str, size: tuple[int, int], *, padding: float = 0.0) -> npt.NDArray[np.float64]:
    """The template's points (5, 2) scaled to a crop of `size` = (height, width) with `padding` template pixels around.

    A pixel's centre has integer coordinates, so scaling by s maps x to (x + ½)·s − ½.
    """
    template = get_template(name)
    frame = np.array([template.size[1], template.size[0]], float) + 2 * padding
    scale = np.array([size[1], size[0]], float) / frame
    return (template.points + padding + 0.5) * scale - 0.5


def estimate_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> npt.NDArray[np.float64]:
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
    x_centred, y_centred = x - x_mean, y - y_mean
    variance = (x_centred**2).sum() / len(x)
    if variance < 1e-12:
        raise DataError("alignment wants landmarks that differ, got one point for all")
    u, singular, vt = np.linalg.svd(y_centred.T @ x_centred / len(x))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * signs) @ vt
    scale = (singular * signs).sum() / variance
    return np.column_stack([scale * rotation, y_mean - scale * rotation @ x_mean])


def align(
    image: ByteArray,
    landmarks: npt.ArrayLike,
    *,
    template: str = "arcface",
    size: tuple[int, int] | None = None,
    padding: float = 0.0,
) -> ByteArray:
    """Warp a face onto a template.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (5, 2) as x, y in pixels of `image`.
        template: name in `TEMPLATES`.
        size: (height, width) of the crop; the template's own when None.
        padding: template pixels kept around the frame (SphereFace trains on 2: the 100 × 116 crop, row S2).

    Returns:
        uint8 (height, width, 3) RGB; black where the picture ends.
    """
    base = get_template(template).size
    height, width = size or (round(base[0] + 2 * padding), round(base[1] + 2 * padding))
    matrix = estimate_similarity(landmarks, template_points(template, (height, width), padding=padding))
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)
