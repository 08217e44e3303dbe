"""The detector a recognizer uses unless it is given one, or what a user names as KIND=FILE."""

from __future__ import annotations

from visavis.errors import DataError
from visavis.types import Detector
from visavis.vision.detection.detectors import DETECTORS, load_detector


def named_detector(text: str | None, *, threads: int = 1, min_face: int | None = None) -> Detector:
    """The detector called `mtcnn`, `yunet`, `yunet=FILE.onnx` or `scrfd=FILE.onnx`; None: see `default_detector`.

    Raises:
        DataError: no such kind.
        ModelFormatError: its weights are missing or damaged.
    """
    if text is None:
        return load_detector(threads=threads, min_face=min_face)
    kind, _, file = text.partition("=")
    if kind not in DETECTORS:
        raise DataError(f"expected a detector as {', '.join(DETECTORS)} or KIND=FILE.onnx, got {text!r}")
    return load_detector(kind, file or None, threads=threads, min_face=min_face)
