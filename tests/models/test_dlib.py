"""dlib's network files: against dlib itself on the same chips, against a plain second reading, and hostile files."""

import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from visavis.errors import ModelFormatError, VisavisError
from visavis.models.dlib import onnx_of_dlib, read_dlib
from visavis.models.packaged import PACKAGED
from visavis.runtimes import onnx_session

FILE = PACKAGED["dlib-resnet"].file
needs_file = pytest.mark.skipif(FILE.find() is None, reason="the extra pretrained-dlib is not installed")
EMPTY = (0, 0, 0, 0)


def number(value):
    """dlib's whole number: sign and count of bytes, then the bytes."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def numbers(*values):
    return b"".join(map(number, values))


def text(name):
    return number(len(name)) + name.encode()


def real(mantissa, exponent=0):
    return numbers(mantissa, exponent)


def tensor(values, sides):
    return numbers(2, *sides) + np.asarray(values, "<f4").tobytes()


TRAINING = b"110" + numbers(2, *EMPTY) * 3


def convolution(rng, filters, channels, side, stride, pad):
    weight = rng.normal(0, 0.2, (filters, channels, side, side))
    values = np.concatenate([weight.ravel(), rng.normal(0, 0.1, filters)])
    made = text("con_4") + tensor(values, (len(values), 1, 1, 1))
    made += numbers(filters, side, side, stride, stride, pad, pad)
    made += numbers(1, filters, channels, side, side) + numbers(1, 1, filters, 1, 1)
    return made + real(1) * 4 + TRAINING


def affine(rng, channels):
    values = np.concatenate([rng.uniform(0.5, 1.5, channels), rng.normal(0, 0.1, channels)])
    shapes = numbers(1, 1, channels, 1, 1) * 2
    return text("affine_") + tensor(values, (2 * channels, 1, 1, 1)) + shapes + number(0) + TRAINING


def pool(name, *window):
    return text(name) + numbers(*window) + TRAINING


def block(rng, filters, channels, *, halve):
    made = convolution(rng, filters, channels, 3, 2 if halve else 1, 0 if halve else 1) + affine(rng, filters)
    made += text("relu_") + TRAINING + convolution(rng, filters, filters, 3, 1, 1) + affine(rng, filters)
    if halve:
        made += pool("avg_pool_2", 2, 2, 2, 2, 0, 0)
    return made + text("add_prev_") + TRAINING + text("relu_") + TRAINING


def network(size=24):
    """A small network of the recognizer's kind; at its last block the shortcut is larger than what it is added to."""
    rng = np.random.default_rng(0)
    made = numbers(1, 1) + text("loss_metric_2") + real(5, -7) + real(6, -1)
    made += numbers(1, 2, 1, 2, 3, 1) + text("input_rgb_image_sized") + real(122) + real(117) + real(104)
    made += numbers(size, size)
    first = convolution(rng, 4, 3, 7, 2, 0)
    made += first + number(1) + affine(rng, 4) + text("relu_") + TRAINING + pool("max_pool_2", 3, 3, 2, 2, 0, 0)
    made += block(rng, 4, 4, halve=False) + block(rng, 6, 4, halve=True)
    made += pool("avg_pool_2", 0, 0, 1, 1, 0, 0)
    matrix = rng.normal(0, 0.3, (6, 5))
    made += text("fc_2") + numbers(5, 6) + tensor(matrix, (6, 5, 1, 1)) + numbers(1, 6, 5, 1, 1)
    return made + numbers(1, *EMPTY) + number(1) + real(1) * 4 + TRAINING


GOOD = network()


def test_a_graph_is_what_dlib_s_layers_mean():
    """Every layer recomputed in plain numpy from what was read; sums fill the smaller with zeros."""
    found = read_dlib(GOOD)
    assert (found.mean, found.size) == ((122, 117, 104), (24, 24))
    x = np.random.default_rng(1).normal(size=(2, 3, 24, 24)).astype(np.float32)
    expected = _plain(found.layers, x.astype(np.float64))
    graph = onnx_of_dlib(GOOD)
    got = onnx_session(graph, threads=1).run(None, {"data": x})[0]
    assert got.shape == (2, 5)
    assert np.allclose(got, expected, atol=1e-5)
    assert np.allclose(ReferenceEvaluator(_model(graph)).run(None, {"data": x})[0], expected, atol=1e-5)


def _model(data):
    import onnx

    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    return model


