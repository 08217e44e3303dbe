"""dlib's network files: the face recognizer of dlib-models as an ONNX graph, without dlib.

A file is a stream of numbers, texts and tensors. A whole number is a byte (low nibble: how many bytes follow, high bit:
negative) and those bytes, lowest first; a text is its length and its bytes; a tensor is version 2, four sides and its
float32 numbers; a real number is mantissa and exponent. Layers lie in the order of the data, each with its name, its
own fields, three flags and three tensors of training (dlib/dnn/layers.h and core.h, dlib 20).

The network is a ResNet of 29 convolutions (He et al., arXiv 1512.03385v1, with half the filters a layer): convolutions
each followed by an affine map, blocks of two 3×3 convolutions whose shortcut is averaged 2×2 where they halve the
picture, the mean over the picture and a product with a 256×128 matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.onnx_file import node, tensor, value_info
from visavis.protobuf import Value, write_fields

_MAX_VALUES = 64_000_000
_MAX_NAME = 64
_MAX_LAYERS = 1000
_EMPTY = (0, 0, 0, 0)
_BLOCK = ("con_4", "affine_", "relu_", "con_4", "affine_")

Array = npt.NDArray[np.float32]


class _Reader:
    """Reads dlib's numbers from bytes; a length is held against what is left before it is believed."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int, what: str) -> bytes:
        if count > len(self.data) - self.at:
            raise ModelFormatError(
                f"damaged at byte {self.at:,}: {what} of {count:,} bytes, {len(self.data) - self.at:,} are left"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        head = self.take(1, "a number")[0]
        count = head & 0x0F
        if not 1 <= count <= 8 or head & 0x70:
            raise ModelFormatError(f"damaged at byte {self.at - 1:,}: no number begins with {head:#04x}")
        value = int.from_bytes(self.take(count, "a number"), "little")
        return -value if head & 0x80 else value

    def number(self) -> float:
        """A real number: mantissa · 2^exponent."""
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 2000:
            raise ModelFormatError(f"damaged at byte {self.at:,}: a number with the exponent {exponent}")
        return math.ldexp(mantissa, exponent)

    def text(self, length: int) -> str:
        if not 0 < length <= _MAX_NAME:
            raise ModelFormatError(f"damaged at byte {self.at:,}: expected a layer's name, got {length} letters")
        return self.take(length, "a name").decode("ascii", "replace")

    def name_after_versions(self) -> str:
        """The next name; before it stand the versions of what it is inside of, each 1, 2 or 3."""
        for _ in range(_MAX_LAYERS):
            value = self.integer()
            if not 1 <= value <= 3:
                return self.text(value)
        raise ModelFormatError(f"damaged at byte {self.at:,}: more than {_MAX_LAYERS} layers inside each other")

    def sides(self) -> tuple[int, ...]:
        sides = tuple(self.integer() for _ in range(4))
        if min(sides) < 0 or math.prod(sides) > _MAX_VALUES:
            raise ModelFormatError(f"damaged at byte {self.at:,}: a tensor of shape {sides}")
        return sides

    def tensor(self) -> Array:
        self._version(2)
        sides = self.sides()
        content = self.take(4 * math.prod(sides), f"a tensor of shape {sides}")
        values = np.frombuffer(content, "<f4").reshape(sides)
        if not np.isfinite(values).all():
            raise ModelFormatError(f"damaged at byte {self.at:,}: a tensor holds NaN or infinity")
        return values

    def alias(self) -> tuple[int, ...]:
        """The shape of a part of a layer's parameters."""
        self._version(1)
        return self.sides()

    def training_state(self) -> None:
        """Three flags, and three tensors that are empty in a network made for use."""
        if set(self.take(3, "flags")) - set(b"01"):
            raise ModelFormatError(f"damaged at byte {self.at:,}: expected three flags, 0 or 1")
        for _ in range(3):
            self.tensor()

    def _version(self, expected: int) -> None:
        got = self.integer()
        if got != expected:
            raise ModelFormatError(f"damaged at byte {self.at:,}: expected a tensor of version {expected}, got {got}")


@dataclass(frozen=True)
class _Layer:
    """A layer: its name, whole numbers (filters, window, stride, padding) and weights."""

    name: str
    numbers: tuple[int, ...] = ()
    weight: Array | None = None
    bias: Array | None = None


@dataclass(frozen=True)
class DlibNetwork:
    """What such a file holds: the mean (3,) taken off its RGB input, the side of its crops and its layers."""

    mean: tuple[float, float, float]
    size: tuple[int, int]
    layers: tuple[_Layer, ...]


def read_dlib(data: bytes) -> DlibNetwork:
    """Read a network of convolutions that dlib serialized, as `dlib_face_recognition_resnet_model_v1.dat` is.

    Raises:
        ModelFormatError: damaged, or another network; says at which byte.
    """
    reader = _Reader(data)
    loss = reader.name_after_versions()
    if loss != "loss_metric_2":
        raise ModelFormatError(f"expected a network that dlib trained with loss_metric_2, got {loss!r}")
    _skip_numbers(reader, 2)  # its margin and distance, of training
    name = reader.name_after_versions()
    if name != "input_rgb_image_sized":
        raise ModelFormatError(f"expected a network of input_rgb_image_sized, got {name!r}")
    mean = (reader.number(), reader.number(), reader.number())
    size = (reader.integer(), reader.integer())
    if not all(0 <= value <= 255 for value in mean) or not all(8 <= side <= 1024 for side in size):
        raise ModelFormatError(f"damaged: an input of {size} with the mean {mean}")
    layers: list[_Layer] = []
    while reader.at < len(data):
        if len(layers) >= _MAX_LAYERS:
            raise ModelFormatError(f"damaged at byte {reader.at:,}: more than {_MAX_LAYERS} layers")
        layers.append(_read_layer(reader))
        reader.training_state()
        if len(layers) == 1:
            reader.integer()  # pictures made of one, of training
    return DlibNetwork(mean, size, tuple(layers))


def _read_layer(reader: _Reader) -> _Layer:
    name = reader.text(reader.integer())
    if name == "con_4":
        values = reader.tensor().ravel()
        numbers = tuple(reader.integer() for _ in range(7))
        filters, biases = reader.alias(), reader.alias()
        _skip_numbers(reader, 4)
        return _Layer(name, numbers, *_parts(reader, values, filters, biases))
    if name == "affine_":
        values = reader.tensor().ravel()
        weight, bias = _parts(reader, values, reader.alias(), reader.alias())
        return _Layer(name, (reader.integer(),), weight.ravel(), bias.ravel())
    if name in ("max_pool_2", "avg_pool_2"):
        return _Layer(name, tuple(reader.integer() for _ in range(6)))
    if name in ("relu_", "add_prev_"):
        return _Layer(name)
    if name == "fc_2":
        numbers = reader.integer(), reader.integer()
        values = reader.tensor().ravel()
        weight, bias = _parts(reader, values, reader.alias(), reader.alias())
        reader.integer()  # whether it has a bias; its size says so too
        _skip_numbers(reader, 4)
        return _Layer(name, numbers, weight.reshape(weight.shape[0], -1), bias)
    raise ModelFormatError(f"at byte {reader.at:,}: expected a layer of a face recognizer, got {name!r:.80}")


def _skip_numbers(reader: _Reader, count: int) -> None:
    for _ in range(count):  # rates of learning and decay
        reader.number()


def _parts(reader: _Reader, values: Array, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[Array, Array]:
    """A layer's parameters as the two tensors they are kept for."""
    split = math.prod(first)
    if split + math.prod(second) != len(values):
        raise ModelFormatError(
            f"damaged at byte {reader.at:,}: {len(values):,} parameters are said to be {first} and {second}"
        )
    return values[:split].reshape(first), values[split:].ravel()


def onnx_of_dlib(data: bytes) -> bytes:
    """The ONNX graph of a dlib face recognizer's file; see `read_dlib` and `dlib_to_onnx`."""
    return dlib_to_onnx(read_dlib(data))


def dlib_to_onnx(network: DlibNetwork) -> bytes:
    """The ONNX graph (N, 3, H, W) → (N, D): float32 input normalized outside, affine maps folded into convolutions.

    Raises:
        ModelFormatError: the layers are not those of the recognizer.
    """
    graph = _Graph(network.size)
    layers = list(network.layers)
    _expect(layers, 0, ("con_4", "affine_", "relu_", "max_pool_2"))
    graph.convolve(layers[0], layers[1])
    graph.relu()
    graph.pool("MaxPool", layers[3])
    at = 4
    while at < len(layers) and layers[at].name == "con_4":
        _expect(layers, at, _BLOCK)
        shortcut = graph.now
        graph.convolve(layers[at], layers[at + 1])
        graph.relu()
        graph.convolve(layers[at + 3], layers[at + 4])
        main, at = graph.now, at + 5
        if at < len(layers) and layers[at].name == "avg_pool_2":
            graph.now = shortcut
            graph.pool("AveragePool", layers[at])
            shortcut, at = graph.now, at + 1
        _expect(layers, at, ("add_prev_", "relu_"))
        graph.add(main, shortcut)
        graph.relu()
        at += 2
    _expect(layers, at, ("avg_pool_2", "fc_2"))
    if len(layers) != at + 2 or layers[at].numbers[:2] != (0, 0):
        raise ModelFormatError("expected the mean over the picture and one matrix at the network's end")
    return graph.finish(layers[at + 1])


def _expect(layers: list[_Layer], at: int, names: tuple[str, ...]) -> None:
    got = tuple(layer.name for layer in layers[at : at + len(names)])
    if got != names:
        raise ModelFormatError(f"layer {at + 1}: expected {', '.join(names)}, got {', '.join(got) or 'the end'}")


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, int, int]  # channels, rows, columns


class _Graph:
    """Collects nodes; `now` is the tensor that the next layer reads."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.now = _Tensor("data", (3, *size))
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []

    def _emit(self, kind: str, inputs: list[str], shape: tuple[int, int, int], **attributes: Any) -> None:
        if min(shape) < 1:
            raise ModelFormatError(f"{kind} {len(self.nodes) + 1}: nothing is left of the picture, {shape}")
        name = f"{kind.lower()}_{len(self.nodes) + 1}"
        self.nodes.append(node(kind, inputs, name, **attributes))
        self.now = _Tensor(name, shape)

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        self.constants.append(tensor(name, values))
        return name

    def _window(self, numbers: tuple[int, ...]) -> tuple[dict[str, list[int]], int, int]:
        """Attributes of a window that moves over the picture, and rows and columns it gives (rounded down)."""
        high, wide, down, right, pad_y, pad_x = numbers
        if not all(1 <= n <= 64 for n in (high, wide, down, right)) or not all(0 <= n <= 64 for n in (pad_y, pad_x)):
            raise ModelFormatError(f"damaged: a window of {numbers}")
        _, rows, columns = self.now.shape
        attributes = {"kernel_shape": [high, wide], "strides": [down, right], "pads": [pad_y, pad_x, pad_y, pad_x]}
        return attributes, (rows + 2 * pad_y - high) // down + 1, (columns + 2 * pad_x - wide) // right + 1

    def convolve(self, layer: _Layer, affine: _Layer) -> None:
        """A convolution and its affine map as one: w ← γ·w, b ← γ·b + β."""
        assert layer.weight is not None
        assert layer.bias is not None
        assert affine.weight is not None
        assert affine.bias is not None
        count = layer.numbers[0]
        expected = (count, self.now.shape[0], *layer.numbers[1:3])
        if layer.weight.shape != expected or {len(layer.bias), len(affine.weight), len(affine.bias)} != {count}:
            raise ModelFormatError(f"a convolution of shape {layer.weight.shape} where {expected} was expected")
        attributes, rows, columns = self._window(layer.numbers[1:])
        at = len(self.nodes) + 1
        weight = self._constant(f"weight_{at}", layer.weight * affine.weight[:, None, None, None])
        bias = self._constant(f"bias_{at}", layer.bias * affine.weight + affine.bias)
        self._emit("Conv", [self.now.name, weight, bias], (count, rows, columns), **attributes)

    def relu(self) -> None:
        """max(x, 0)."""
        self._emit("Relu", [self.now.name], self.now.shape)

    def pool(self, kind: str, layer: _Layer) -> None:
        """The largest or the mean of each window; dlib's mean counts no padding, and has none here."""
        attributes, rows, columns = self._window(layer.numbers)
        self._emit(kind, [self.now.name], (self.now.shape[0], rows, columns), **attributes)

    def add(self, main: _Tensor, shortcut: _Tensor) -> None:
        """A sum: the smaller of the two is filled with zeros, channels behind, rows below and columns at the right."""
        shape = tuple(max(a, b) for a, b in zip(main.shape, shortcut.shape, strict=True))
        parts = [self._filled(part, shape) for part in (main, shortcut)]
        self._emit("Add", parts, shape)  # type: ignore[arg-type]

    def _filled(self, part: _Tensor, shape: tuple[int, ...]) -> str:
        missing = [whole - side for whole, side in zip(shape, part.shape, strict=True)]
        if not any(missing):
            return part.name
        pads = self._constant(f"pads_{len(self.nodes) + 1}", np.array([0, 0, 0, 0, 0, *missing], np.int64))
        self._emit("Pad", [part.name, pads], shape)  # type: ignore[arg-type]
        return self.now.name

    def finish(self, layer: _Layer) -> bytes:
        """The mean over rows and columns, the product with the last layer's matrix, and the whole as a file."""
        assert layer.weight is not None
        channels, dim = self.now.shape[0], layer.numbers[0]
        if layer.weight.shape != (channels, dim) or (layer.bias is not None and layer.bias.size):
            raise ModelFormatError(
                f"expected a last layer of {channels} × {dim} without bias, got {layer.weight.shape}"
            )
        self._emit("GlobalAveragePool", [self.now.name], (channels, 1, 1))
        self._emit("Flatten", [self.now.name], (channels, 1, 1), axis=1)
        weight = self._constant("weight_last", layer.weight)
        self.nodes.append(node("MatMul", [self.now.name, weight], "feature"))
        fields: list[tuple[int, Value | str]] = [(1, entry) for entry in self.nodes]
        fields += [(2, "dlib"), *((5, entry) for entry in self.constants)]
        fields += [(11, value_info("data", ("batch", 3, *self.size))), (12, value_info("feature", ("batch", dim)))]
        opset = write_fields([(1, ""), (2, 13)])
        return write_fields([(1, 8), (2, "visavis"), (7, write_fields(fields)), (8, opset)])
