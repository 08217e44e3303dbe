"""Make a quantized ONNX graph small: what a file of int8 weights says twice can outweigh what it says once.

A QDQ graph of a small network holds, beside its int8 weights, a zero point for every channel (all 0), a scale for every
channel of every bias, which is the product of two others, and long names. None of it is needed:

    equal constants are one;   s_bias = s_input · s_weight is a Mul that runtimes fold when they load the file
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from visavis.export.onnx.graph import Array, EditableGraph, shorten

_LEAST = 8  # a Mul node takes more bytes than a scale of fewer channels


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what a QDQ graph can say shorter.

    Returns:
        The same model, edited in place, with the same outputs to the bit but for the biases' scales, which a runtime
        multiplies itself.
    """
    graph = EditableGraph(model)
    _multiply_bias_scales(graph)
    _share_constants(graph)
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
    return shorten(graph.finish())


def _multiply_bias_scales(graph: EditableGraph) -> None:
    makers = {node.output[0]: node for node in graph.nodes}
    for layer in [n for n in graph.nodes if n.op_type in ("Conv", "Gemm") and len(n.input) > 2]:
        x, weight, bias = (_dequantize(makers.get(name)) for name in layer.input[:3])
        if x is None or weight is None or bias is None:
            continue
        of_x, of_weight, of_bias = (graph.constants.get(node.input[1]) for node in (x, weight, bias))
        if of_x is None or of_weight is None or of_bias is None:
            continue
        product = np.asarray(of_x * of_weight, np.float32)
        if product.size < _LEAST or product.shape != of_bias.shape or not np.allclose(product, of_bias, rtol=1e-6):
            continue
        made = f"{bias.output[0]}_scale"
        node = helper.make_node("Mul", [x.input[1], weight.input[1]], [made])
        graph.nodes.insert(graph.nodes.index(bias), node)
        bias.input[1] = made


def _dequantize(node: NodeProto | None) -> NodeProto | None:
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _share_constants(graph: EditableGraph) -> None:
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for name, value in list(graph.constants.items()):
        if name not in graph.outputs and (same := first.setdefault(_key(value), name)) != name:
            graph.rename(name, same)


def _key(value: Array) -> tuple[str, tuple[int, ...], bytes]:
    return value.dtype.str, value.shape, value.tobytes()
