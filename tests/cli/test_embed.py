"""visavis embed: names, labels, identities and unit embeddings in one .npz."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from visavis.cli import main
from visavis.models.card import ModelCard
from visavis.vision import images
from visavis.vision.preprocessing import PreprocessSpec


@pytest.fixture
def model(tmp_path):
    """A model whose embedding is the mean of each channel, after (x − 127.5)/127.5."""
    nodes = [helper.make_node("ReduceMean", ["image"], ["embedding"], axes=[2, 3], keepdims=0)]
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])]
    outs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(nodes, "g", ends, outs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    made.metadata_props.add(key="visavis.card", value=ModelCard("tiny", "onnx", 3, PreprocessSpec((16, 16))).to_json())
    onnx.save(made, tmp_path / "tiny.onnx")
    return str(tmp_path / "tiny.onnx")


COLORS = {"Ann": (255, 0, 0), "Bob": (0, 255, 255)}


@pytest.fixture
def people(tmp_path):
    for who, color in COLORS.items():
        (tmp_path / "set" / who).mkdir(parents=True)
        for n in range(2):
            images.write(tmp_path / "set" / who / f"{n}.png", np.full((16, 16, 3), color, np.uint8))
    return tmp_path / "set"


def test_embeddings_with_their_names(model, people, tmp_path, capsys):
    (people / "Bob" / "0.png").write_bytes(b"damaged")
    out = tmp_path / "e.npz"
    assert main(["embed", model, str(people), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "3 embeddings of 3 numbers" in shown
    assert "left out: Bob/0.png" in shown
    with np.load(out, allow_pickle=False) as file:
        assert file["names"].tolist() == ["Ann/0.png", "Ann/1.png", "Bob/1.png"]
        assert file["labels"].tolist() == [0, 0, 1]
        assert file["identities"].tolist() == ["Ann", "Bob"]
        rows = np.array([COLORS["Ann"], COLORS["Ann"], COLORS["Bob"]]) / 127.5 - 1
        assert np.allclose(file["embeddings"], rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)


def test_pictures_side_by_side_and_bad_arguments(model, people, tmp_path, capsys):
    out = str(tmp_path / "e.npz")
    assert main(["embed", model, str(people / "Ann"), "--out", out]) == 0
    assert "2 embeddings" in capsys.readouterr().out
    assert main(["embed", model, str(people), "--out", str(tmp_path / "e.txt")]) == 2
    assert "wants a .npz file" in capsys.readouterr().err
    assert main(["embed", model, str(people), "--out", str(tmp_path / "none" / "e.npz")]) == 2
    assert main(["embed", str(tmp_path), str(people), "--out", out]) == 2
