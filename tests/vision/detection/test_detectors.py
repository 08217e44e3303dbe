"""Detectors: MTCNN on drawn and real faces, YuNet and SCRFD on networks that answer what was planted in them."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from visavis.errors import DataError, ModelFormatError
from visavis.types import Faces
from visavis.vision.detection.detectors import choose, load_detector, no_faces, suppress

BOX = np.array([100.0, 60.0, 164.0, 140.0])


POINTS = np.array([[115.0, 85.0], [149.0, 84.0], [131.0, 101.0], [118.0, 118.0], [146.0, 119.0]])


SIZE = (192, 256)


def planted(path, kind: str):
    """A network of the right signature whose answer is one face, `BOX` with `POINTS`, in cell (4, 6) of stride 16."""
    outputs, stride, row, column = {}, 16, 6, 8
    for s in (8, 16, 32):
        cells, anchors = (SIZE[0] // s) * (SIZE[1] // s), 2 if kind == "scrfd" else 1
        for name, width in (("score", 1), ("there", 1), ("box", 4), ("points", 10)):
            outputs[name, s] = np.zeros((cells * anchors, width), np.float32)
    index = row * (SIZE[1] // stride) + column
    corner = np.array([column, row]) * stride
    if kind == "scrfd":
        index *= 2
        outputs["score", stride][index] = 0.9
        outputs["box", stride][index] = np.concatenate([corner - BOX[:2], BOX[2:] - corner]) / stride
        names = ["score", "box", "points"]
    else:
        outputs["score", stride][index] = 0.9
        outputs["there", stride][index] = 0.9
        center, sides = (BOX[:2] + BOX[2:]) / 2, BOX[2:] - BOX[:2]
        outputs["box", stride][index] = np.concatenate([(center - corner) / stride, np.log(sides / stride)])
        names = ["score", "there", "box", "points"]
    outputs["points", stride][index] = ((POINTS - corner) / stride).ravel()
    nodes, infos = [], []
    for name in names:
        for s in (8, 16, 32):
            value = outputs[name, s] if kind == "scrfd" else outputs[name, s][None]
            nodes.append(helper.make_node("Constant", [], [f"{name}{s}"], value=numpy_helper.from_array(value)))
            infos.append(helper.make_tensor_value_info(f"{name}{s}", TensorProto.FLOAT, value.shape))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *SIZE])
    graph = helper.make_graph(nodes, "planted", [image], infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("kind", ["scrfd", "yunet"])
@pytest.mark.parametrize("scale", [1, 2])
def test_the_planted_face_is_decoded(tmp_path, kind, scale):
    path = planted(tmp_path / "net.onnx", kind)
    for detector in (load_detector(kind, path), load_detector(str(path))):
        faces = detector.detect(np.zeros((SIZE[0] * scale, SIZE[1] * scale, 3), np.uint8))
        assert len(faces) == 1
        assert faces.scores[0] == pytest.approx(0.9)
        assert np.allclose(faces.boxes[0] / scale, BOX, atol=1e-3)
        assert np.allclose(faces.landmarks[0] / scale, POINTS, atol=1e-3)


def test_small_faces_are_left_out(tmp_path):
    detector = load_detector("scrfd", planted(tmp_path / "net.onnx", "scrfd"), min_face=100)
    assert len(detector.detect(np.zeros((*SIZE, 3), np.uint8))) == 0


def test_wrong_models(tmp_path):
    scrfd = planted(tmp_path / "scrfd.onnx", "scrfd")
    with pytest.raises(ModelFormatError, match=r"expected YuNet \(12 outputs"):
        load_detector("yunet", scrfd)
    with pytest.raises(DataError, match="--detector scrfd=FILE"):
        load_detector("scrfd")
    with pytest.raises(DataError, match="unknown detector 'mtcn'; did you mean 'mtcnn'"):
        load_detector("mtcn")
    with pytest.raises(ModelFormatError, match="there is none"):
        load_detector("scrfd", tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelFormatError, match="cannot load the detector"):
        load_detector(str(tmp_path / "bad.onnx"))


def faces_of(*boxes) -> Faces:
    n = len(boxes)
    return Faces(np.array(boxes, np.float32).reshape(n, 4), np.ones(n, np.float32), np.zeros((n, 5, 2), np.float32))


def test_choose_prefers_large_and_central():
    assert choose(faces_of((0, 0, 60, 60), (95, 95, 155, 155)), (250, 250, 3)) == 1
    assert choose(faces_of((20, 20, 220, 220), (120, 120, 130, 130)), (250, 250, 3)) == 0
    with pytest.raises(DataError):
        choose(no_faces(), (10, 10, 3))


def slow_suppress(boxes, scores, limit, of_smaller):
    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return shared / (min(areas) if of_smaller else sum(areas) - shared)

    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if all(overlap(boxes[i], boxes[k]) <= limit for k in kept):
            kept.append(i)
    return kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.booleans())
def test_suppression_is_the_plain_greedy_one(seed, count, of_smaller):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 20, (count, 2))
    boxes = np.hstack([low, low + rng.uniform(1, 20, (count, 2))]).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32)
    assert suppress(boxes, scores, 0.4, of_smaller=of_smaller).tolist() == slow_suppress(boxes, scores, 0.4, of_smaller)


def test_tiles_of_a_single_stage_detector_cover_the_picture(tmp_path):
    """With a smallest face asked for, parts at its scale overlap by a quarter; what inner edges cut is dropped."""
    path = planted(tmp_path / "net.onnx", "scrfd")
    whole = (1000, 1500, 3)
    assert load_detector("scrfd", path)._tiles(whole) == []
    detector = load_detector("scrfd", path, min_face=24)  # twice what the network needs, so parts twice its input
    tiles = detector._tiles(whole)
    covered = np.zeros(whole[:2], int)
    for top, left, bottom, right in tiles:
        assert (bottom - top) <= 2 * SIZE[0]
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1
    tops = sorted({t[0] for t in tiles})
    assert tops[0] + 2 * SIZE[0] - tops[1] == 2 * SIZE[0] // 4
    faces = detector.detect(np.zeros(whole, np.uint8))  # the network finds its face in every part
    assert len(faces) > len(tiles) / 2
    first = faces.boxes[np.abs(faces.boxes - 2 * BOX).max(1).argmin()]
    assert np.allclose(first, 2 * BOX, atol=60)
    assert (faces.boxes[:, 2] <= 1500).all()
