"""A model with its classifier, where an Embedder is expected."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.files import digest_of
from visavis.metrics.similarity import unit_rows
from visavis.models.classifier import CLASSIFIER, Classifier, read_classifier
from visavis.models.find import find_model
from visavis.models.load import load_embedder
from visavis.types import ByteArray
from visavis.vision.preprocessing import Flip

if TYPE_CHECKING:
    from jaxtyping import Float


class LogitEmbedder:
    """A model's classifier where an Embedder is expected: row i is the logits (C,) of picture i, scaled to length 1.

    A positive factor per picture changes no decision.

    Args:
        embedder: has `features(crops)`, and `logits(crops)` if its graph holds the classifier.
        classifier: applied to the features; None where the graph has it inside.
        digest: of the file the classifier is from.
    """

    def __init__(self, embedder: Any, classifier: Classifier | None, *, digest: str = "") -> None:
        self.embedder, self.classifier, self.digest = embedder, classifier, digest
        self.identities: tuple[str, ...] = (classifier or embedder).identities
        self.dim = len(self.identities)
        self.spec = embedder.spec
        self.flip: Flip = getattr(embedder, "flip", embedder.spec.flip)

    def logits(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N C"]:
        """Logits (N, C) of crops uint8 (N, H, W, 3), RGB."""
        if self.classifier is None:
            return self.embedder.logits(crops)
        return self.classifier.logits(self.embedder.features(crops), self.flip)

    def embed(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N C"]:
        """Logits (N, C) with rows of length 1."""
        return unit_rows(self.logits(crops))


def load_logits(path: str | os.PathLike[str], *, flip: Flip | None = None, batch_size: int = 64) -> LogitEmbedder:
    """Load a model with its classifier: inside an exported file, or beside a model folder's weights.

    Raises:
        ModelFormatError: no model, or one without a classifier.
    """
    embedder: Any = load_embedder(path, flip=flip, batch_size=batch_size)
    if getattr(embedder, "identities", ()):
        return LogitEmbedder(embedder, None)
    found = find_model(path)
    if found.is_file():
        raise ModelFormatError(
            f"{found}: the file holds no classifier; visavis export MODEL --with-classifier puts it in"
        )
    return LogitEmbedder(embedder, read_classifier(found), digest=digest_of(found / CLASSIFIER))
