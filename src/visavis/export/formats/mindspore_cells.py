"""ONNX operators as MindSpore cells: one builder per operator, for the operators face networks are made of.

Imported only where MindSpore is installed (Python < 3.13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms  # pyright: ignore[reportMissingImports]
import numpy as np
from mindspore import Parameter, Tensor, nn, ops  # pyright: ignore[reportMissingImports]
from onnx import NodeProto, TensorProto

from visavis.errors import ModelFormatError
from visavis.export.onnx.graph import Array, EditableGraph, attribute, label

_TYPES = {
    TensorProto.FLOAT: ms.float32,
    TensorProto.FLOAT16: ms.float16,
    TensorProto.INT64: ms.int64,
    TensorProto.INT32: ms.int32,
    TensorProto.UINT8: ms.uint8,
    TensorProto.BOOL: ms.bool_,
}


def _parameter(value: Array) -> Parameter:
    return Parameter(Tensor(np.ascontiguousarray(value)), requires_grad=False)


class Apply(nn.Cell):
    """A primitive with fixed trailing arguments: primitive(x, *arguments)."""

    def __init__(self, primitive: Any, *arguments: Any) -> None:
        super().__init__()
        self.primitive = primitive
        self.arguments = arguments

    def construct(self, x: Any) -> Any:
        """Compute it."""
        return self.primitive(x, *self.arguments)


class Two(nn.Cell):
    """A primitive of two values."""

    def __init__(self, primitive: Any) -> None:
        super().__init__()
        self.primitive = primitive

    def construct(self, x: Any, y: Any) -> Any:
        """Compute it."""
        return self.primitive(x, y)


class WithConstant(nn.Cell):
    """A primitive of a value and a constant, in either order."""

    def __init__(self, primitive: Any, constant: Array, *, first: bool) -> None:
        super().__init__()
        self.primitive = primitive
        self.constant = _parameter(constant)
        self.first = first

    def construct(self, x: Any) -> Any:
        """Compute it."""
        return self.primitive(self.constant, x) if self.first else self.primitive(x, self.constant)


class Convolution(nn.Cell):
    """Conv with constant weights and an optional bias."""

    def __init__(self, node: NodeProto, weight: Array, bias: Array | None) -> None:
        super().__init__()
        top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
        self.convolution = ops.Conv2D(
            out_channel=weight.shape[0],
            kernel_size=tuple(weight.shape[2:]),
            pad_mode="pad",
            pad=(top, bottom, left, right),
            stride=tuple(attribute(node, "strides", [1, 1])),
            dilation=tuple(attribute(node, "dilations", [1, 1])),
            group=attribute(node, "group", 1),
        )
        self.weight = _parameter(weight)
        self.add = ops.BiasAdd()
        self.bias = None if bias is None else _parameter(bias)

    def construct(self, x: Any) -> Any:
        """Compute it."""
        y = self.convolution(x, self.weight)
        return y if self.bias is None else self.add(y, self.bias)


class Dense(nn.Cell):
    """Gemm: x · Wᵀ + b."""

    def __init__(self, weight: Array, bias: Array | None, *, transposed: bool) -> None:
        super().__init__()
        self.multiply = ops.MatMul(transpose_b=transposed)
        self.weight = _parameter(weight)
        self.bias = None if bias is None else _parameter(bias)

    def construct(self, x: Any) -> Any:
        """Compute it."""
        y = self.multiply(x, self.weight)
        return y if self.bias is None else y + self.bias


class Norm(nn.Cell):
    """LayerNormalization over the last axes."""

    def __init__(self, scale: Array, shift: Array, *, axis: int, epsilon: float) -> None:
        super().__init__()
        self.norm = ops.LayerNorm(begin_norm_axis=axis, begin_params_axis=axis, epsilon=epsilon)
        self.scale, self.shift = _parameter(scale), _parameter(shift)

    def construct(self, x: Any) -> Any:
        """Compute it."""
        return self.norm(x, self.scale, self.shift)[0]


class Joined(nn.Cell):
    """Concat of two or three values."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def construct(self, *values: Any) -> Any:
        """Compute it."""
        return ops.concat(values, self.axis)


class Cut(nn.Cell):
    """Slice along one axis: a range, or the whole of it backwards."""

    def __init__(self, axis: int, start: int, stop: int, step: int) -> None:
        super().__init__()
        self.axis, self.start, self.stop, self.step = axis, start, stop, step
        self.reverse = ops.ReverseV2(axis=[axis])

    def construct(self, x: Any) -> Any:
        """Compute it."""
        if self.step < 0:
            return self.reverse(x)
        key = (slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)
        return x[key]


