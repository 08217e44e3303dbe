"""Fold BatchNorm into its neighbors, exactly, in float64: behind and before convolutions and dense layers.

    behind:  BN(conv(x)) = conv_{W·a}(x) + (b·a + c),                       a = γ/√(σ² + ε), c = β − μ·a
    before:  conv_W(BN(x)) = conv_{W·a}(x) + conv_W(c over the grid, zeros around)

The second term of the last line is a bias map of the output's C × H × W where the convolution pads with zeros: the
padding stays 0, it does not become c. Jacob et al., arXiv:1712.05877v1, section 3.2, give the first line only.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, shape_inference

from visavis.export.onnx.graph import Array, EditableGraph, attribute


def fold_batch_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold every BatchNormalization that has a convolution or dense layer beside it; the rest stay as they are.

    Returns:
        The same model, edited in place; its outputs differ by rounding alone.
    """
    shapes = _shapes(model)
    graph = EditableGraph(model)
    _drop_identities(graph)
    for node in graph.of_type("BatchNormalization"):
        if not _fold_behind(graph, node):
            _fold_before(graph, node, shapes)
    return graph.finish()


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    inferred = shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    return {
        v.name: [d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim]
        for v in values
        if v.type.HasField("tensor_type")
    }


def _drop_identities(graph: EditableGraph) -> None:
    """Equal constants come as Identities of one; read that one."""
    for node in graph.of_type("Identity"):
        if node.output[0] not in graph.outputs:
            graph.rename(node.output[0], node.input[0])
            graph.remove(node)


def _scale_and_shift(graph: EditableGraph, node: NodeProto) -> tuple[Array, Array] | None:
    parts = [graph.constant(name) for name in node.input[1:5]]
    if any(part is None for part in parts) or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _weights(graph: EditableGraph, node: NodeProto) -> tuple[Array, Array] | None:
    """Weight (out, in, ...) and bias (out,) of a Conv or Gemm in float64; None where they are no constants."""
    weight = graph.constant(node.input[1])
    bias = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or (bias is None and len(node.input) > 2 and node.input[2]):
        return None
    weight = weight.astype(np.float64)
    if node.op_type == "MatMul":
        if weight.ndim != 2:
            return None
        weight = weight.T
    if node.op_type == "Gemm":
        if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1:
            return None
        weight = weight if attribute(node, "transB", 0) else weight.T
    bias = np.zeros(len(weight)) if bias is None else np.broadcast_to(bias.astype(np.float64), (len(weight),))
    return weight, bias


def _store(graph: EditableGraph, node: NodeProto, weight: Array, bias: Array) -> None:
    base = node.input[1]
    kind = graph.constants[base].dtype if base in graph.constants else np.dtype(np.float32)
    if node.op_type == "MatMul":
        node.op_type = "Gemm"  # a norm of vectors beside it says that x has two dimensions
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        weight = weight.T
    node.input[1] = graph.add_constant(f"{base}_folded", weight.astype(kind))
    name = graph.add_constant(f"{base}_bias", bias.astype(kind))
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)


def _fold_behind(graph: EditableGraph, norm: NodeProto) -> bool:
    layer = graph.maker(norm.input[0])
    affine = _scale_and_shift(graph, norm)
    if layer is None or affine is None or layer.op_type not in ("Conv", "Gemm", "MatMul"):
        return False
    if graph.only_user(layer.output[0]) is not norm:
        return False
    found = _weights(graph, layer)
    if found is None:
        return False
    (weight, bias), (scale, shift) = found, affine
    _store(graph, layer, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale + shift)
    graph.remove(norm)
    layer.output[0] = norm.output[0]
    return True


def _fold_before(graph: EditableGraph, norm: NodeProto, shapes: dict[str, list[int | None]]) -> bool:
    affine = _scale_and_shift(graph, norm)
    user = graph.only_user(norm.output[0])
    if affine is None or user is None:
        return False
    if user.op_type == "Conv":
        return _fold_before_conv(graph, norm, user, affine, shapes)
    flat = user if user.op_type in ("Flatten", "Reshape") else None
    dense = graph.only_user(flat.output[0]) if flat is not None else user
    if dense is None or dense.op_type not in ("Gemm", "MatMul") or dense.input[0] != (flat or norm).output[0]:
        return False
    found = _weights(graph, dense)
    if found is None:
        return False
    (weight, bias), (scale, shift) = found, affine
    repeats, rest = divmod(weight.shape[1], len(scale))
    if rest:
        return False
    _store(graph, dense, weight * np.repeat(scale, repeats), bias + weight @ np.repeat(shift, repeats))
    graph.remove(norm)
    graph.rename(norm.output[0], norm.input[0])
    return True


def _fold_before_conv(
    graph: EditableGraph,
    norm: NodeProto,
    conv: NodeProto,
    affine: tuple[Array, Array],
    shapes: dict[str, list[int | None]],
) -> bool:
    found = _weights(graph, conv)
    grid = shapes.get(norm.input[0], [])[2:]
    if found is None or conv.input[0] != norm.output[0] or attribute(conv, "auto_pad", b"NOTSET") != b"NOTSET":
        return False
    (weight, bias), (scale, shift) = found, affine
    group = attribute(conv, "group", 1)
    inputs = weight.shape[1]
    out = len(weight) // group
    by_group = (np.arange(len(weight)) // out)[:, None] * inputs + np.arange(inputs)
    pads = attribute(conv, "pads", [0] * 4)
    folded = weight * scale[by_group][..., None, None]
    constant = shift[by_group]
    if not any(pads):
        _store(graph, conv, folded, bias + np.einsum("oikl,oi->o", weight, constant))
    elif len(grid) == 2 and all(isinstance(side, int) for side in grid):
        if any(d != 1 for d in attribute(conv, "dilations", [1, 1])):
            return False
        strides = attribute(conv, "strides", [1, 1])
        mapped = _shift_map(weight, constant, [int(side or 0) for side in grid], pads, strides)
        _store(graph, conv, folded, bias)
        made = conv.output[0]
        conv.output[0] = f"{made}_without_map"
        name = graph.add_constant(f"{made}_map", mapped.astype(np.float32)[None])
        graph.insert_after(conv, helper.make_node("Add", [conv.output[0], name], [made], name=f"{made}_add_map"))
    else:
        return False
    graph.remove(norm)
    graph.rename(norm.output[0], norm.input[0])
    return True


def _shift_map(weight: Array, shift: Array, grid: list[int], pads: list[int], strides: list[int]) -> Array:
    """conv_W(shift over `grid`, zeros around) as (out, H', W'): each kernel element counts where it meets the grid."""
    rows, columns = ((grid[i] + pads[i] + pads[i + 2] - weight.shape[2 + i]) // strides[i] + 1 for i in range(2))
    result = np.zeros((len(weight), rows, columns))
    element = np.einsum("oikl,oi->okl", weight, shift)
    for k in range(weight.shape[2]):
        y = np.arange(rows) * strides[0] + k - pads[0]
        inside_y = (y >= 0) & (y < grid[0])
        for m in range(weight.shape[3]):
            x = np.arange(columns) * strides[1] + m - pads[1]
            inside = inside_y[:, None] & ((x >= 0) & (x < grid[1]))[None, :]
            result += element[:, k, m, None, None] * inside
    return result
