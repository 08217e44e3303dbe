"""MINDIR: the ONNX graph rebuilt of MindSpore cells, written by MindSpore, read back and run by it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import shape_inference

from visavis.errors import ModelFormatError, unknown_name
from visavis.export.formats.base import ExportInfo, Format, Options, ProgressCallback
from visavis.export.model import ExportModel
from visavis.export.onnx.graph import EditableGraph, label
from visavis.files import write_atomically
from visavis.models.card import ModelCard
from visavis.models.graph import GraphEmbedder, identities_of


def import_mindspore() -> Any:
    """The mindspore package.

    Raises:
        ModelFormatError: not installed; says which extra to install and for which Python.
    """
    try:
        import mindspore  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModelFormatError(
            "MindSpore is not installed; pip install 'visavis[mindspore]' (Python below 3.13), "
            "then: visavis export model.onnx --format mindir"
        ) from error
    # Builds made for NumPy 1 fail to look an old name up under NumPy 2, once; what is asked next works.
    with contextlib.suppress(SystemError, ImportError), contextlib.redirect_stderr(io.StringIO()):
        mindspore.ops.transpose(mindspore.Tensor(np.zeros((1, 1), np.float32)), (1, 0))
    return mindspore


def build_cell(model: onnx.ModelProto) -> Any:
    """A `mindspore.nn.Cell` that computes what an ONNX graph of one input and one or two outputs computes.

    Raises:
        ModelFormatError: an operator without a cell; named, with its layer.
    """
    import_mindspore()
    from mindspore import nn  # pyright: ignore[reportMissingImports]

    from visavis.export.formats.mindspore_cells import CELLS

    inferred = shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.HasField("tensor_type")}
    graph = EditableGraph(model)
    place = {model.graph.input[0].name: 0}
    cells, picks = [], []
    for node in graph.nodes:
        if node.op_type not in CELLS:
            raise ModelFormatError(
                f"MindSpore export: {label(node)} is not supported; {unknown_name('operator', node.op_type, CELLS)}"
            )
        cells.append(CELLS[node.op_type](node, graph, ranks))
        picks.append(tuple(place[name] for name in node.input if name in place))
        place[node.output[0]] = len(place)
    wanted = tuple(place[output.name] for output in model.graph.output)

    class OnnxCell(nn.Cell):
        """The graph, node by node; every value computed so far stays in a tuple the compiler unrolls."""

        def __init__(self) -> None:
            super().__init__()
            self.cells_in_order = nn.CellList(cells)
            self.picks = tuple(picks)
            self.count = len(cells)
            self.wanted = wanted

        def construct(self, x: Any) -> Any:
            values = (x,)
            for i in range(self.count):
                pick = self.picks[i]
                if len(pick) == 1:
                    y = self.cells_in_order[i](values[pick[0]])
                elif len(pick) == 2:
                    y = self.cells_in_order[i](values[pick[0]], values[pick[1]])
                else:
                    y = self.cells_in_order[i](values[pick[0]], values[pick[1]], values[pick[2]])
                values = (*values, y)
            if len(self.wanted) == 2:
                return values[self.wanted[0]], values[self.wanted[1]]
            return values[self.wanted[0]]

    return OnnxCell().set_train(False)


def write_mindir(
    model: ExportModel, path: Path, options: Options, reference_accuracy: Any, progress: ProgressCallback
) -> ExportInfo:
    """Rebuild, write, and print what Huawei's converters want to be told."""
    from visavis.export.formats.float_graph import float_onnx

    mindspore = import_mindspore()
    batch = options.batch or 1
    graph = float_onnx(model, options)
    cell = build_cell(graph)
    height, width = model.card.preprocess.size
    shape = (batch, height, width, 3) if options.pixels == "uint8" else (batch, 3, height, width)
    kind = np.uint8 if options.pixels == "uint8" else np.float32
    progress("MindSpore compiles the graph")
    example = mindspore.Tensor(np.zeros(shape, kind))
    mindspore.export(cell, example, file_name=os.fspath(path.with_suffix("")), file_format="MINDIR")
    write_side_card(path, model.card, options)
    if model.identities:
        write_atomically(_identities_path(path), json.dumps(model.identities).encode())
    return ExportInfo({"batch": batch, "mindspore": mindspore.__version__}, commands(path.name, shape, model.card))


