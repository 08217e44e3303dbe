"""Whether pictures given as aligned crops are photographs: measured by looking where their faces lie."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from visavis.errors import DataError, ModelFormatError, VisavisError
from visavis.opencv import cv2
from visavis.types import ByteArray, Detector
from visavis.vision.alignment import estimate_similarity
from visavis.vision.detection.detectors import choose, load_detector
from visavis.vision.preprocessing import PreprocessSpec, fit_crop

log = logging.getLogger(__name__)
_LOOKED_AT = 9
_ENLARGED = 2  # crops are small beside what a detector is made for
_MARGIN = 0.5  # of the crop's side, around it: a face that fills the picture is not found
_SCALE, _SHIFT = (0.75, 1.33), 0.2


def look_like_photographs(
    images: Callable[[str], ByteArray],
    names: Sequence[str],
    spec: PreprocessSpec,
    *,
    detector: Detector | None = None,
) -> bool:
    """Whether the faces of some of the pictures do not lie where crops of the spec's template have theirs.

    Each picture is cut to the network's input as it would be for the network; in the median of the faces found, the
    similarity onto the template then scales by 0.75 to 1.33 and moves by at most a fifth of the side for aligned crops.

    Args:
        images: name -> picture, uint8 (H, W, 3) RGB.
        names: the pictures; nine of them, evenly spread, are looked at. Pictures of exactly the network's size are
            taken for crops unlooked at.
        spec: of the model that would be given them.
        detector: MTCNN when None; without its weights nothing is looked at.

    Returns:
        False too where nothing could be measured: no detector, no face found in most of them.
    """
    places = np.unique(np.linspace(0, len(names) - 1, _LOOKED_AT).astype(int)).tolist()
    looked_at = [str(names[place]) for place in places]
    crops = []
    for name in looked_at:
        try:
            image = images(name)
            if image.shape[:2] != spec.size:
                crops.append(fit_crop(image, spec))
        except VisavisError:
            continue  # whoever uses the pictures says what is wrong with them, or cuts them itself
    if not crops:
        return False
    try:
        found = detector or load_detector("mtcnn")
    except (DataError, ModelFormatError):
        return False
    misfits = [misfit for misfit in (_misfit(crop, spec, found) for crop in crops) if misfit is not None]
    if len(misfits) < max(1, len(crops) // 2):
        return False
    scale, shift = np.median(misfits, axis=0)
    return bool(not _SCALE[0] <= scale <= _SCALE[1] or shift > _SHIFT)


def warn_of_photographs(images: Callable[[str], ByteArray], names: Sequence[str], spec: PreprocessSpec | None) -> bool:
    """Say it once, with what to type, where they look like photographs; returns whether they do.

    Shapes: images (H, W, 3).

    An embedder without a spec (a test's, say) says nothing of how its crops lie, so nothing is measured.
    """
    photographs = spec is not None and look_like_photographs(images, names, spec)
    if photographs and spec is not None:
        log.warning(
            "these look like photographs, not like aligned crops of %d×%d, and are taken as they are; "
            "detect and align them first: visavis prepare SRC DST",
            *spec.size,
        )
    return photographs


def _misfit(crop: ByteArray, spec: PreprocessSpec, detector: Detector) -> tuple[float, float] | None:
    """Scale, and shift as a share of the crop's height, of the similarity from the face found onto the template."""
    height, width = crop.shape[:2]
    top, side = round(height * _MARGIN), round(width * _MARGIN)
    framed = cv2.copyMakeBorder(crop, top, top, side, side, cv2.BORDER_REPLICATE)
    enlarged = cv2.resize(framed, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_LINEAR)
    faces = detector.detect(np.asarray(enlarged, np.uint8))
    if not len(faces):
        return None
    best = choose(faces, enlarged.shape)
    landmarks = np.asarray(faces.landmarks[best], np.float64) / _ENLARGED - (side, top)
    template = spec.frame
    points = np.asarray(template.points, np.float64) * (height / template.size[0], height / template.size[0])
    points[:, 0] += (width - template.size[1] * height / template.size[0]) / 2
    matrix = estimate_similarity(landmarks, points)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return scale, float(np.linalg.norm(points.mean(0) - landmarks.mean(0)) / height)
