"""Exported files as models: what they carry, what contradicts, what is damaged, what is missing."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from foreign_graphs import card_of, crops, tiny, unit

from visavis.cli import main
from visavis.errors import DataError, ModelFormatError, RecipeError
from visavis.models.card import ModelCard, read_card
from visavis.models.load import load_embedder
from visavis.vision.preprocessing import PreprocessSpec


def test_foreign_onnx_becomes_a_model_folder_without_torch(tmp_path, capsys):
    weight = tiny(tmp_path / "t.onnx")
    with pytest.raises(ModelFormatError, match="carries no model card"):
        load_embedder(tmp_path / "t.onnx")
    out = tmp_path / "model"
    arguments = ["import", str(tmp_path / "t.onnx"), "--backbone", "onnx", "--out", str(out), "--as-told"]
    assert main([*arguments, "--preprocess", "mean=127.5"]) == 2
    assert "std missing" in capsys.readouterr().err
    assert main([*arguments, "--preprocess", "mean=127.5,std=128,flip=sum", "--license", "MIT"]) == 0
    card = read_card(out)
    assert (card.backbone, card.embedding_dim, card.preprocess.size, card.license.weights) == (
        "onnx",
        4,
        (16, 16),
        "MIT",
    )
    assert len(card.weights_digest) == 64
    embedder = load_embedder(out, flip="none")
    x = (crops().astype(np.float64) - 127.5) / 128
    np.testing.assert_allclose(embedder.embed(crops()), unit(x.mean((1, 2)) @ weight), atol=1e-5)


def test_card_and_graph_that_disagree_are_refused(tmp_path):
    tiny(tmp_path / "size.onnx", card=card_of(size=(24, 16)))
    with pytest.raises(ModelFormatError, match=r"the card says crops of 24×16.*card and graph disagree"):
        load_embedder(tmp_path / "size.onnx")
    tiny(tmp_path / "dim.onnx", card=card_of(dim=7))
    with pytest.raises(ModelFormatError, match="embeddings of 7, the graph gives 4"):
        load_embedder(tmp_path / "dim.onnx")


def test_damaged_files_are_named(tmp_path):
    tiny(tmp_path / "t.onnx", card=card_of())
    whole = (tmp_path / "t.onnx").read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"<html>not found</html>")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelFormatError, match=f"{name}.onnx: "):
            load_embedder(path)
    with pytest.raises(ModelFormatError, match="no such file"):
        load_embedder(tmp_path / "none.onnx")


def test_damaged_card_inside_is_named(tmp_path):
    tiny(tmp_path / "t.onnx", card=card_of())
    model = onnx.load(tmp_path / "t.onnx")
    values = json.loads(model.metadata_props[0].value)
    values["embeding_dim"] = values.pop("embedding_dim")
    model.metadata_props[0].value = json.dumps(values)
    onnx.save(model, tmp_path / "t.onnx")
    with pytest.raises(ModelFormatError, match=r"missing .*embedding_dim.*unknown .*embeding_dim"):
        load_embedder(tmp_path / "t.onnx")


def test_wrong_crops_and_runtimes(tmp_path):
    tiny(tmp_path / "t.onnx", card=card_of())
    embedder = load_embedder(tmp_path / "t.onnx")
    with pytest.raises(DataError, match="uint8"):
        embedder.embed(crops().astype(np.float32))
    with pytest.raises(DataError, match="the network wants 16×16"):
        embedder.embed(crops(size=(20, 16)))
    with pytest.raises(RecipeError, match="did you mean 'onnxruntime'"):
        load_embedder(tmp_path / "t.onnx", runtime="onnxruntim")
    with pytest.raises(ModelFormatError, match="torch runs a model folder"):
        load_embedder(tmp_path / "t.onnx", runtime="torch")


def test_an_onnx_model_runs_where_torch_is_not(tmp_path):
    tiny(tmp_path / "t.onnx", card=card_of())
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Block())
import numpy as np
from visavis.models.load import load_embedder
print(load_embedder({str(tmp_path / "t.onnx")!r}).embed(np.zeros((2, 16, 16, 3), np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(2, 4)", done.stderr


def test_weights_without_torch_say_what_to_install(tmp_path, monkeypatch):
    from visavis.models.card import WEIGHTS, write_card

    write_card(tmp_path, ModelCard("m", "small", 4, PreprocessSpec((16, 16))))
    (tmp_path / WEIGHTS).write_bytes(b"x")
    monkeypatch.delitem(sys.modules, "visavis.models.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say: not installed
    with pytest.raises(ModelFormatError, match=r"needs torch.*pip install 'visavis\[train\]'"):
        load_embedder(tmp_path)
