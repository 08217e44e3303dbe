"""ONNX files without the package onnx: what a graph takes, and block-quantized weights turned into plain ones once.

ONNX Runtime dequantizes weights that are stored in blocks each time a file is loaded, and refuses some (a last block
that is shorter, scales of one element); ONNX IR, onnx.proto of version 1.17, numbers the fields.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.protobuf import Fields, Value, read_fields, write_fields

_GRAPH = 7  # of a model
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13  # of a graph
_NAMED = {_INITIALIZER: 8, _INPUT: 1, _OUTPUT: 1, _VALUE_INFO: 1}  # the field of each that holds its name
_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}
_FLOAT, _INT64 = 1, 7

Array = npt.NDArray[Any]
Sides = Sequence[int | str]


@dataclass(frozen=True)
class Node:
    """A node as far as it is looked at: `raw` holds all of it, `inner` the graphs of If, Loop and Scan."""

    raw: memoryview
    inputs: list[str]
    outputs: list[str]
    kind: str
    integers: dict[str, int]
    reals: dict[str, float]
    inner: list[memoryview]


@dataclass
class Graph:
    """A model taken apart: its nodes, its constants by name, and every other field of model and graph."""

    model: Fields
    nodes: list[Node]
    constants: dict[str, memoryview]
    rest: Fields


def simplified(data: bytes, *, inputs: Mapping[str, Sides] | None = None) -> bytes:
    """A model's graph with no inputs but those that are fed, and its quantized weights as float32.

    An input that no node reads, or that is an initializer or a node's output, is none. `DequantizeLinear` of constants,
    in blocks or not, and `Reshape` of its result become initializers.

    Args:
        data: an ONNX file.
        inputs: sides of float inputs declared anew, open ones by a name; outputs keep their last side alone.

    Returns:
        `data` itself where there is nothing to do.

    Raises:
        ModelFormatError: not an ONNX file, or weights that contradict their shape.
    """
    model = read_fields(data)
    whole = next((value for number, value in model if number == _GRAPH), None)
    if whole is None or isinstance(whole, int):
        raise ModelFormatError("expected an ONNX model, got a file without a graph")
    graph = _simplified_graph(read_fields(whole), inputs or {})
    if graph is None:
        return data
    return write_fields((n, write_fields(graph) if n == _GRAPH else value) for n, value in model)


def with_first_output(data: bytes, name: str) -> bytes:
    """A model whose graph names the output `name` before its others."""
    model = read_fields(data)

    def moved(graph: Fields) -> Fields:
        first = [(n, v) for n, v in graph if n == _OUTPUT and _text(_bytes(v), 1) == name]
        return Fields([*first, *((n, v) for n, v in graph if (n, v) not in first)])

    return write_fields((n, write_fields(moved(read_fields(_bytes(v)))) if n == _GRAPH else v) for n, v in model)


def _simplified_graph(graph: Fields, inputs: Mapping[str, Sides]) -> Fields | None:
    nodes = [_node(value) for number, value in graph if number == _NODE]
    constants = {_text(_bytes(v), 8): _bytes(v) for number, v in graph if number == _INITIALIZER}
    folded: dict[str, Array] = {}
    left = []
    for node in nodes:
        made = _folded(node, constants, folded)
        if made is None:
            left.append(node)
        else:
            folded[node.outputs[0]] = made
    outputs = {_text(_bytes(v), 1) for number, v in graph if number == _OUTPUT}
    read = outputs.union(*(_read_by(node) for node in left))
    given = set(constants) | {name for node in nodes for name in node.outputs}
    kept = Fields((_NODE, node.raw) for node in left)
    for number, value in graph:
        if number == _NODE:
            continue
        where = _NAMED.get(number)
        name = "" if where is None else _text(_bytes(value), where)
        if number == _INITIALIZER and name not in read:
            continue
        if number == _INPUT and (name not in read or name in given):
            continue
        if number == _VALUE_INFO and (name in folded or inputs):
            continue
        if number == _INPUT and name in inputs:
            value = value_info(name, inputs[name])
        elif number == _OUTPUT and inputs:
            value = value_info(name, _opened(_bytes(value), name))
        kept.append((number, value))
    kept += [(_INITIALIZER, tensor(name, value)) for name, value in folded.items() if name in read]
    return kept if len(kept) < len(graph) or inputs else None


def take_apart(data: bytes) -> Graph:
    """A model's graph in parts that may be changed; see `put_together`."""
    model = read_fields(data)
    fields = read_fields(next(_bytes(value) for number, value in model if number == _GRAPH))
    return Graph(
        [(number, value) for number, value in model if number != _GRAPH],
        [_node(value) for number, value in fields if number == _NODE],
        {_text(_bytes(value), 8): _bytes(value) for number, value in fields if number == _INITIALIZER},
        [(number, value) for number, value in fields if number not in (_NODE, _INITIALIZER)],
    )


