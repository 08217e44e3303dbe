"""torch.export programs (.pt2): the graph from pixels to feature, for AOTInductor, ExecuTorch and torch itself."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.export.formats.base import ExportInfo, Format, Options, ProgressCallback
from visavis.export.model import ExportModel
from visavis.models.card import ModelCard
from visavis.models.graph import CARD_KEY, IDENTITIES_KEY, INPUT_KEY, GraphEmbedder, identities_of


def write_program(
    model: ExportModel, path: Path, options: Options, reference_accuracy: Any, progress: ProgressCallback
) -> ExportInfo:
    """Trace the network with a symbolic batch and save the program with the card beside its code.

    Raises:
        ModelFormatError: the model is an .onnx file, or the network cannot be traced.
    """
    import torch

    from visavis.export.onnx.files import cause_of
    from visavis.export.onnx.from_torch import PixelNetwork

    if model.network is None:
        raise ModelFormatError("--format torch needs a model folder with weights, not an .onnx file")
    wrapped = PixelNetwork(
        model.network, model.card.preprocess, pixels=options.pixels, classifier=model.classifier
    ).eval()
    dynamic = None if options.batch else ({0: torch.export.Dim("batch", min=1, max=65_536)},)
    progress("torch.export traces the network")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(wrapped, (wrapped.example(options.batch or 3),), dynamic_shapes=dynamic)
            torch.export.save(program, path, extra_files=_extra(model.card, options, model.identities))
    except Exception as error:  # torch.export raises errors of many kinds, all about the network
        raise ModelFormatError(
            f"torch.export cannot trace backbone {model.card.backbone}: {cause_of(error)}"
        ) from error
    return ExportInfo({"torch": torch.__version__, "batch": options.batch or "any"})


def _extra(card: ModelCard, options: Options, identities: Sequence[str]) -> dict[str, Any]:
    named = json.dumps(identities) if identities else ""
    return {CARD_KEY: card.to_json(), INPUT_KEY: f"{options.pixels} pixels", IDENTITIES_KEY: named}


def stamp_program(path: Path, card: ModelCard, options: Options) -> None:
    """Replace the card of a written program."""
    import torch

    known = {IDENTITIES_KEY: ""}
    program = torch.export.load(path, extra_files=known)
    torch.export.save(program, path, extra_files=_extra(card, options, json.loads(known[IDENTITIES_KEY] or "[]")))


class ProgramEmbedder(GraphEmbedder):
    """A .pt2 program run by torch.

    Raises:
        ModelFormatError: damaged, or without a card.
    """

    def __init__(self, path: str | os.PathLike[str], *, batch_size: int = 64) -> None:
        import torch

        self.path = Path(path)
        extra = {CARD_KEY: "", INPUT_KEY: "", IDENTITIES_KEY: ""}
        try:
            program = torch.export.load(self.path, extra_files=extra)
        except Exception as error:  # torch raises RuntimeError, zipfile's and others on damaged bytes
            raise ModelFormatError(
                f"{self.path}: damaged or no torch.export program ({type(error).__name__})"
            ) from error
        if not extra[CARD_KEY]:
            raise ModelFormatError(f"{self.path}: carries no model card")
        card = ModelCard.from_json(str(extra[CARD_KEY]), name=str(self.path))
        nhwc = str(extra[INPUT_KEY]).startswith("uint8")
        named = str(extra[IDENTITIES_KEY])
        super().__init__(
            card, name=str(self.path), flip=None, batch_size=batch_size, nhwc=nhwc, pixels=True,
            identities=identities_of(named, len(json.loads(named or "[]")), str(self.path)),
        )  # fmt: skip
        self._module = program.module()

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One batch in the graph's own layout -> raw features (N, D)."""
        return self._outputs(x)[0]

    def run_logits(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One batch in the graph's own layout -> logits (N, C)."""
        return self._outputs(x)[1]

    def _outputs(self, x: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            made = self._module(torch.from_numpy(x))
        return [value.float().numpy() for value in (made if isinstance(made, tuple) else (made,))]


def torch_version() -> str:
    """Name and version of the runtime."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModelFormatError(
            "--format torch needs torch, which is not installed; pip install 'visavis[train]'"
        ) from error
    return f"torch {torch.__version__}"


FORMAT = Format(
    "torch",
    ".pt2",
    ("fp32",),
    write_program,
    ProgramEmbedder,
    torch_version,
    stamp_program,
    check_runtime=torch_version,
)
