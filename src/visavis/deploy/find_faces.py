"""The faces of a picture: found, cut out and judged, not yet embedded."""

from __future__ import annotations

import numpy as np

from visavis.deploy.face import Face
from visavis.deploy.quality import assess, judged_crop
from visavis.types import Detector, Faces
from visavis.vision.alignment import align
from visavis.vision.detection.detectors import choose
from visavis.vision.detection.turns import Turn, detect_turned
from visavis.vision.images import ReducedImage
from visavis.vision.preprocessing import PreprocessSpec


def find_faces(
    image: ReducedImage, detector: Detector, spec: PreprocessSpec, *, turn: Turn = "auto", max_faces: int
) -> list[Face]:
    """All faces of a picture: first the one it is about, then by size.

    Args:
        image: the picture, perhaps decoded reduced; places are given in the whole one.
        detector: finds them.
        spec: of their crops.
        turn: whether the picture is looked at turned; see `detect_turned`.
        max_faces: at most so many.

    Returns:
        [] when there is none.
    """
    faces, turned = detect_turned(detector, image.pixels, turn=turn)
    boxes = faces.boxes
    if not len(faces):
        return []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    area[choose(faces, image.pixels.shape)] = np.inf
    return [_face(image, faces, int(i), spec, turned) for i in np.argsort(-area, kind="stable")[:max_faces]]


def _face(image: ReducedImage, faces: Faces, i: int, spec: PreprocessSpec, turned: int) -> Face:
    pixels, landmarks, score = image.pixels, faces.landmarks[i], float(faces.scores[i])
    crop = align(pixels, landmarks, template=spec.template, size=spec.size, antialias=spec.antialias)
    seen = judged_crop(pixels, landmarks, crop, spec)
    quality = assess(seen, landmarks, shape=(pixels.shape[0], pixels.shape[1]), score=score)
    box, landmarks = image.whole(faces.boxes[i]), image.whole(landmarks)
    return Face(
        box=box, score=score, landmarks=landmarks, crop=crop, quality=quality, faces_in_image=len(faces), turned=turned
    )
