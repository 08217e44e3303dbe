"""Shared fixtures: a tiny folder of picture-like identities, and the real faces beside the repository."""

import atexit
import os
import shutil
import signal
import tempfile

# Started in the background of a script, this process ignores Ctrl-C, and so would every process it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Two test processes share two cores: a thread each, set before anything brings its own pool.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing a test decodes stays behind in the user's cache.
os.environ.setdefault("VISAVIS_CACHE", tempfile.mkdtemp(prefix="visavis-cache-"))

import cv2
import numpy as np
import pytest
import shape_checks  # noqa: F401  before anything of visavis
from paths import SHARED

from visavis.runtimes import silence

pytest_plugins = ["deployment", "evaluation", "published_networks"]  # fixtures of several rooms, in tests/support
silence()  # tests import runtimes themselves
cv2.setNumThreads(1)
if "PYTEST_XDIST_WORKER" not in os.environ:
    atexit.register(shutil.rmtree, os.environ["VISAVIS_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def shared():
    """The folder of real faces and published weights beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def blob_folder(tmp_path_factory):
    """8 identities x 6 pictures of smooth colored blobs, one pattern per identity, with a pairs.txt of two folds."""
    root = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(0)
    names = [f"person_{i}" for i in range(8)]
    for name in names:
        pattern = rng.uniform(0, 255, (5, 5, 3)).astype(np.float32)
        (root / "images" / name).mkdir(parents=True)
        for k in range(1, 7):
            image = cv2.resize(pattern + rng.normal(0, 12, (5, 5, 3)).astype(np.float32), (112, 112))
            image = np.clip(image, 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / "images" / name / f"{name}_{k:04d}.jpg"), image)
    lines = ["2\t8"]
    for fold in (0, 4):
        own = names[fold : fold + 4]
        lines += [f"{n}\t{a}\t{b}" for n in own for a, b in ((1, 2), (3, 4))]
        lines += [f"{own[i]}\t{k}\t{own[(i + 1) % 4]}\t{k}" for i in range(4) for k in (1, 2)]
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server with pgvector, one for each test process."""
    from postgres_server import PostgresServer

    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def color_model(tmp_path_factory):
    """An exported model file whose embedding is the mean color: uint8 N×H×W×3 -> float (N, 3); one threshold, 0.9."""
    import json

    import onnx
    from onnx import TensorProto, helper

    from visavis.models.card import ModelCard
    from visavis.vision.preprocessing import PreprocessSpec

    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["mean", "gray"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 112, 112, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("gray", TensorProto.FLOAT, [3], [127.5] * 3)],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    built.ir_version = 8
    card = ModelCard(
        "colors", "fake", 3, PreprocessSpec(), weights_digest="e" * 64, thresholds={"1e-3": {"threshold": 0.9}}
    )
    helper.set_model_props(built, {"visavis.card": json.dumps(json.loads(card.to_json()))})
    path = tmp_path_factory.mktemp("color-model") / "model.onnx"
    onnx.save(built, path)
    return path


@pytest.fixture
def colored_people(tmp_path):
    """A folder per subject, red, green and blue, with two aligned crops each."""
    rng = np.random.default_rng(0)
    for name, color in {"red": (220, 40, 40), "green": (40, 220, 40), "blue": (40, 40, 220)}.items():
        (tmp_path / "people" / name).mkdir(parents=True)
        for i in range(2):
            crop = np.clip(np.array(color) + rng.integers(-20, 20, (112, 112, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "people" / name / f"{i}.png"), crop[..., ::-1])
    return tmp_path / "people"
