"""Whether a face is fit for recognition: measured values, a score, and reasons in words. Nothing is refused here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.alignment import align
from visavis.vision.images import resize
from visavis.vision.preprocessing import PreprocessSpec

MIN_EYES = 16.0  # pixels between the eyes; the ArcFace crop has 35, so that less is more than doubled in size
MIN_SHARPNESS = 0.02  # 99.5 % of LFW crops lie above 0.022; after a blur of σ = 2 half of them fall below 0.012
MAX_YAW, MAX_PITCH = 55.0, 40.0  # degrees
MIN_INSIDE = 0.85
MIN_CONTRAST = 14.0  # standard deviation of gray levels; 99.5 % of LFW crops lie above 30


@dataclass(frozen=True)
class Quality:
    """What was measured of one face.

    `eyes` is the distance of the eyes in pixels of the picture; `sharpness` the energy of the Laplacian relative to the
    contrast; `yaw`, `pitch` and `roll` are degrees (positive: turned to the picture's right, down, clockwise); `inside`
    is the share of the crop that the picture covers. `score` in (0, 1] weights the sample in a template; `reasons` say
    in words what is poor, none when all is well.
    """

    score: float
    reasons: tuple[str, ...]
    eyes: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    inside: float


def head_pose(landmarks: npt.ArrayLike) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees from the five landmarks (5, 2), by a scaled orthographic fit.

        min over M, t of Σ ‖M·Pᵢ + t − xᵢ‖²,   M (2 × 3) ≈ s·(r₁; r₂),   r₃ = r₁ × r₂,   R = R_z·R_x·R_y

    P is a mean face, in eye distances: x and y as MTCNN and YuNet find them in the median of 813 photographs of LFW,
    the nose tip 0.55 and the mouth corners 0.1 before the eyes. On these the median pitch is −0.7° by MTCNN's points
    and +1.2° by YuNet's; about the ArcFace template, whose mouth is lower, it was +6.0 and +8.0. As P is one face for
    all, a single estimate is off by some 5 to 10 degrees.
    """
    points = np.asarray(landmarks, np.float64)
    model = _MEAN_FACE - _MEAN_FACE.mean(0)
    m = np.linalg.lstsq(model, points - points.mean(0), rcond=None)[0].T
    scale = (np.linalg.norm(m[0]) + np.linalg.norm(m[1])) / 2
    if not math.isfinite(scale) or scale < 1e-9:
        return 90.0, 90.0, 0.0
    u, _, vt = np.linalg.svd(m, full_matrices=False)
    r1, r2 = u @ vt
    r3 = np.cross(r1, r2)
    yaw = math.degrees(math.atan2(-r3[0], r3[2]))
    pitch = math.degrees(math.asin(float(np.clip(-r3[1], -1, 1))))
    return yaw, pitch, math.degrees(math.atan2(-r1[1], r2[1]))


_MEAN_FACE = np.array(
    [[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.570, 0.55], [-0.431, 1.043, 0.1], [0.431, 1.043, 0.1]]
)


def sharpness(crop: ByteArray) -> float:
    """Mean squared Laplacian over the variance of gray, of the crop at 112 pixels height, without its border.

    Shapes: (H, W, 3).

    A blurred crop has little of it, a noisy one much; contrast cancels.
    """
    height = 112
    small = resize(crop, (height, round(crop.shape[1] * height / crop.shape[0])))
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[16:-16, 16:-16].astype(np.float32)
    variance = float(gray.var())
    if variance < 1:
        return 0.0
    return float(np.square(cv2.Laplacian(gray, cv2.CV_32F)).mean()) / variance


def judged_crop(image: ByteArray, landmarks: npt.ArrayLike, crop: ByteArray, spec: PreprocessSpec) -> ByteArray:
    """The crop (112, 112, 3) that sharpness and contrast of a face are measured on: one for all models.

    A model's own crop may be smaller, and enlarged again it is blurred, or larger, and blurred where the face is small:
    the same photograph would be fine for one model and blurred for another.

    Args:
        image: the photograph.
        landmarks: (5, 2) in it.
        crop: the model's own, taken where it is that very crop.
        spec: how that was made.
    """
    if (spec.size, spec.template, spec.antialias) == ((112, 112), "arcface", "box"):
        return crop
    return align(image, np.asarray(landmarks), template="arcface", size=(112, 112), antialias="box")


def assess(
    crop: ByteArray, landmarks: npt.ArrayLike | None, *, shape: tuple[int, int] | None = None, score: float = 1.0
) -> Quality:
    """Judge one face.

    Args:
        crop: the aligned crop, uint8 (H, W, 3) RGB; of a photograph that of `judged_crop`.
        landmarks: (5, 2) in the picture; None for a crop that came aligned: size and pose are then unknown and pass.
        shape: (height, width) of the picture, to tell a face cut off by its edge.
        score: the detector's, in [0, 1].
    """
    reasons: list[str] = []
    eyes, yaw, pitch, roll, inside = math.nan, 0.0, 0.0, 0.0, 1.0
    factors = [max(0.05, min(1.0, score))]
    if landmarks is not None:
        points = np.asarray(landmarks, np.float64)
        eyes = float(np.linalg.norm(points[1] - points[0]))
        mouth = float(np.linalg.norm((points[3] + points[4]) / 2 - (points[0] + points[1]) / 2))
        extent = max(eyes, mouth * 0.86)  # a profile's eyes are close together, its face is not small
        yaw, pitch, roll = head_pose(points)
        if extent < MIN_EYES:
            reasons.append(f"face too small: {extent:.0f} pixels between the eyes, at least {MIN_EYES:.0f} wanted")
        if abs(yaw) > MAX_YAW or abs(pitch) > MAX_PITCH:
            turned = f"turned about {abs(yaw):.0f}° aside" if abs(yaw) > MAX_YAW else f"tilted about {abs(pitch):.0f}°"
            reasons.append(f"extreme pose: {turned}")
        if shape is not None:
            inside = _inside(points, extent, shape)
            if inside < MIN_INSIDE:
                reasons.append(f"cut off: {100 * (1 - inside):.0f} % of the face lies outside the picture")
        factors += [
            min(1.0, extent / 35) ** 0.5,
            max(0.05, math.cos(math.radians(min(85, abs(yaw))))),
            max(0.05, inside),
        ]
    grain = sharpness(crop)
    if grain < MIN_SHARPNESS:
        reasons.append(f"blurred: sharpness {grain:.3f}, at least {MIN_SHARPNESS} wanted")
    factors.append(max(0.05, min(1.0, grain / (4 * MIN_SHARPNESS))) ** 0.5)
    contrast = float(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).std())
    if contrast < MIN_CONTRAST:
        reasons.append(f"little contrast: {contrast:.0f} gray levels, at least {MIN_CONTRAST:.0f} wanted")
    factors.append(max(0.05, min(1.0, contrast / MIN_CONTRAST)))
    return Quality(
        score=max(0.01, math.prod(factors)),
        reasons=tuple(reasons),
        eyes=eyes,
        sharpness=grain,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        inside=inside,
    )


def _inside(points: npt.NDArray[np.float64], extent: float, shape: tuple[int, int]) -> float:
    """Share of the square that the crop covers (3.2 eye distances wide) lying inside the picture."""
    center, half = points.mean(0), 1.3 * extent
    low = np.maximum(center - half, -0.5)
    high = np.minimum(center + half, np.array([shape[1], shape[0]]) - 0.5)
    return float(np.prod(np.maximum(0, high - low)) / (2 * half) ** 2)
