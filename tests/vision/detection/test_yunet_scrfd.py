"""YuNet against OpenCV's own decoder, SCRFD against InsightFace's rule written plainly, on networks of many answers."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from visavis.errors import DataError, ModelFormatError
from visavis.vision.detection.detectors import load_detector
from visavis.vision.detection.yunet_scrfd import Scrfd, YuNet

HEIGHT, WIDTH = 192, 256
YUNET = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))


def network(path, outputs, size=(HEIGHT, WIDTH)):
    """A network that answers `outputs` (name, array), in that order, to any picture of `size`, which it does read."""
    nodes = [helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0)]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    kept, infos = [zero], []
    for name, value in outputs:
        kept.append(numpy_helper.from_array(value, f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [name]))
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *size])
    graph = helper.make_graph(nodes, "answers", [image], infos, kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def yunet_answers(rng, chosen: int = 5):
    """Faces in a few cells of every grid, scores out of [0, 1] now and then, and noise everywhere else."""
    outputs = {}
    for stride in (8, 16, 32):
        cells = (HEIGHT // stride) * (WIDTH // stride)
        score, there = rng.uniform(-0.2, 0.3, (2, 1, cells, 1)).astype(np.float32)
        where = rng.choice(cells, chosen, replace=False)
        score[0, where, 0], there[0, where, 0] = rng.uniform(0.7, 1.2, (2, chosen))
        outputs["cls", stride], outputs["obj", stride] = score, there
        outputs["bbox", stride] = rng.uniform(0, 1, (1, cells, 4)).astype(np.float32)
        outputs["kps", stride] = rng.uniform(-1, 2, (1, cells, 10)).astype(np.float32)
    return outputs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shuffled", [False, True])
def test_yunet_is_decoded_as_opencv_does(tmp_path, seed, shuffled):
    """Outputs are found by their published names, whatever their order in the file."""
    answers = yunet_answers(np.random.default_rng(seed))
    order = [(kind, stride) for kind, _ in YUNET for stride in (8, 16, 32)]
    if shuffled:
        np.random.default_rng(seed).shuffle(order)
    path = network(tmp_path / "yunet.onnx", [(f"{k}_{s}", answers[k, int(s)]) for k, s in order])
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    theirs = cv2.FaceDetectorYN.create(str(path), "", (WIDTH, HEIGHT), 0.6, 0.3, 5000).detect(image[..., ::-1])[1]
    detector = load_detector("yunet", path, min_face=1)
    detector.asked = False  # one pass, as the published code makes
    ours = detector.detect(image)
    assert len(ours) == len(theirs) >= 8
    theirs = theirs[np.argsort(-theirs[:, 14], kind="stable")]
    assert np.allclose(ours.scores, theirs[:, 14], atol=1e-6)
    assert np.allclose(ours.boxes[:, :2], theirs[:, :2], atol=1e-3)
    assert np.allclose(ours.boxes[:, 2:] - ours.boxes[:, :2], theirs[:, 2:4], atol=1e-3)
    assert np.allclose(ours.landmarks, theirs[:, 4:14].reshape(-1, 5, 2), atol=1e-3)


@pytest.mark.parametrize(("strides", "anchors"), [((8, 16, 32), 2), ((8, 16, 32, 64, 128), 1)])
@pytest.mark.parametrize("shape", [(192, 256), (384, 512), (250, 250), (300, 97)])
def test_scrfd_is_decoded_as_insightface_does(tmp_path, strides, anchors, shape):
    """Cell (r, c) of stride s predicts distances from (c·s, r·s), its anchors one after the other, in strides."""
    rng = np.random.default_rng(1)
    high, wide = (HEIGHT, WIDTH) if anchors == 2 else (256, 384)
    rows: dict[str, list[np.ndarray]] = {"score": [], "box": [], "points": []}
    expected = []
    ratio = shape[0] / shape[1]
    new = (high, int(high / ratio)) if ratio > high / wide else (int(wide * ratio), wide)
    for stride in strides:
        height, width = high // stride, wide // stride
        values = [np.zeros((height * width * anchors, n), np.float32) for n in (1, 4, 10)]
        for index in rng.choice(len(values[0]), min(3, len(values[0])), replace=False):
            row, column = divmod(int(index) // anchors, width)
            values[0][index] = rng.uniform(0.55, 0.99)
            values[1][index] = rng.uniform(1.2, 2.5, 4)
            values[2][index] = rng.uniform(-2, 2, 10)
            x, y = column * stride, row * stride
            left, top, right, bottom = values[1][index] * stride
            box = np.array([x - left, y - top, x + right, y + bottom])
            points = values[2][index].reshape(5, 2) * stride + [x, y]
            expected.append((float(values[0][index, 0]), box, points))
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    outputs = [(f"{name}{k}", value) for name in rows for k, value in enumerate(rows[name])]
    path = network(tmp_path / "scrfd.onnx", outputs, (high, wide))
    assert isinstance(load_detector(str(path)), Scrfd)
    detector = Scrfd(path, min_face=1, overlap=1.0)  # suppression is tested for itself
    detector.asked = False  # one pass, as the published code makes
    found = detector.detect(np.zeros((*shape, 3), np.uint8))
    expected.sort(key=lambda face: -face[0])
    scale = np.array([new[1] / shape[1], new[0] / shape[0]])
    assert len(found) == len(expected)
    for k, (score, box, points) in enumerate(expected):
        assert found.scores[k] == pytest.approx(score)
        assert np.allclose(found.boxes[k], box / np.tile(scale, 2), atol=1e-2)
        assert np.allclose(found.landmarks[k], points / scale, atol=1e-2)


def test_scrfd_without_landmarks_is_refused_with_the_reason(tmp_path):
    outputs = [(f"o{k}", np.zeros((HEIGHT * WIDTH // 4**s // 32, n), np.float32)) for k, (s, n) in
               enumerate((s, n) for n in (1, 4) for s in (0, 1, 2))]  # fmt: skip
    path = network(tmp_path / "six.onnx", outputs)
    with pytest.raises(ModelFormatError, match=r"9 or 15 outputs.* got 6 outputs .*without landmarks cannot align"):
        load_detector("scrfd", path)


def test_channels_and_range_of_the_inputs(tmp_path):
    """SCRFD sees RGB in [−1, 1], YuNet BGR in 0 … 255, as published."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = 255
    answers = yunet_answers(np.random.default_rng(0))
    yunet = network(tmp_path / "y.onnx", [(f"{k}_{s}", answers[k, s]) for k, _ in YUNET for s in (8, 16, 32)])
    seen = YuNet(yunet)._prepare(image)
    assert seen.shape == (1, 3, HEIGHT, WIDTH)
    assert seen[0, :, 0, 0].tolist() == [0, 0, 255]
    cells = [HEIGHT * WIDTH // s**2 * 2 for s in (8, 16, 32)]
    outputs = [(f"{n}{c}", np.zeros((c, n), np.float32)) for n in (1, 4, 10) for c in cells]
    scrfd = Scrfd(network(tmp_path / "s.onnx", outputs))
    assert scrfd._prepare(image)[0, :, 0, 0].tolist() == [127.5 / 128, -127.5 / 128, -127.5 / 128]


def test_a_detector_without_its_file_says_what_to_type():
    with pytest.raises(DataError, match=r"Scrfd needs its \.onnx file: --detector scrfd=FILE"):
        Scrfd(None)