def _binary(primitive: Callable[[], Any]) -> Callable[[NodeProto, EditableGraph, dict[str, int]], nn.Cell]:
    def build(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
        constants = [graph.constant(name) for name in node.input]
        for i, value in enumerate(constants):
            if value is not None:
                return WithConstant(primitive(), value, first=i == 0)
        return Two(primitive())

    return build


def _need(node: NodeProto, graph: EditableGraph, i: int) -> Array:
    value = graph.constant(node.input[i]) if i < len(node.input) else None
    if value is None:
        raise ModelFormatError(f"MindSpore export: {label(node)} wants a constant as input {i}")
    return value


def _optional(node: NodeProto, graph: EditableGraph, i: int) -> Array | None:
    return _need(node, graph, i) if i < len(node.input) and node.input[i] else None


def _gemm(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    if attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1 or attribute(node, "transA", 0):
        raise ModelFormatError(f"MindSpore export: {label(node)} with alpha, beta or transA is not supported")
    return Dense(_need(node, graph, 1), _optional(node, graph, 2), transposed=bool(attribute(node, "transB", 0)))


def _pool(node: NodeProto, _graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    if any(attribute(node, "pads", [0])) or attribute(node, "ceil_mode", 0):
        raise ModelFormatError(f"MindSpore export: {label(node)} with padding is not supported")
    kernel = tuple(attribute(node, "kernel_shape"))
    return Apply(ops.MaxPool(kernel_size=kernel, strides=tuple(attribute(node, "strides", kernel)), pad_mode="valid"))


def _slice(node: NodeProto, graph: EditableGraph, ranks: dict[str, int]) -> nn.Cell:
    start, stop = (int(_need(node, graph, i).reshape(-1)[0]) for i in (1, 2))
    axes = _need(node, graph, 3).reshape(-1)
    step = int(_need(node, graph, 4).reshape(-1)[0]) if len(node.input) > 4 else 1
    backwards = step == -1 and start == -1 and stop < -(2**31) + 1
    if len(axes) != 1 or (step < 0 and not backwards) or (start < 0 <= step) or ranks.get(node.input[0]) is None:
        raise ModelFormatError(f"MindSpore export: {label(node)} is neither a plain range nor a whole reversal")
    return Cut(int(axes[0]) % ranks[node.input[0]], start, stop, step)


def _clip(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    low, high = _optional(node, graph, 1), _optional(node, graph, 2)
    return Apply(
        ops.clamp, None if low is None else float(low.reshape(())), None if high is None else float(high.reshape(()))
    )


def _sum(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    axes = _optional(node, graph, 1)
    chosen = attribute(node, "axes") if axes is None else axes.reshape(-1).tolist()
    return Apply(ops.ReduceSum(keep_dims=bool(attribute(node, "keepdims", 1))), tuple(int(a) for a in chosen))


def _gather(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    index = _need(node, graph, 1).astype(np.int32)
    return Apply(ops.Gather(), Tensor(index), int(attribute(node, "axis", 0)))


def _cast(node: NodeProto, _graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    kind = attribute(node, "to")
    if kind not in _TYPES:
        raise ModelFormatError(f"MindSpore export: {label(node)} to ONNX type {kind} is not supported")
    return Apply(ops.Cast(), _TYPES[kind])


def _flatten(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    if attribute(node, "axis", 1) != 1:
        raise ModelFormatError(f"MindSpore export: {label(node)} at axis {attribute(node, 'axis', 1)} is not supported")
    return Apply(ops.Flatten())


def _reshape(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    return Apply(ops.Reshape(), tuple(int(v) for v in _need(node, graph, 1)))


def _matmul(node: NodeProto, graph: EditableGraph, ranks: dict[str, int]) -> nn.Cell:
    weight = graph.constant(node.input[1])
    if weight is not None and ranks.get(node.input[0]) == 2:
        return Dense(weight, None, transposed=False)
    return Two(ops.matmul) if weight is None else WithConstant(ops.matmul, weight, first=False)


def _layer_norm(node: NodeProto, graph: EditableGraph, _ranks: dict[str, int]) -> nn.Cell:
    scale = _need(node, graph, 1)
    shift = _optional(node, graph, 2)
    return Norm(
        scale,
        np.zeros_like(scale) if shift is None else shift,
        axis=attribute(node, "axis", -1),
        epsilon=attribute(node, "epsilon", 1e-5),
    )


Builder = Callable[[NodeProto, EditableGraph, dict[str, int]], nn.Cell]

CELLS: dict[str, Builder] = {
    "Add": _binary(ops.Add),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, _g, _r: Joined(int(attribute(node, "axis"))),
    "Conv": lambda node, graph, _r: Convolution(node, _need(node, graph, 1), _optional(node, graph, 2)),
    "Div": _binary(ops.Div),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": lambda _n, _g, _r: Apply(ops.Identity()),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, _g, _r: Apply(ops.leaky_relu, float(attribute(node, "alpha", 0.01))),
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _binary(ops.Mul),
    "PRelu": lambda node, graph, _r: WithConstant(ops.PReLU(), _need(node, graph, 1).reshape(-1), first=False),
    "ReduceSum": _sum,
    "Relu": lambda _n, _g, _r: Apply(ops.ReLU()),
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": lambda node, _g, _r: Apply(ops.Softmax(axis=int(attribute(node, "axis", -1)))),
    "Sub": _binary(ops.Sub),
    "Transpose": lambda node, _g, _r: Apply(ops.Transpose(), tuple(attribute(node, "perm"))),
}
