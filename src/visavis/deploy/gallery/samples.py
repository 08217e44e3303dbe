"""What is enrolled at once, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.index import unit_vectors
from visavis.deploy.gallery.records import SourceFile
from visavis.errors import DataError

# From which similarity two samples are of one picture: another CPU or runtime moves a crop by fractions of a pixel,
# which moves the embedding by less.
SAME_IMAGE = 0.9999


@dataclass(frozen=True)
class Samples:
    """What is enrolled at once: unit vectors (n, D) and for each a weight, a mark of its picture, a crop, its file.

    `rated` says whether the weights are qualities, or 1 because nobody judged.
    """

    vectors: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    marks: Sequence[bytes | None]
    crops: Sequence[bytes | None]
    sources: Sequence[SourceFile | None]
    rated: bool

    @classmethod
    def checked(
        cls,
        dim: int,
        embeddings: npt.ArrayLike,
        weights: npt.ArrayLike | None,
        images: Sequence[bytes | None] | None,
        crops: Sequence[bytes | None] | None,
        sources: Sequence[SourceFile | None] | None = None,
    ) -> Samples:
        """The arguments of `enroll`, or a DataError that says what does not fit."""
        vectors = unit_vectors(embeddings, dim)
        n = len(vectors)
        quality = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        marks, kept, files = images or [None] * n, crops or [None] * n, sources or [None] * n
        fits = quality.shape == (n,) and len(marks) == len(kept) == len(files) == n
        if n == 0 or not fits or not (np.isfinite(quality) & (quality > 0)).all():
            raise DataError(
                "enrolling wants one finite positive weight, picture, crop and source for each of 1 or more samples, "
                f"got {n}"
            )
        return cls(vectors, quality, marks, kept, files, weights is not None)
