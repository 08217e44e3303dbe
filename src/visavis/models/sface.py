"""SFace's file as a graph that ONNX Runtime runs fast: its weights plain, its maps and slopes in convolutions.

As published each of its 27 convolutions is followed by a batch normalization and a PReLU, whose kernel costs more than
the convolutions: a face takes 14 instead of 30 ms on one thread when it is said in ones that are fast.

    PReLU_a(x) = a·x + (1 − a)·max(x, 0)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.onnx_file import Graph, Node, constant, node, put_together, rewired, simplified, take_apart

Array = npt.NDArray[Any]
_EPSILON = 1e-5  # ONNX's default


def read_sface(data: bytes) -> bytes:
    """The graph of `face_recognition_sface_2021dec_int8bq.onnx`, for any number of pictures where its file says one.

    Raises:
        ModelFormatError: not an ONNX file, or a damaged one.
    """
    return fast_prelu(simplified(data, inputs={"data": ("batch", 3, 112, 112)}))


def fast_prelu(data: bytes) -> bytes:
    """A graph with batch normalizations folded into the convolutions before them, and PReLU behind those rewritten."""
    graph = take_apart(data)
    constants: dict[str, Array] = {}
    nodes: list[bytes | memoryview] = []
    following = list(graph.nodes)
    reads = Counter(name for part in graph.nodes for name in part.inputs)
    while following:
        first = following.pop(0)
        if first.kind != "Conv":
            nodes.append(first.raw)
            continue
        weight, bias = _weights(graph, first)
        inputs, out = list(first.inputs), first.outputs[0]
        alone = bool(following) and reads[out] == 1 and following[0].inputs[:1] == [out]
        if weight is not None and alone and (folded := _folded(graph, following[0], weight, bias)):
            out, following = following[0].outputs[0], following[1:]
            constants[f"{out}_weight"], constants[f"{out}_bias"] = folded
            inputs = [first.inputs[0], f"{out}_weight", f"{out}_bias"]
        nodes.append(rewired(first, inputs, out))
        slope = _slope(graph, out, following[0], weight) if following else None
        if slope is not None:
            nodes += _bent(out, following[0].outputs[0], slope, constants)
            following = following[1:]
    return put_together(graph, nodes, constants)


def _weights(graph: Graph, convolution: Node) -> tuple[Array | None, Array | None]:
    weight = constant(graph, convolution.inputs[1])
    if weight is None or len(convolution.inputs) < 3:
        return weight, None if weight is None else np.zeros(len(weight), np.float32)
    return weight, constant(graph, convolution.inputs[2])


def _folded(graph: Graph, behind: Node, weight: Array, bias: Array | None) -> tuple[Array, Array] | None:
    """Weight and bias of convolution and batch normalization as one; None where they are no such two."""
    if behind.kind != "BatchNormalization" or bias is None:
        return None
    parts = [constant(graph, name) for name in behind.inputs[1:5]]
    if len(parts) != 4 or any(part is None or part.shape != bias.shape for part in parts):
        return None
    gain, shift, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gain / np.sqrt(variance + behind.reals.get("epsilon", _EPSILON))
    return (
        (weight * scale[:, None, None, None]).astype(np.float32),
        ((bias - mean) * scale + shift).astype(np.float32),
    )


def _slope(graph: Graph, source: str, behind: Node, weight: Array | None) -> Array | None:
    """One slope for each channel of a PReLU that reads `source`; None where it is no such one."""
    if behind.kind != "PRelu" or behind.inputs[0] != source or weight is None:
        return None
    slope = constant(graph, behind.inputs[1])
    return slope.ravel() if slope is not None and slope.size == len(weight) else None


def _bent(source: str, out: str, slope: Array, constants: dict[str, Array]) -> list[bytes]:
    """PReLU as two products by channel, a Relu and a sum; where every slope is 1 or less, Relu fuses with a product."""
    count = len(slope)
    constants[f"{out}_a"] = slope.astype(np.float32).reshape(-1, 1, 1, 1)
    constants[f"{out}_b"] = (1 - slope).astype(np.float32).reshape(-1, 1, 1, 1)
    window: dict[str, Any] = {"group": count, "kernel_shape": [1, 1]}
    straight = node("Conv", [source, f"{out}_a"], f"{out}_straight", **window)
    if (slope <= 1).all():
        bent = [
            node("Conv", [source, f"{out}_b"], f"{out}_rest", **window),
            node("Relu", [f"{out}_rest"], f"{out}_bent"),
        ]
    else:
        bent = [
            node("Relu", [source], f"{out}_rest"),
            node("Conv", [f"{out}_rest", f"{out}_b"], f"{out}_bent", **window),
        ]
    return [*bent, straight, node("Add", [f"{out}_straight", f"{out}_bent"], out)]
