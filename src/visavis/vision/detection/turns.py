"""Pictures that lie on their side or stand on their head: which way up a face is, and where in the picture as given.

A detector trained on upright faces finds some of those that are not, and puts their eyes where the mouth is: the crop
is then a stranger's, and nothing says so. Its score tells. Of 813 photographs of LFW the large and central face has
0.997 and more upright in 97.7 %, and in 0.7 % of the other three turns; YuNet gives 0.919 and more upright and 0.913
and less otherwise (every sixth of them).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, unknown_name
from visavis.types import ByteArray, Detector, Faces
from visavis.vision.detection.detectors import UprightScores, choose
from visavis.vision.images import resize

if TYPE_CHECKING:
    from jaxtyping import UInt8

Turn = Literal["auto", "never", "always"]
TURNS: tuple[Turn, ...] = ("auto", "never", "always")
LEVEL = 35.0  # degrees the line of the eyes may lean before a face is doubted
UNTOLD = UprightScores(sure=0.997, better=1.0, least=3.5)  # of a detector that does not say: MTCNN's
_LOOK = 500_000  # pixels a picture is reduced to for the looks at its other turns


def detect_turned(detector: Detector, image: UInt8[ByteArray, "H W 3"], *, turn: Turn = "auto") -> tuple[Faces, int]:
    """Find the faces of a picture, whichever way up it is.

    Args:
        detector: finds upright faces.
        image: uint8 (H, W, 3) RGB.
        turn: `auto` looks at the other three turns when no face is found, or the one the picture is about is doubtful
            (its score is below what the detector's `upright_scores` say, 0.997 for MTCNN and 0.915 for YuNet, or its
            eyes lean by more than 35°); `always` looks at them in any case; `never`
            does not.

    Returns:
        The faces, in coordinates of `image` as it is, and by how many degrees (0, 90, 180 or 270) it must be turned
        clockwise to stand upright.

    Raises:
        DataError: no such `turn`.
    """
    if turn not in TURNS:
        raise DataError(unknown_name("turn", turn, TURNS))
    faces = detector.detect(image)
    scores: UprightScores = getattr(detector, "upright_scores", UNTOLD)
    if turn == "never" or (turn == "auto" and not _doubtful(faces, image.shape, scores.sure)):
        return faces, 0
    small = _reduced(image)
    looks = [(_logit(faces, image.shape) + scores.better, 0)]
    for quarters in (1, 2, 3):  # of a turn, counter-clockwise
        turned = np.ascontiguousarray(np.rot90(small, quarters))
        looks.append((_logit(detector.detect(turned), turned.shape), quarters))
    odds, best = max(looks)
    if not best or odds < scores.least:
        return faces, 0
    turned = np.ascontiguousarray(np.rot90(image, best))
    found = detector.detect(turned)
    if not len(found):
        return faces, 0
    return turned_back(found, image.shape, best), 360 - 90 * best


def turned_back(faces: Faces, shape: tuple[int, ...], quarters: int) -> Faces:
    """Faces found in `np.rot90(image, quarters)` as places in `image` of `shape` (H, W, ...)."""
    corners = _back(faces.boxes.reshape(-1, 2, 2), shape, quarters)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return Faces(boxes, faces.scores, _back(faces.landmarks, shape, quarters))


def _back(points: npt.NDArray[np.float32], shape: tuple[int, ...], quarters: int) -> npt.NDArray[np.float32]:
    x, y = points[..., 0], points[..., 1]
    right, bottom = np.float32(shape[1] - 1), np.float32(shape[0] - 1)
    places = {0: (x, y), 1: (right - y, x), 2: (right - x, bottom - y), 3: (y, bottom - x)}
    return np.stack(places[quarters % 4], axis=-1)


def _doubtful(faces: Faces, shape: tuple[int, ...], sure: float) -> bool:
    if not len(faces):
        return True
    face = choose(faces, shape)
    across = faces.landmarks[face, 1] - faces.landmarks[face, 0]
    return bool(faces.scores[face] < sure or abs(math.degrees(math.atan2(across[1], across[0]))) > LEVEL)


def _logit(faces: Faces, shape: tuple[int, ...]) -> float:
    """Log odds of the score of the face a picture is about; −∞ without a face, or when its eyes lean."""
    if not len(faces):
        return -math.inf
    face = choose(faces, shape)
    across = faces.landmarks[face, 1] - faces.landmarks[face, 0]
    score = float(np.clip(faces.scores[face], 1e-6, 1 - 1e-6))
    leaning = abs(math.degrees(math.atan2(across[1], across[0]))) > LEVEL
    return math.log(score / (1 - score)) - (20.0 if leaning else 0.0)


def _reduced(image: ByteArray) -> ByteArray:
    pixels = image.shape[0] * image.shape[1]
    if pixels <= _LOOK:
        return image
    scale = math.sqrt(_LOOK / pixels)
    return resize(image, (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))
