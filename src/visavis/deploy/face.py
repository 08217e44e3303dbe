"""A face that was found, cut out and embedded; and the comparison of two."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from visavis._moved import renamed_method
from visavis.deploy.quality import Quality
from visavis.types import ByteArray

FloatVector = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Face:
    """One face: where it is in its picture, its aligned crop, its embedding (D,) of length 1, and its quality.

    `faces_in_image` counts the faces of the picture, `turned` says by how many degrees it must be turned clockwise for
    this one to stand upright (0, 90, 180 or 270); box and landmarks are places in the picture as it came. `bbox`,
    `kps`, `det_score` and `normed_embedding` are InsightFace's.
    """

    box: FloatVector
    score: float
    landmarks: FloatVector
    crop: ByteArray
    quality: Quality
    faces_in_image: int = 1
    turned: int = 0
    embedding: FloatVector = field(default_factory=lambda: np.empty(0, np.float32))

    def with_embedding(self, embedding: FloatVector) -> Face:
        """A copy that holds its embedding."""
        return replace(self, embedding=embedding)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is poor about the face and its picture, in words; empty when all is well."""
        crowd = (
            (f"several faces: {self.faces_in_image} in the picture, the large and central one was taken",)
            if self.faces_in_image > 1
            else ()
        )
        return self.quality.reasons + crowd

    @property
    def of(self) -> int:
        """`faces_in_image`, as it was called in the release before."""
        renamed_method("Face.of", "faces_in_image")
        return self.faces_in_image

    @property
    def bbox(self) -> FloatVector:
        """Box (4,) as x1, y1, x2, y2."""
        return self.box

    @property
    def kps(self) -> FloatVector:
        """Landmarks (5, 2)."""
        return self.landmarks

    @property
    def det_score(self) -> float:
        """The detector's score."""
        return self.score

    @property
    def normed_embedding(self) -> FloatVector:
        """The embedding, which has length 1."""
        return self.embedding


@dataclass(frozen=True, eq=False)
class Verification:
    """A 1:1 comparison: the cosine similarity, and what follows from it at the calibrated threshold.

    `match`, `threshold`, `fmr` and `probability` are None where the model's card does not say; `notes` tell why.
    """

    similarity: float
    match: bool | None
    threshold: float | None
    fmr: float | None
    probability: float | None
    reference: Face
    probe: Face
    notes: tuple[str, ...] = ()

    @property
    def distance(self) -> float:
        """1 − similarity."""
        return 1 - self.similarity
