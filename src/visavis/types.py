"""The nouns every room shares: NumPy only, frozen, no behavior beyond checking their own shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]


def json_object(value: object) -> dict[str, Any] | None:
    """What was read from JSON as an object with its keys; None if it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


@runtime_checkable
class Embedder(Protocol):
    """Turns aligned crops into unit vectors; a checkpoint, an ONNX file and a fake in a test look the same."""

    @property
    def dim(self) -> int:
        """Length D of an embedding."""
        ...

    def embed(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """Embed uint8 crops (N, H, W, 3), RGB, as float32 (N, D) with rows of length 1."""
        ...


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, best first: boxes (N, 4) as x1, y1, x2, y2; scores (N,); landmarks (N, 5, 2) as x, y.

    The five points are left eye, right eye, nose tip, left and right mouth corner as seen in the picture.
    All coordinates are pixels with (0, 0) the center of the first pixel.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or self.landmarks.shape != (n, 5, 2):
            raise DataError(
                f"Faces want boxes (N, 4), scores (N,) and landmarks (N, 5, 2), got "
                f"{self.boxes.shape}, {self.scores.shape} and {self.landmarks.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)


class Detector(Protocol):
    """Finds faces with their five landmarks in one picture."""

    def detect(self, image: ByteArray) -> Faces:
        """Find the faces of a uint8 (H, W, 3) RGB picture."""
        ...


@dataclass(frozen=True)
class Pairs:
    """A 1:1 protocol: comparison i sets image `reference[i]` against image `probe[i]` in fold `fold[i]`.

    `images` names every picture once; reference and probe are indices into it, so that each is embedded once.
    """

    images: tuple[str, ...]
    reference: IntArray
    probe: IntArray
    genuine: BoolArray
    fold: IntArray

    def __post_init__(self) -> None:
        shapes = {self.reference.shape, self.probe.shape, self.genuine.shape, self.fold.shape}
        if len(shapes) != 1 or self.reference.ndim != 1:
            raise DataError(f"Pairs want four vectors of one length, got shapes {sorted(shapes)}")
        if len(self.reference) and max(self.reference.max(), self.probe.max()) >= len(self.images):
            raise DataError(f"a pair points past the {len(self.images)} images of its list")

    def __len__(self) -> int:
        return len(self.reference)


@dataclass(frozen=True)
class Triplets:
    """Indices of anchors, positives and negatives, each (T,); T may be 0."""

    anchor: IntArray
    positive: IntArray
    negative: IntArray

    def __len__(self) -> int:
        return len(self.anchor)
