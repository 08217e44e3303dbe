"""Several small networks, one per patch of the face, as one embedder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visavis.data.patches import Patch
from visavis.errors import ModelFormatError
from visavis.metrics.similarity import unit_rows
from visavis.types import ByteArray, Embedder


class PatchEmbedder:
    """embedding = unit([unit(f₁(patch₁)), …, unit(f_K(patch_K))]): the networks' embeddings side by side.

    Each network should concatenate the features of its patch and of the patch's mirror image (flip "concat"), as in
    Sun, Wang, Tang, CVPR 2014, section 3.3. Takes square ArcFace crops, uint8 (N, S, S, 3).
    """

    def __init__(self, parts: Sequence[tuple[Patch, Embedder, tuple[int, int]]]) -> None:
        """`parts`: patch, its network, and the (height, width) that network wants."""
        if not parts:
            raise ModelFormatError("an embedder of patches wants at least one patch")
        self.parts = tuple(parts)

    @property
    def dim(self) -> int:
        """Sum of the networks' dimensions."""
        return sum(embedder.dim for _, embedder, _ in self.parts)

    def embed(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """uint8 (N, S, S, 3) -> float32 (N, D), unit rows."""
        rows = np.concatenate([part.embed(patch.cut(crops, size)) for patch, part, size in self.parts], axis=1)
        return unit_rows(rows)