def put_together(graph: Graph, nodes: Sequence[bytes | memoryview], constants: Mapping[str, Array]) -> bytes:
    """The model of other `nodes`, and of `constants` beside those of the graph that are still read.

    Shapes: constants of any shape (N, ...).
    """
    read = set().union(*(_read_by(_node(node)) for node in nodes))
    fields: list[tuple[int, Value | str]] = [(_NODE, node) for node in nodes]
    fields += [(_INITIALIZER, raw) for name, raw in graph.constants.items() if name in read]
    fields += [(_INITIALIZER, tensor(name, value)) for name, value in constants.items()]
    return write_fields([*graph.model, (_GRAPH, write_fields([*fields, *graph.rest]))])


def constant(graph: Graph, name: str) -> Array | None:
    """The values of a constant; None where there is none of that name, or where they are kept in another form.

    Shapes: any (N, ...).
    """
    return _array(graph.constants[name]) if name in graph.constants else None


def rewired(node: Node, inputs: Sequence[str], output: str) -> bytes:
    """The node with other inputs and another output."""
    kept = [(number, value) for number, value in read_fields(node.raw) if number not in (1, 2)]
    return write_fields([*((1, name) for name in inputs), (2, output), *kept])


def _folded(node: Node, constants: dict[str, memoryview], folded: dict[str, Array]) -> Array | None:
    """The value of a node that dequantizes constants or reshapes such a value; None for any other."""
    if not node.outputs or len(node.inputs) not in (2, 3):
        return None
    if node.kind == "Reshape" and node.inputs[0] in folded and node.inputs[1] in constants:
        shape = _array(constants[node.inputs[1]])
        return None if shape is None else _reshaped(folded[node.inputs[0]], shape.tolist(), node.inputs[0])
    if node.kind != "DequantizeLinear" or not all(name in constants for name in node.inputs):
        return None
    parts = [_array(constants[name]) for name in node.inputs]
    if any(part is None for part in parts):
        return None
    values, scale, *zero = parts
    assert values is not None
    assert scale is not None
    if scale.dtype != np.float32:
        return None
    axis, block = node.integers.get("axis", 1), node.integers.get("block_size", 0)
    scale = _spread(scale, values.shape, axis, block, node.inputs[1])
    result = values.astype(np.float32)
    if zero and zero[0] is not None:
        result -= _spread(zero[0], values.shape, axis, block, node.inputs[2]).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        result *= scale
    if not np.isfinite(result).all():
        raise ModelFormatError(f"damaged: the weights {node.outputs[0]} hold NaN or infinity")
    return result


