"""The classifier a network was trained with, as a part of a model: which of the training identities is on a picture?

A recognizer needs none, since people are enrolled by their embeddings; systems that publish the accuracy of the trained
classifier over its own people (reference-systems row D11) are measured by it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.models.card import WEIGHTS, read_card
from visavis.runtimes import import_runtime
from visavis.vision.preprocessing import Flip

if TYPE_CHECKING:
    from jaxtyping import Float

CLASSIFIER = "classifier.safetensors"
CLASSIFIER_FORMAT = 1
_KEY = "visavis.classifier"
_HOW = "train with --with-classifier to keep it"


@dataclass(frozen=True)
class Classifier:
    """The class centers of a trained head, and whose they are.

        logit_j(x) = max_k w_jk · x̄ + b_jk

    with x̄ the mean of the raw features of a picture's views. Rows of heads that compare angles have length 1, so that
    the logits are ‖x̄‖ cos θ_j: as the training's in their order, which is all that a decision needs.

    Attributes:
        weight: (C·K, D) float32, the K rows of a class on end.
        bias: (C·K,) float32, or None.
        identities: C names, in the order of the classes.
        sub_centers: K.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None
    identities: tuple[str, ...]
    sub_centers: int = 1

    def __post_init__(self) -> None:
        rows = len(self.identities) * self.sub_centers
        if self.weight.ndim != 2 or len(self.weight) != rows or (self.bias is not None and self.bias.shape != (rows,)):
            raise ModelFormatError(
                f"a classifier of {len(self.identities)} identities wants {rows} rows, got {self.weight.shape}"
            )

    def logits(self, features: npt.NDArray[np.floating], flip: Flip = "none") -> Float[npt.NDArray[np.float32], "N C"]:
        """Logits (N, C) of raw features (N, D), or of the views fused as `flip` says.

        Raises:
            ModelFormatError: features of another length.
        """
        dim = self.weight.shape[1]
        if features.shape[1] != dim * (2 if flip == "concat" else 1):
            raise ModelFormatError(f"a classifier of features of {dim} cannot take {features.shape[1]} (flip {flip})")
        mean = features if flip == "none" else np.asarray(features.reshape(len(features), -1, dim).sum(1) / 2)
        values = mean.astype(np.float32) @ self.weight.T
        if self.bias is not None:
            values += self.bias
        return values if self.sub_centers == 1 else values.reshape(len(values), -1, self.sub_centers).max(2)

    def to_bytes(self, weights_digest: str) -> bytes:
        """As a safetensors file that belongs to the weights of this SHA-256."""
        tensors = {"weight": np.ascontiguousarray(self.weight, np.float32)}
        if self.bias is not None:
            tensors["bias"] = np.ascontiguousarray(self.bias, np.float32)
        about = {
            "format": CLASSIFIER_FORMAT,
            "identities": self.identities,
            "sub_centers": self.sub_centers,
            "weights_digest": weights_digest,
        }
        return import_runtime("safetensors.numpy").save(tensors, metadata={_KEY: json.dumps(about)})


def read_classifier(folder: str | os.PathLike[str]) -> Classifier:
    """Read the classifier of a model folder.

    Raises:
        ModelFormatError: there is none, it is damaged, or belongs to other weights than the folder's.
    """
    home = Path(folder)
    path = home / CLASSIFIER
    if not path.is_file():
        raise ModelFormatError(f"{home}: the model folder has no {CLASSIFIER}; {_HOW}")
    safetensors = import_runtime("safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            stored: dict[str, str] = file.metadata() or {}
            about: dict[str, Any] = json.loads(stored[_KEY])
            if int(about["format"]) > CLASSIFIER_FORMAT:
                raise ModelFormatError(f"{path}: a classifier of format {about['format']}; install a newer visavis")
            bias = file.get_tensor("bias") if "bias" in file.keys() else None  # noqa: SIM118
            identities = tuple(map(str, about["identities"]))
            found = Classifier(file.get_tensor("weight"), bias, identities, int(about["sub_centers"]))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(f"{path}: damaged or no classifier ({error})") from error
    digest = read_card(home).weights_digest
    if digest and about.get("weights_digest") != digest:
        raise ModelFormatError(f"{path}: belongs to other weights than {WEIGHTS}; {_HOW}")
    return found
