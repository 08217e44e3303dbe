"""OpenVINO models from the exported ONNX graph: .xml and .bin, the card in the runtime information."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx

from visavis.errors import DataError, ModelFormatError
from visavis.export.quiet import replaced, told
from visavis.models.card import ModelCard
from visavis.models.graph import CARD_KEY, IDENTITIES_KEY, INPUT_KEY
from visavis.models.onnx_errors import names_of, of_layers
from visavis.runtimes import import_runtime


def convert(model: onnx.ModelProto) -> Any:
    """An `openvino.Model` of an ONNX model.

    Raises:
        ModelFormatError: OpenVINO does not know an operator; names it.
        MissingPackageError: OpenVINO is not installed.
    """
    import io

    openvino = import_runtime("openvino")
    metadata = list(model.metadata_props)
    del model.metadata_props[:]  # OpenVINO would keep them beside the card we store, where they soon are out of date
    data = model.SerializeToString()
    model.metadata_props.extend(metadata)
    converter = import_runtime("openvino.tools.ovc.convert_impl")
    try:
        with replaced(converter, init_logger=told):  # it would set the root logger's level, for good
            return openvino.convert_model(io.BytesIO(data))
    except Exception as error:  # OpConversionFailure is a RuntimeError of the extension
        raise ModelFormatError(f"OpenVINO cannot convert the graph: {_reason(model, str(error))}") from error


def _reason(model: onnx.ModelProto, message: str) -> str:
    """The operators OpenVINO has no rule for, each with its layers; the end of its message when it says none."""
    found = re.findall(r"(?:No conversion rule found for operations|Conversion is failed for): ([^\n]+)", message)
    said = []
    for name in ", ".join(found).split(", "):
        domain, _, kind = name.strip().rpartition(".")
        kind = kind.rsplit("-", 1)[0]
        operator = f"{domain}:{kind}" if domain else kind
        if kind:
            said.append(f"operator {operator}{of_layers(names_of(model.graph.node, operator))}")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(said) or " ".join(lines)[-300:]


def set_card(model: Any, card: ModelCard, *, pixels: str, identities: Sequence[str] = ()) -> None:
    """Store the card, what the input holds and whom the logits stand for in the model's runtime information."""
    model.set_rt_info(card.to_json(), CARD_KEY.split("."))
    if pixels != "normalized":
        model.set_rt_info(f"{pixels} pixels", INPUT_KEY.split("."))
    if identities:
        model.set_rt_info(json.dumps(identities), IDENTITIES_KEY.split("."))


def save(model: Any, path: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write `path` (.xml) and its .bin; constants as float16 when `half`.

    Raises:
        DataError: the folder cannot be written.
    """
    openvino = import_runtime("openvino")
    _share_ranges(model)
    try:
        openvino.save_model(model, os.fspath(path), compress_to_fp16=half)
    except RuntimeError as error:
        raise DataError(f"{path}: cannot write the OpenVINO model ({str(error).strip().splitlines()[-1]})") from error
    _shorten(Path(path), keep={name for port in (*model.inputs, *model.outputs) for name in port.get_names()})


def _share_ranges(model: Any) -> None:
    """One pair of constants for a FakeQuantize whose outputs have the range of its inputs."""
    for op in model.get_ops():
        if op.get_type_name() != "FakeQuantize":
            continue
        for given, made in ((1, 3), (2, 4)):
            a, b = op.input_value(given).get_node(), op.input_value(made).get_node()
            if a.get_type_name() == b.get_type_name() == "Constant" and np.array_equal(a.data, b.data):
                op.input(made).replace_source_output(op.input_value(given))


def _shorten(path: Path, keep: set[str]) -> None:
    """Rewrite an .xml without what OpenVINO works out itself: the shapes between layers, values' names, blanks.

    That is half of the text, and the text a quarter of a small int8 model. The layers with weights keep their names.
    """
    root = ElementTree.parse(path).getroot()
    for element in root.iter():
        element.text, element.tail = (element.text or "").strip() or None, (element.tail or "").strip() or None
    for layer in root.iterfind("layers/layer"):
        kind = layer.get("type")
        for port in layer.iterfind("*/port"):
            for size in port.findall("dim"):
                port.remove(size)
            if not keep & set(port.get("names", "").split(",")):
                port.attrib.pop("names", None)
        for port in layer.iterfind("input/port"):
            port.attrib.pop("precision", None)
        if kind not in ("Parameter", "Result", "Convolution", "GroupConvolution", "MatMul"):
            layer.set("name", layer.get("id", ""))
    text = ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")
    path.write_text(f'<?xml version="1.0"?>\n{text}\n', encoding="utf-8")


def restamp(path: str | os.PathLike[str], card: ModelCard, *, pixels: str) -> None:
    """Replace the card of a written model; its weights are written anew as they are."""
    openvino = import_runtime("openvino")
    file = Path(path)
    model = openvino.Core().read_model(os.fspath(file))
    set_card(model, card, pixels=pixels)
    stamped = file.with_name("stamped.xml")
    save(model, stamped)
    del model
    stamped.replace(file)
    stamped.with_suffix(".bin").replace(file.with_suffix(".bin"))