def _plain(layers, x):
    """dlib's layers by loops: the shortcut of a block is what its first convolution read."""
    shortcut = x
    for i, layer in enumerate(layers):
        if layer.name == "con_4":
            if i and (layers[i - 1].name == "max_pool_2" or layers[i - 2].name == "add_prev_"):
                shortcut = x
            x = _windows(x, layer.numbers[1:], lambda part, w=layer.weight: np.tensordot(part, w, ((1, 2, 3),) * 2))
            x = x + layer.bias[:, None, None]
        elif layer.name == "affine_":
            x = x * layer.weight[:, None, None] + layer.bias[:, None, None]
        elif layer.name == "relu_":
            x = np.maximum(x, 0)
        elif layer.name == "max_pool_2":
            x = _windows(x, layer.numbers, lambda part: part.max((2, 3)))
        elif layer.name == "avg_pool_2" and layer.numbers[0]:
            shortcut = _windows(shortcut, layer.numbers, lambda part: part.mean((2, 3)))
        elif layer.name == "avg_pool_2":
            x = x.mean((2, 3))
        elif layer.name == "add_prev_":
            whole = np.zeros((len(x), *np.maximum(x.shape[1:], shortcut.shape[1:])))
            for part in (x, shortcut):
                whole[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
            x = whole
        else:
            x = x @ layer.weight
    return x


def _windows(x, numbers, function):
    high, wide, down, right, pad_y, pad_x = numbers
    x = np.pad(x, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    rows = range(0, x.shape[2] - high + 1, down)
    columns = range(0, x.shape[3] - wide + 1, right)
    parts = [[function(x[:, :, r : r + high, c : c + wide]) for c in columns] for r in rows]
    return np.array(parts).transpose(2, 3, 0, 1)


@needs_file
def test_the_recognizer_answers_as_dlib_does():
    """The same chips, 150×150, through dlib and through ONNX Runtime."""
    dlib = pytest.importorskip("dlib")
    theirs = dlib.face_recognition_model_v1(str(FILE.find()))
    data = FILE.find().read_bytes()
    found, session = read_dlib(data), onnx_session(onnx_of_dlib(data), threads=1)
    rng = np.random.default_rng(0)
    for side in (4, 9, 30):
        chip = cv2.resize(rng.integers(0, 256, (side, side, 3), np.uint8), found.size)
        x = (chip.astype(np.float32) - np.asarray(found.mean, np.float32)) / 256
        ours = session.run(None, {"data": x.transpose(2, 0, 1)[None]})[0][0]
        assert np.abs(ours - np.array(theirs.compute_face_descriptor(chip))).max() < 1e-5


@needs_file
def test_the_packaged_file_is_the_network_its_author_describes():
    """29 convolutions, 150×150 pixels, 128 numbers."""
    found = read_dlib(FILE.find().read_bytes())
    assert found.size == (150, 150)
    assert np.allclose(found.mean, (122.782, 117.001, 104.298), atol=1e-3)
    assert sum(layer.name == "con_4" for layer in found.layers) == 29
    assert found.layers[-1].weight.shape == (256, 128)


def _damaged(good, find, put):
    assert good.count(find) >= 1
    return good.replace(find, put, 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged at byte 0: a number of 1 bytes, 0 are left"),
        (b"\x09", "no number begins with 0x09"),
        (b"\x00" * 9, "no number begins with 0x00"),
        (numbers(*[1] * 2000), "more than 1000 layers inside each other"),
        (numbers(1, 10**9), "expected a layer's name, got 1000000000 letters"),
        (_damaged(GOOD, b"loss_metric_2", b"loss_metric_9"), "loss_metric_2, got 'loss_metric_9'"),
        (_damaged(GOOD, b"input_rgb_image_sized", b"input_rgb_image_other"), "got 'input_rgb_image_other'"),
        (_damaged(GOOD, text("relu_"), text("tanh_")), "expected a layer of a face recognizer, got 'tanh_'"),
        (_damaged(GOOD, numbers(2, 592, 1, 1, 1), numbers(2, 2**40, 1, 1, 1)), "a tensor of shape"),
        (_damaged(GOOD, numbers(2, 592, 1, 1, 1), numbers(2, 2**20, 8, 1, 1)), "bytes, .* are left"),
        (_damaged(GOOD, numbers(2, 592, 1, 1, 1), numbers(2, -592, 1, 1, 1)), "a tensor of shape"),
        (_damaged(GOOD, numbers(2, 592, 1, 1, 1), numbers(3, 592, 1, 1, 1)), "expected a tensor of version 2, got 3"),
        (_damaged(GOOD, numbers(4, 7, 7, 2, 2, 0, 0), numbers(4, 7, 7, 0, 2, 0, 0)), "a window of"),
        (_damaged(GOOD, numbers(4, 7, 7, 2, 2, 0, 0), numbers(4, 7, 7, 2, 2, 2**30, 0)), "a window of"),
        (_damaged(GOOD, numbers(1, 4, 3, 7, 7), numbers(1, 4, 3, 7, 6)), "592 parameters are said to be"),
        (_damaged(GOOD, number(24) + number(24), number(9) + number(9)), "nothing is left of the picture"),
        (GOOD[:-1], "are left"),
        (GOOD + text("relu_") + TRAINING, "expected the mean over the picture and one matrix at the network's end"),
        (GOOD + b"\x01", "damaged at byte"),
        (_damaged(GOOD, b"110", b"1x0"), "expected three flags"),
    ],
)
def test_hostile_files_end_in_one_line(data, said):
    """Lengths are held against what is left before anything of that length is made."""
    with pytest.raises(ModelFormatError, match=said):
        onnx_of_dlib(data)


def test_weights_that_are_no_numbers_are_refused():
    """The first weight of the first convolution is NaN."""
    at = GOOD.index(numbers(2, 592, 1, 1, 1)) + len(numbers(2, 592, 1, 1, 1))
    with pytest.raises(ModelFormatError, match="holds NaN or infinity"):
        read_dlib(GOOD[:at] + struct.pack("<f", float("nan")) + GOOD[at + 4 :])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.booleans())
def test_a_changed_byte_ends_in_a_graph_or_a_message(at, byte, cut):
    """Never another exception; never a tensor larger than the file."""
    data = GOOD[:at] if cut else GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    with contextlib.suppress(VisavisError):
        onnx_of_dlib(data)