def commands(name: str, shape: tuple[int, ...], card: ModelCard) -> list[str]:
    """The exact commands that turn the file just written into MindSpore Lite's and Ascend's formats."""
    stem = name.removesuffix(".mindir")
    dims = ",".join(str(v) for v in shape)
    kind = "NHWC" if shape[-1] == 3 else "NCHW"
    return [
        "for MindSpore Lite (CPU, GPU, Ascend 310/310P), with Huawei's converter:",
        f"  converter_lite --fmk=MINDIR --modelFile={name} --outputFile={stem} --inputShape=x:{dims}",
        "for an Ascend OM, export AIR on an Ascend host or convert the ONNX file:",
        f"  atc --framework=5 --model={stem}.onnx --output={stem} --input_format={kind} "
        f'--input_shape="image:{dims}" --soc_version=Ascend310P3',
    ]


def write_side_card(path: Path, card: ModelCard, options: Options) -> None:
    """A MINDIR holds no text of ours: its card lies beside it as `NAME.card.json`."""
    values = {"card": json.loads(card.to_json()), "input": f"{options.pixels} pixels", "batch": options.batch or 1}
    write_atomically(path.with_suffix(".card.json"), json.dumps(values, indent=2, ensure_ascii=False).encode())


def _identities_path(path: Path) -> Path:
    """Whom the second output's columns stand for, beside the file."""
    return path.with_suffix(".identities.json")


class MindirEmbedder(GraphEmbedder):
    """A MINDIR file run by MindSpore, with the card beside it.

    Raises:
        ModelFormatError: MindSpore missing, a damaged file, or no card.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        mindspore = import_mindspore()
        self.path = Path(path)
        try:
            beside = json.loads(self.path.with_suffix(".card.json").read_text(encoding="utf-8"))
            card = ModelCard.from_json(json.dumps(beside["card"]), name=f"{self.path.stem}.card.json")
        except (OSError, ValueError, KeyError) as error:
            raise ModelFormatError(f"{self.path}: its card {self.path.stem}.card.json is missing or damaged") from error
        try:
            self._cell = mindspore.nn.GraphCell(mindspore.load(os.fspath(self.path)))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelFormatError(f"{self.path}: MindSpore cannot load it ({str(error).splitlines()[0]})") from error
        self._tensor = mindspore.Tensor
        nhwc = str(beside["input"]).startswith("uint8")
        names = _identities_path(self.path)
        text = names.read_text(encoding="utf-8") if names.is_file() else ""
        super().__init__(
            card, name=str(self.path), flip=None, batch_size=int(beside["batch"]), nhwc=nhwc, pixels=True,
            identities=identities_of(text, len(json.loads(text or "[]")), str(self.path)),
        )  # fmt: skip

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One batch in the graph's own layout -> raw features (N, D)."""
        return self._outputs(x)[0]

    def run_logits(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One batch in the graph's own layout -> logits (N, C)."""
        return self._outputs(x)[1]

    def _outputs(self, x: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        count = len(x)
        if count < self.batch_size:
            x = np.concatenate([x, np.zeros((self.batch_size - count, *x.shape[1:]), x.dtype)])
        made = self._cell(self._tensor(x))
        tensors = made if isinstance(made, tuple) else (made,)
        return [np.asarray(t.asnumpy(), np.float32).reshape(len(x), -1)[:count] for t in tensors]


def mindspore_version() -> str:
    """Name and version of the runtime."""
    return f"MindSpore {import_mindspore().__version__}"


FORMAT = Format(
    "mindir", ".mindir", ("fp32",), write_mindir, MindirEmbedder, mindspore_version, write_side_card,
    check_runtime=mindspore_version,
)  # fmt: skip
