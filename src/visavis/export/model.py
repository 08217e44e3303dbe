"""What is exported: a model folder's network with its weights, or the graph of an .onnx file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visavis.errors import ModelFormatError
from visavis.models.card import WEIGHTS, ModelCard, read_card
from visavis.models.classifier import Classifier, read_classifier
from visavis.models.find import find_model
from visavis.models.licenses import check_license
from visavis.models.logits import LogitEmbedder
from visavis.models.onnx import OnnxEmbedder
from visavis.types import Embedder
from visavis.vision.preprocessing import Flip


@dataclass(frozen=True)
class ExportModel:
    """A model to be exported.

    Attributes:
        card: with the flip rule the export is to have.
        reference: embeds as the weights do; every export is compared with it.
        folder: the model folder whose card records the export; None for a lone .onnx file.
        network: the torch network; None for an .onnx file.
        file: the .onnx file; None for a folder with weights.
        classifier: what the network was trained with, if it is to be exported with it.
    """

    card: ModelCard
    reference: Embedder
    folder: Path | None
    network: Any = None
    file: Path | None = None
    classifier: Classifier | None = None

    @property
    def identities(self) -> tuple[str, ...]:
        """Whom the export's logits stand for; () where it has none."""
        return self.classifier.identities if self.classifier else getattr(self.reference, "identities", ())

    @property
    def logits(self) -> LogitEmbedder | None:
        """The logits as the weights give them; None where no classifier is exported."""
        return LogitEmbedder(self.reference, self.classifier) if self.identities else None

    @property
    def home(self) -> Path:
        """Where exports go unless told otherwise."""
        if self.folder is not None:
            return self.folder
        assert self.file is not None
        return self.file.parent


def open_model(
    path: str | os.PathLike[str], *, flip: Flip | None = None, batch_size: int = 64, with_classifier: bool = False
) -> ExportModel:
    """Open a model folder, a run folder or an .onnx file for export.

    Args:
        path: what a user calls MODEL.
        flip: overrides the card's rule for the mirrored picture.
        batch_size: of the reference.
        with_classifier: take the classifier kept in the model folder along.

    Raises:
        ModelFormatError: no model, no classifier in it, or an .onnx file whose graph fuses another flip than asked for.
    """
    found = find_model(path)
    if found.is_dir() and not (found / WEIGHTS).is_file() and (found / "model.onnx").is_file():
        found = found / "model.onnx"
    if found.is_file():
        if found.suffix != ".onnx":
            raise ModelFormatError(
                f"{found}: exports start from a model folder or an .onnx file, not from {found.suffix}"
            )
        reference = OnnxEmbedder(found, batch_size=batch_size)
        check_license(reference.card, found)
        if flip is not None and flip != reference.card.preprocess.flip:
            raise ModelFormatError(
                f"{found}: its graph fuses the mirrored picture by {reference.card.preprocess.flip!r}; "
                "another --flip needs the model folder"
            )
        if with_classifier and not reference.identities:
            raise ModelFormatError(f"{found}: holds no classifier; --with-classifier takes it from a model folder")
        folder = found.parent if (found.parent / "card.json").is_file() and found.name == "model.onnx" else None
        if folder is not None and read_card(folder).backbone != "onnx":
            folder = None
        return ExportModel(reference.card, reference, folder, file=found)
    from visavis.models.torch import TorchEmbedder, load_model

    network, card = load_model(found)
    if flip is not None:
        card = card.with_changes(preprocess=replace(card.preprocess, flip=flip))
    reference = TorchEmbedder(network, card.preprocess, batch_size=batch_size)
    classifier = read_classifier(found) if with_classifier else None
    return ExportModel(card, reference, found, network=network, classifier=classifier)
