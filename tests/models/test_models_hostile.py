"""A stranger's model folder is data: no code runs, nothing grows beyond its weights, every fault is one line."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import visavis
from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.errors import ModelFormatError, VisavisError
from visavis.models import trust
from visavis.models.card import ModelCard
from visavis.models.checkpoints import read_checkpoint
from visavis.models.load import load_embedder
from visavis.models.torch import load_model, save_model
from visavis.vision.images import encode
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec((32, 32))
CROPS = np.zeros((3, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("good") / "model"
    network = build_backbone("small", size=(32, 32), dim=8, width=8).eval()
    save_model(folder, network, ModelCard("m", "small", 8, SPEC, backbone_args={"width": 8}))
    return folder


@pytest.fixture
def folder(good, tmp_path):
    """A copy whose card says otherwise: folder(**fields)."""

    def write(**fields):
        copy = Path(shutil.copytree(good, tmp_path / "model", dirs_exist_ok=True))
        (copy / "card.json").write_text(json.dumps({**json.loads((good / "card.json").read_text()), **fields}))
        return copy

    return write


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch):
    monkeypatch.setattr(trust, "_trusted", set())


MARK = "import pathlib, os; pathlib.Path(os.environ['MARK']).write_text('ran')\n"
OWN = (
    "from torch import nn\n"
    "class Net(nn.Module):\n"
    "    def __init__(self, size, dim): super().__init__(); self.dim = dim\n"
)


@pytest.mark.parametrize("words", [["verify", "A", "A", "--aligned"], ["embed", "crops", "--out", "x.npz"], ["export"]])
def test_no_code_of_a_card_runs_unasked(folder, tmp_path, monkeypatch, capsys, words):
    model = folder(backbone="evil_networks:Net")
    (model / "evil_networks.py").write_text(MARK + OWN)
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    monkeypatch.syspath_prepend(str(model))
    monkeypatch.chdir(model)
    (model / "crops" / "A").mkdir(parents=True)
    (model / "crops" / "A" / "1.png").write_bytes(encode(CROPS[0], ".png"))
    assert main([words[0], str(model), *words[1:]]) == 2
    said = capsys.readouterr().err
    assert "names Python code of its own, evil_networks:Net" in said
    assert "--trust-code" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert "evil_networks" not in sys.modules


def test_code_that_is_vouched_for_runs(folder, tmp_path, monkeypatch, capsys):
    model = folder(backbone="vouched_networks:Net", backbone_args={})
    (model / "vouched_networks.py").write_text(MARK + OWN)
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    monkeypatch.syspath_prepend(str(model))
    assert main(["export", str(model), "--trust-code"]) == 2  # its weights do not fit
    assert "the weights do not fit backbone vouched_networks:Net" in capsys.readouterr().err
    assert (tmp_path / "ran").exists()
    trust._trusted.clear()
    trust.trust_code("vouched_networks:Other")
    with pytest.raises(ModelFormatError, match="names Python code of its own"):
        load_model(model)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backbone": "..x:y"}, "'backbone' must be a name or module:callable"),
        ({"backbone": ":y"}, "'backbone' must be a name or module:callable"),
        ({"backbone": "a\0b:y"}, "'backbone' must be a name or module:callable"),
        ({"backbone": ""}, "'backbone' must be a name or module:callable"),
        ({"backbone": "smal"}, "did you mean 'small'"),
        ({"backbone_args": {"size": [1, 1]}}, "may not hold size"),
        ({"backbone_args": {"name": 1}}, "unknown argument of backbone small 'name'"),
        ({"backbone_args": {"self": 1}}, "unknown argument of backbone small 'self'"),
        ({"backbone_args": {"width": "x"}}, "cannot be built"),
        ({"backbone_args": {"width": -1}}, "wants a width in"),
        ({"backbone_args": {"width": 512}}, "do not fit"),
        ({"embedding_dim": 65536}, "do not fit"),
        ({"backbone": "iresnet200", "backbone_args": {}}, "do not fit"),
        ({"backbone": "vit_tiny", "backbone_args": {"depth": 10**9}}, "has more than|unknown argument|do not fit"),
        ({"backbone": "iresnet18", "backbone_args": {"blocks": [10**9] * 4}}, "has more than|unknown argument"),
        ({"backbone": "mbf", "backbone_args": {"scale": 10**6}}, "do not fit|cannot be built"),
        ({"backbone": "mbf", "backbone_args": {"blocks": [10**9] * 4}}, "has more than"),
        ({"exports": {"best": {"threads": "x"}}}, "exports.best.threads must be a whole number"),
        ({"exports": {"best": {"threads": True}}}, "exports.best.threads must be a whole number"),
        ({"exports": {"best": {"file": ["x"]}}}, "exports.best.file must be text"),
        ({"exports": {"best": 5}}, "exports.best must be an object"),
        ({"thresholds": {"1e-3": {"threshold": float("nan")}}}, "finite threshold"),
        ({"thresholds": {"1e-3": 5}}, "finite threshold"),
        ({"thresholds": {"1e-3": {"threshold": True}}}, "finite threshold"),
    ],
)
def test_a_hostile_card_is_one_line(folder, capsys, fields, said):
    model = folder(**fields)
    image = model / "a.png"
    image.write_bytes(encode(CROPS[0], ".png"))
    begun = time.process_time()
    assert main(["verify", str(model), str(image), str(image), "--aligned"]) == 2
    assert time.process_time() - begun < 20
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    import re

    assert re.search(said, lines[0]), lines[0]


def test_nothing_larger_than_the_weights_is_allocated(folder):
    model = folder(backbone_args={"width": 512})
    code = (
        "import resource, sys\n"
        "from visavis.models.load import load_embedder\n"
        "from visavis.errors import ModelFormatError\n"
        "import torch, visavis.models.torch\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_embedder(sys.argv[1])\n"
        "except ModelFormatError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    source = str(Path(visavis.__file__).parents[1])
    out = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
    ).stdout
    assert int(out) < 100_000  # kB; the network would take some hundred MB


def test_bench_of_a_larger_machine_is_cut_to_this_one(folder, monkeypatch):
    from visavis.export.gates.parity import crops_of
    from visavis.export.model import open_model
    from visavis.export.pipeline import export_model
    from visavis.models import load

    model = folder()
    export_model(open_model(model), "onnx", crops_of(None, SPEC, count=2))
    card = json.loads((model / "card.json").read_text())
    card["exports"]["best"] = {"runtime": "onnxruntime", "file": "model.onnx", "threads": 10**9}
    (model / "card.json").write_text(json.dumps(card))
    seen = []
    monkeypatch.setattr(load, "OnnxEmbedder", lambda *_, threads, **__: seen.append(threads))
    monkeypatch.setattr(load, "usable_cores", lambda: 3)
    load_embedder(model)
    assert seen == [3]


def test_a_key_that_stands_twice_is_refused(folder):
    model = folder()
    text = (model / "card.json").read_text().rstrip()[:-1] + ', "name": "other"}'
    (model / "card.json").write_text(text)
    with pytest.raises(ModelFormatError, match="the key 'name' stands twice"):
        load_embedder(model)


def graph(path, rows):
    """An ONNX file that answers `rows` whatever it is asked."""
    made = helper.make_graph(
        [helper.make_node("Reshape", ["w", "s"], ["embedding"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 32, 32, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", "D"])],
        [
            numpy_helper.from_array(rows.astype(np.float32), "w"),
            numpy_helper.from_array(np.array(rows.shape, np.int64), "s"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    card = ModelCard("m", "onnx", 8, SPEC).to_json()
    helper.set_model_props(model, {"visavis.card": card, "visavis.input": "uint8 pixels"})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.ones((1, 8)), r"gave values of shape \(1, 8\) for 3 crops; expected \(3, 8\)"),
        (np.ones((1, 24)), "the graph gives 24; card and graph disagree"),
        (np.ones((3, 4)), "the graph gives 4; card and graph disagree"),
        (np.ones((3, 0)), "the graph gives 0; card and graph disagree"),
        (np.full((3, 8), np.nan), "NaN or infinity"),
        (np.full((3, 8), np.inf), "NaN or infinity"),
    ],
)
def test_a_graph_that_gives_something_else_is_refused(tmp_path, rows, said):
    path = graph(tmp_path / "x.onnx", rows)
    with pytest.raises(ModelFormatError, match=said):
        load_embedder(path).embed(CROPS)


def test_weights_that_are_not_finite_are_refused(good, tmp_path):
    network, card = load_model(good)
    next(network.parameters()).data.view(-1)[0] = float("nan")
    save_model(tmp_path / "model", network, card)
    with pytest.raises(ModelFormatError, match="1 tensors hold NaN or infinity, the first is "):
        load_embedder(tmp_path / "model")


def test_a_tensor_that_claims_more_than_is_stored_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "x.pt")
    with pytest.raises(ModelFormatError, match=r"w claims 1,099,511,627,776 values and 4 bytes are stored"):
        read_checkpoint(tmp_path / "x.pt")
    torch.save({"w": torch.zeros(4, 6).t()[1:], "empty": torch.zeros(0)}, tmp_path / "y.pt")
    assert read_checkpoint(tmp_path / "y.pt")["w"].shape == (5, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "[" * 50_000, "nested too deep"),
        (lambda text: text + "\nname: other\n", "the key 'name' stands twice"),
        (lambda text: text.replace("lr: ", "lr: .inf, momentum: "), "optimizer.lr must be finite, got inf"),
        (lambda text: text.replace("lr: ", "lr: .nan, momentum: "), "optimizer.lr must be finite, got nan"),
        (
            lambda text: text.replace("64, steps: ", f"64, steps: {10**21}, log_every: "),
            "loop.steps must lie within 64 bits",
        ),
        (lambda text: text + "\nx: " + "y" * 1_000_001, "at most 1,000,000 characters"),
        (lambda text: text + "\0", "not YAML"),
        (lambda text: text.replace("name: quickstart", "name: ../../../tmp/evil"), "name becomes a folder's"),
        (lambda text: text + "\n? [a, b]\n: 3\n", "not YAML|unknown key|expected"),
        (lambda text: text.replace("name: ", "name: !!python/object/apply:os.system ['true'] #", 1), "not YAML"),
    ],
)
def test_a_hostile_recipe_is_one_line(tmp_path, capsys, change, said):
    import re

    from visavis.train.recipe import recipe_text

    (tmp_path / "r.yaml").write_text(change(recipe_text("quickstart")))
    assert main(["train", str(tmp_path / "r.yaml"), "--dry-run"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines[0]


@pytest.mark.parametrize("name", ["..x:y", ":y", "a\0b:y", "json.tool:x", "antigravity_that_is_not:x", "os:path.join"])
def test_a_recipe_s_backbone_that_cannot_be_imported_is_one_line(name):
    with pytest.raises(VisavisError) as raised:
        build_backbone(name, size=(32, 32), dim=8)
    assert len(str(raised.value).splitlines()) == 1


def test_what_a_recipe_names_needs_no_flag(tmp_path, monkeypatch):
    from visavis.train.build import build_network
    from visavis.train.recipe import load_recipe

    (tmp_path / "my_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = load_recipe("quickstart", ["--backbone.name=my_networks:Net", "--backbone.args={}"])
    network, _, card = build_network(recipe)
    save_model(tmp_path / "model", network, card)
    assert load_model(tmp_path / "model")[1].backbone == "my_networks:Net"