def _spread(scale: Array, shape: tuple[int, ...], axis: int, block: int, name: str) -> Array:
    """Scales or zero points as they meet the values: one for all, one for each index of an axis, or one for a block."""
    if scale.size == 1:
        return scale.reshape(())
    if not -len(shape) <= axis < len(shape):
        raise ModelFormatError(f"damaged: {name} is spread along axis {axis} of shape {shape}")
    axis %= len(shape)
    if block == 0:
        if scale.shape != (shape[axis],):
            raise ModelFormatError(f"damaged: {name} has shape {scale.shape} for axis {axis} of {shape}")
        return scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    expected = tuple(-(-side // block) if i == axis else side for i, side in enumerate(shape))
    if block < 1 or scale.shape != expected:
        raise ModelFormatError(f"damaged: {name} has shape {scale.shape} for blocks of {block} of {shape}")
    return scale.take(np.arange(shape[axis]) // block, axis=axis)


def _reshaped(values: Array, shape: list[int], name: str) -> Array:
    wanted = [values.shape[i] if side == 0 and i < values.ndim else side for i, side in enumerate(shape)]
    try:
        return values.reshape(wanted)
    except ValueError as error:
        raise ModelFormatError(f"damaged: {name} of shape {values.shape} is reshaped to {wanted}") from error


def _array(raw: memoryview) -> Array | None:
    """A tensor's values; None where they are kept in another file or in an unusual form."""
    fields = read_fields(raw)
    dims = [int(value) for value in _integers(fields, 1)]
    kind = next((value for number, value in fields if number == 2), 0)
    content = next((value for number, value in fields if number == 9), None)
    dtype = _TYPES.get(kind) if isinstance(kind, int) else None
    if content is None and kind == _FLOAT:
        content = b"".join(_bytes(value) for number, value in fields if number == 4) or None
    if content is None or isinstance(content, int) or dtype is None:
        return None
    if max(dims, default=0) >> 40 or math.prod(dims) * np.dtype(dtype).itemsize != len(content):
        raise ModelFormatError(f"damaged: the tensor {_text(raw, 8)} of shape {dims} holds {len(content):,} bytes")
    try:
        return np.frombuffer(content, dtype).reshape(dims)
    except ValueError as error:  # no numbers, and sides whose product no machine can count
        raise ModelFormatError(f"damaged: the tensor {_text(raw, 8)} has the shape {dims}") from error


def _integers(fields: Fields, number: int) -> list[int]:
    """A repeated integer, packed or one by one."""
    found: list[int] = []
    for key, value in fields:
        if key == number and isinstance(value, int):
            found.append(value)
        elif key == number:
            found += _packed(_bytes(value))
    return found


def _packed(view: memoryview) -> list[int]:
    # A packed list is a message without field numbers: give each number one.
    numbers, value, shift = [], 0, 0
    for byte in view:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
    return numbers


def _node(raw: Value) -> Node:
    fields = read_fields(_bytes(raw))
    integers: dict[str, int] = {}
    reals: dict[str, float] = {}
    inner: list[memoryview] = []
    for number, value in fields:
        if number == 5:
            attribute = read_fields(_bytes(value))
            for key, held in attribute:
                if key == 3 and isinstance(held, int):
                    integers[_text(_bytes(value), 1)] = _signed(held)
                if key == 2 and not isinstance(held, int) and len(held) == 4:
                    reals[_text(_bytes(value), 1)] = struct.unpack("<f", held)[0]
            inner += [_bytes(v) for key, v in attribute if key in (6, 11)]
    names = {key: [str(_bytes(v), "utf-8", "replace") for number, v in fields if number == key] for key in (1, 2, 4)}
    return Node(_bytes(raw), names[1], names[2], "".join(names[4][:1]), integers, reals, inner)


def _read_by(node: Node) -> set[str]:
    """Every name a node reads, also inside the graphs it holds."""
    names = set(node.inputs)
    for graph in node.inner:
        fields = read_fields(graph)
        names |= {_text(_bytes(v), 1) for number, v in fields if number == _OUTPUT}
        names = names.union(*(_read_by(_node(v)) for number, v in fields if number == _NODE))
    return names


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(raw: memoryview, number: int) -> str:
    found = next((value for key, value in read_fields(raw) if key == number and not isinstance(value, int)), b"")
    return str(found, "utf-8", "replace")


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ModelFormatError("damaged: a number where a message should be; not an ONNX file")
    return memoryview(value)


def tensor(name: str, values: npt.ArrayLike) -> bytes:
    """A float32 or int64 tensor as ONNX keeps it."""
    array = np.asarray(values)
    kind = _INT64 if array.dtype.kind == "i" else _FLOAT
    content = np.ascontiguousarray(array, _TYPES[kind]).tobytes()
    return write_fields([*((1, int(side)) for side in array.shape), (2, kind), (8, name), (9, content)])


def _opened(declared: memoryview, name: str) -> list[int | str]:
    """The sides of a declared tensor, all but the last left open."""
    shape = declared
    for number in (2, 1, 2):  # type, tensor type, shape
        shape = next((_bytes(value) for key, value in read_fields(shape) if key == number), memoryview(b""))
    sides = [_integers(read_fields(_bytes(side)), 1) for key, side in read_fields(shape) if key == 1]
    opened: list[int | str] = [f"{name}_{i}" for i in range(len(sides))]
    return [*opened[:-1], *(sides[-1] or opened[-1:])] if sides else []


def value_info(name: str, sides: Sides) -> bytes:
    """The declaration of a float tensor, open sides by name."""
    shape = write_fields((1, write_fields([(1 if isinstance(s, int) else 2, s)])) for s in sides)
    return write_fields([(1, name), (2, write_fields([(1, write_fields([(1, _FLOAT), (2, shape)]))]))])


def node(kind: str, inputs: Iterable[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    """A node of one output whose attributes are whole numbers or lists of them."""
    fields: list[tuple[int, Value | str]] = [(1, name) for name in inputs]
    fields += [(2, output), (3, output), (4, kind)]
    for name, value in attributes.items():
        if isinstance(value, int):
            fields.append((5, write_fields([(1, name), (3, value), (20, 2)])))
        else:
            fields.append((5, write_fields([(1, name), *((8, v) for v in value), (20, 7)])))
    return write_fields(fields)
