"""Two crops side by side with what was found, as a picture to look at."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from visavis.deploy.face import Verification
from visavis.models.card import write_atomically
from visavis.types import ByteArray
from visavis.vision.images import encode

_GREEN, _RED, _GREY = (46, 125, 50), (183, 28, 28), (97, 97, 97)
_HEIGHT, _GAP, _FOOT = 336, 12, 72


def pair_sheet(result: Verification) -> ByteArray:
    """The reference's crop, the probe's crop, and verdict, similarity and threshold below; uint8 (H, W, 3) RGB."""
    crops = [_enlarged(face.crop) for face in (result.reference, result.probe)]
    width = sum(crop.shape[1] for crop in crops) + 3 * _GAP
    sheet = np.full((_HEIGHT + 2 * _GAP + _FOOT, width, 3), 255, np.uint8)
    left = _GAP
    colour = {True: _GREEN, False: _RED, None: _GREY}[result.match]
    for crop in crops:
        sheet[_GAP : _GAP + _HEIGHT, left : left + crop.shape[1]] = crop
        left += crop.shape[1] + _GAP
    sheet[_HEIGHT + 2 * _GAP : _HEIGHT + 2 * _GAP + 4] = colour
    verdict = {True: "match", False: "no match", None: "undecided: not calibrated"}[result.match]
    detail = f"similarity {result.similarity:.3f}"
    detail += "" if result.threshold is None else f"   threshold {result.threshold:.3f}"
    detail += "" if result.fmr is None else f" at FMR {result.fmr:g}"
    for row, (text, size, ink) in enumerate(((verdict, 0.8, colour), (detail, 0.5, (33, 33, 33)))):
        place = (_GAP, _HEIGHT + 2 * _GAP + 32 + 28 * row)
        sheet = np.asarray(
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA), np.uint8
        )
    return sheet


def write_pair(path: str | os.PathLike[str], result: Verification) -> None:
    """Write `pair_sheet` as PNG, JPEG or WebP, as the name ends."""
    target = Path(path)
    write_atomically(target, encode(pair_sheet(result), target.suffix.lower()))


def _enlarged(crop: ByteArray) -> ByteArray:
    width = round(crop.shape[1] * _HEIGHT / crop.shape[0])
    return np.asarray(cv2.resize(crop, (width, _HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
