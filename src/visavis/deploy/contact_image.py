"""Crops side by side with what was found, as a picture to look at: a comparison, or groups of faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.deploy.face import Verification
from visavis.files import write_atomically
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.images import encode, resize

_GREEN, _RED, _GRAY = (46, 125, 50), (183, 28, 28), (97, 97, 97)
_HEIGHT, _GAP, _FOOT = 336, 12, 72
_THUMB, _HEAD = 96, 24  # pixels: height of a face in a group, and of the line above it


def pair_sheet(result: Verification) -> ByteArray:
    """The reference's crop, the probe's crop, and verdict, similarity and threshold below; uint8 (H, W, 3) RGB."""
    crops = [_enlarged(face.crop) for face in (result.reference, result.probe)]
    width = sum(crop.shape[1] for crop in crops) + 3 * _GAP
    sheet = np.full((_HEIGHT + 2 * _GAP + _FOOT, width, 3), 255, np.uint8)
    left = _GAP
    color = {True: _GREEN, False: _RED, None: _GRAY}[result.match]
    for crop in crops:
        sheet[_GAP : _GAP + _HEIGHT, left : left + crop.shape[1]] = crop
        left += crop.shape[1] + _GAP
    sheet[_HEIGHT + 2 * _GAP : _HEIGHT + 2 * _GAP + 4] = color
    verdict = {True: "match", False: "no match", None: "undecided: not calibrated"}[result.match]
    detail = f"similarity {result.similarity:.3f}"
    detail += "" if result.threshold is None else f"   threshold {result.threshold:.3f}"
    detail += "" if result.fmr is None else f" at FMR {result.fmr:g}"
    for row, (text, size, ink) in enumerate(((verdict, 0.8, color), (detail, 0.5, (33, 33, 33)))):
        place = (_GAP, _HEIGHT + 2 * _GAP + 32 + 28 * row)
        sheet = np.asarray(
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA), np.uint8
        )
    return sheet


def write_pair(path: str | os.PathLike[str], result: Verification) -> None:
    """Write `pair_sheet` as PNG, JPEG or WebP, as the name ends."""
    target = Path(path)
    write_atomically(target, encode(pair_sheet(result), target.suffix.lower()))


def group_sheet(groups: Sequence[tuple[str, Sequence[ByteArray]]], *, columns: int = 12) -> ByteArray:
    """A row of faces under a line of text for each group; uint8 (H, W, 3) RGB, white where there is nothing.

    Args:
        groups: text (ASCII) and crops uint8 (h, w, 3) RGB, shown 96 pixels high.
        columns: faces in a row; a group of more goes on in the next.
    """
    rows = [max(1, -(-len(crops) // columns)) for _, crops in groups]
    cell = _THUMB + _GAP // 2
    height = _GAP + sum(_HEAD + n * cell + _GAP for n in rows)
    sheet = np.full((height, columns * cell + 2 * _GAP, 3), 255, np.uint8)
    top = _GAP
    for (text, crops), n in zip(groups, rows, strict=True):
        place = (_GAP, top + _HEAD - 8)
        sheet = np.asarray(
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (33, 33, 33), 1, cv2.LINE_AA), np.uint8
        )
        for i, crop in enumerate(crops):
            row, column = divmod(i, columns)
            width = min(_THUMB, round(crop.shape[1] * _THUMB / crop.shape[0]))
            y, x = top + _HEAD + row * cell, _GAP + column * cell
            sheet[y : y + _THUMB, x : x + width] = resize(crop, (_THUMB, width))
        top += _HEAD + n * cell + _GAP
    return sheet


def write_groups(path: str | os.PathLike[str], groups: Sequence[tuple[str, Sequence[ByteArray]]]) -> None:
    """Write `group_sheet` as PNG, JPEG or WebP, as the name ends; images (H, W, 3)."""
    target = Path(path)
    write_atomically(target, encode(group_sheet(groups), target.suffix.lower()))


def _enlarged(crop: ByteArray) -> ByteArray:
    width = round(crop.shape[1] * _HEIGHT / crop.shape[0])
    return np.asarray(cv2.resize(crop, (width, _HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
