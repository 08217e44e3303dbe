"""ONNX files of others: wrapped into a model folder whose card says what the graph itself does not."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError, unknown_name
from visavis.files import atomic_file, digest_of
from visavis.models.card import ONNX, ModelCard, write_card
from visavis.models.import_trial import Run
from visavis.models.onnx import OnnxEmbedder, first_line, listed, open_session
from visavis.onnx_file import simplified, with_first_output
from visavis.runtimes import onnx_session
from visavis.vision.preprocessing import PreprocessSpec


class Check(Protocol):
    """Looks at a network before it is written, and raises where it is not what was told."""

    def __call__(self, run: Run, spec: PreprocessSpec, *, pixels: bool) -> None:
        """Raises ModelFormatError; see `import_trial.try_readings`."""


def import_onnx(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preprocess: Mapping[str, Any],
    given: Mapping[str, Any],
    output: str | None = None,
    check: Check | None = None,
) -> tuple[ModelCard, list[str]]:
    """Copy a foreign ONNX recognizer into a model folder beside a card; needs no torch.

    Args:
        path: one input float N×3×H×W (normalized outside) or uint8 N×H×W×3.
        out: folder to write.
        preprocess: fields of a PreprocessSpec; mean and std must be there, size too where the graph leaves it open.
        given: other fields of the card (license, source ...).
        output: the output that is the feature; the first when None.
        check: called with the network and its preprocessing before anything is written; see `import_trial`.

    Returns:
        The card and what there is to say about the graph.

    Raises:
        ModelFormatError: damaged, not a recognizer's graph, or preprocessing unsaid or contrary to the graph.
    """
    source, home = Path(path), Path(out)
    if not source.is_file():
        raise ModelFormatError(f"{source}: expected an .onnx file, got {'a folder' if source.is_dir() else 'no file'}")
    session, content = open_session(source), None
    if len(session.get_inputs()) > 1:  # some are declared that nobody feeds: weights, or what no node reads
        content = simplified(source.read_bytes())
        session = onnx_session(content)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ModelFormatError(
            f"{source}: expected one input of pictures, float N×3×H×W or uint8 N×H×W×3, got {listed(inputs)}"
        )
    shape = inputs[0].shape
    sides = shape[1:3] if inputs[0].type == "tensor(uint8)" else shape[2:]
    fields = dict(preprocess)
    if all(isinstance(side, int) for side in sides):
        fields.setdefault("size", (int(sides[0]), int(sides[1])))
    unsaid = [key for key in ("size", "mean", "std") if key not in fields]
    if unsaid:
        raise ModelFormatError(
            f"{source}: the graph does not say its preprocessing, {', '.join(unsaid)} missing; as in "
            "--preprocess size=112x112,channels=RGB,mean=127.5,std=127.5"
        )
    chosen = _chosen(source, outputs, output)
    dim = chosen.shape[-1] if chosen.shape else None
    if not isinstance(dim, int):
        raise ModelFormatError(f"{source}: its output {chosen.name} has no fixed length but {chosen.shape}")
    if chosen is not outputs[0]:
        content = with_first_output(source.read_bytes() if content is None else content, chosen.name)
    card = ModelCard(home.name, "onnx", dim, PreprocessSpec(**fields), weights_digest=digest_of(source), **given)
    if check is not None:
        try:
            check(_run(session, chosen.name), card.preprocess, pixels=inputs[0].type == "tensor(uint8)")
        except ModelFormatError as error:
            more = f"; its outputs: {', '.join(o.name for o in outputs)} (--output)" if len(outputs) > 1 else ""
            raise ModelFormatError(f"{source}: {error}{more}") from error
    fresh = not home.exists()
    try:
        with source.open("rb") as graph, atomic_file(home / ONNX) as copy:
            shutil.copyfileobj(graph if content is None else io.BytesIO(content), copy)
        write_card(home, card)
        OnnxEmbedder(home / ONNX)  # refuses now, not at the first evaluation, a card its graph contradicts
    except ModelFormatError:
        if fresh:
            shutil.rmtree(home)
        raise
    batch = "any batch" if not isinstance(shape[0], int) else f"a fixed batch of {shape[0]}"
    others = (
        f"; other outputs unused: {', '.join(o.name for o in outputs if o is not chosen)}" if len(outputs) > 1 else ""
    )
    return card, [f"graph input {inputs[0].name} {inputs[0].type}, {batch}, output {chosen.name}{others}"]


def _chosen(source: Path, outputs: list[Any], wanted: str | None) -> Any:
    """The output that was asked for, else "embedding", else the first."""
    names = [output.name for output in outputs]
    if wanted is None:
        return outputs[names.index("embedding") if "embedding" in names else 0]
    if wanted not in names:
        raise ModelFormatError(f"{source}: {unknown_name('output', wanted, names)}")
    return outputs[names.index(wanted)]


def _run(session: Any, output: str) -> Run:
    """The graph as a function of a batch, of a fixed size too."""
    given = session.get_inputs()[0]
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None

    def run(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        parts: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(x), fixed or len(x)):
            part = x[start : start + (fixed or len(x))]
            count = len(part)
            if fixed is not None and count < fixed:
                part = np.concatenate([part, np.zeros((fixed - count, *part.shape[1:]), part.dtype)])
            try:
                parts.append(np.asarray(session.run([output], {given.name: part})[0], np.float32)[:count])
            except Exception as error:  # ONNX Runtime raises bare subclasses of Exception of its own
                raise ModelFormatError(f"ONNX Runtime refused the crops: {first_line(error)}") from error
        return np.concatenate(parts)

    return run
