"""The trained classifier as a part of a model: kept, judged (row D11), exported in every format, and at the edge."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from visavis.cli import main
from visavis.errors import ModelFormatError, RecipeError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.models.card import read_card
from visavis.models.classifier import CLASSIFIER, Classifier, read_classifier
from visavis.models.load import load_embedder
from visavis.models.logits import load_logits
from visavis.train.closed_set import classifier_of
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.vision.images import read, write

PEOPLE, TRAINED, ASKED = 5, 6, 3


def recipe(home: Path, **sections):
    values = {
        "data": {"source": str(home / "train.txt"), "workers": 0},
        "preprocess": {"size": [32, 32], "flip": "sum"},
        "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
        "head": {"name": "softmax", "keep_classifier": True},
        "optimizer": {"lr": 0.05},
        "loop": {"batch_size": 10, "epochs": 6, "device": "cpu"},
        "evaluate": {"valid": "valid.txt", "every": 1, "unit": "epoch"},
    }
    return parse_recipe({key: {**values[key], **sections.get(key, {})} for key in values})


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Pictures of people told apart by their color, `path label` lists, and a run on them with its classifier."""
    root = tmp_path_factory.mktemp("closed")
    rng, lists = np.random.default_rng(0), {"train.txt": [], "valid.txt": []}
    colors = rng.integers(60, 196, (PEOPLE, 3))
    for person in range(PEOPLE):
        for i in range(TRAINED + ASKED):
            name = f"p {person}/{i}.png"
            (root / name).parent.mkdir(exist_ok=True)
            noise = rng.integers(-40, 40, (32, 32, 3))
            write(root / name, np.clip(colors[person] + noise, 0, 255).astype(np.uint8))
            lists["train.txt" if i < TRAINED else "valid.txt"].append(f"{name}\tperson {person}")
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    train(recipe(root), root / "run")
    return root


def judged(model: Path, home: Path, out: Path) -> dict:
    command = ["evaluate", model, "--protocol", "closed-set", "--data", home, "--classifier", "--json", out]
    assert main(list(map(str, command))) == 0
    return json.loads(out.read_text())


def by_hand(home: Path) -> float:
    """Row D11 written plainly: argmax of V x + b over the list, x the raw feature, mean over the two views."""
    kept, embedder = read_classifier(home / "run" / "best"), load_embedder(home / "run", flip="none")
    right = []
    for line in (home / "valid.txt").read_text().splitlines():
        path, label = line.split("\t")
        crop = read(home / path)[None]
        x = (embedder.features(crop) + embedder.features(np.ascontiguousarray(crop[:, :, ::-1])))[0] / 2
        right.append(kept.identities[int(np.argmax(kept.weight @ x + kept.bias))] == label)
    return float(np.mean(right))


def test_top1_of_the_run_is_that_of_the_command_and_of_a_plain_loop(home, tmp_path, capsys):
    found = judged(home / "run", home, tmp_path / "r.json")
    lines = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [(r["step"], r["eval"]["top1"]) for r in lines if "eval" in r]
    best = max(top1 for _, top1 in logged)
    assert found["accuracy"]["mean"] == pytest.approx(by_hand(home)) == pytest.approx(best)
    assert best > 1 / PEOPLE
    assert len(logged) == 6  # each epoch
    assert read_card(home / "run" / "best").notes["step"] == next(step for step, top1 in logged if top1 == best)
    assert found["comparisons"] == {"probes": PEOPLE * ASKED, "people": PEOPLE, "failed_to_acquire": 0}
    assert "by the trained classifier" in capsys.readouterr().out


FORMATS = {"onnx": "m.onnx", "openvino": "m.xml", "torch": "m.pt2", "mindir": "m.mindir"}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_export_format_gives_the_logits(kind, precision, home, tmp_path, capsys):
    if importlib.util.find_spec({"mindir": "mindspore", "openvino": "nncf"}.get(kind, kind)) is None:
        pytest.skip(f"the runtime of {kind} is not installed")
    if kind in ("torch", "mindir") and precision != "fp32":
        return
    file = tmp_path / FORMATS[kind]
    command = ["export", home / "run", "--format", kind, "--with-classifier", "--precision", precision, "--out", file]
    assert main([*map(str, command), "--data", str(home / "valid.txt")]) == 0
    assert "classifier of 5 identities" in capsys.readouterr().out
    if kind in ("torch", "mindir"):
        return  # no MODEL of `evaluate`; the export's own gate has compared the logits
    slack = 1 / (PEOPLE * ASKED) if precision == "int8" else 0  # rounding may turn one close decision
    found = judged(file, home, tmp_path / "r.json")["accuracy"]["mean"]
    assert found == pytest.approx(by_hand(home), abs=slack + 1e-9)
    plain = load_embedder(file).embed(read(home / "p 0" / "0.png")[None])
    assert plain.shape == (1, 8)  # the embedding is still the first output


def test_the_edge_folder_gives_the_same_top1(home, tmp_path):
    edge, python = tmp_path / "edge", sys.executable
    command = ["export", home / "run", "--with-classifier", "--out", tmp_path / "m.onnx", "--bundle", edge]
    assert main(list(map(str, command))) == 0
    listed = home / "valid.txt"
    for words in (
        ["preprocess.py", home, tmp_path / "t", "--labels", listed],
        ["run.py", tmp_path / "t", tmp_path / "f"],
        ["postprocess.py", tmp_path / "t", tmp_path / "f", "--labels", listed, "--json", tmp_path / "e.json"],
    ):
        done = subprocess.run([python, *map(str, words)], cwd=edge, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert found == {"top1": pytest.approx(by_hand(home)), "pictures": PEOPLE * ASKED, "identities": PEOPLE}


@pytest.mark.parametrize("head", ["softmax", "arcface", "subcenter_arcface", "asoftmax"])
@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_a_kept_classifier_decides_as_the_head_does(head, flip):
    torch.manual_seed(0)
    module = MarginSoftmax(build_head(head), num_classes=37, dim=8, chunk=5, seed=1)
    if module.bias is not None:
        torch.nn.init.normal_(module.bias)
    views = torch.randn(64, 2, 8)
    fused = {"none": views[:, 0], "sum": views.sum(1), "concat": views.flatten(1)}[flip]
    mean = views[:, 0] if flip == "none" else views.mean(1)
    kept = classifier_of(module, [str(i) for i in range(37)])
    found = kept.logits(fused.numpy(), flip).argmax(1)
    assert (found == module.predict(mean).numpy()).all()
    assert (found == module.logits(mean).argmax(1).numpy()).all()


def test_of_equal_logits_the_first_class_is_predicted():
    module = MarginSoftmax(build_head("softmax"), num_classes=9, dim=4, chunk=2, seed=1)
    torch.nn.init.zeros_(module.weight)
    assert module.predict(torch.ones(3, 4)).tolist() == [0, 0, 0]


def test_a_classifier_of_other_weights_is_refused(home, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for name in ("card.json", "weights.safetensors"):
        (folder / name).write_bytes((home / "run" / "best" / name).read_bytes())
    with pytest.raises(ModelFormatError, match="--with-classifier"):
        load_logits(folder)
    kept = read_classifier(home / "run" / "best")
    (folder / CLASSIFIER).write_bytes(kept.to_bytes("0" * 64))
    with pytest.raises(ModelFormatError, match="belongs to other weights"):
        load_logits(folder)
    (folder / CLASSIFIER).write_bytes(b"no safetensors")
    with pytest.raises(ModelFormatError, match="damaged"):
        load_logits(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--protocol", "pairs", "--classifier"], "--protocol closed-set"),
        (["--protocol", "closed-set", "--classifier", "--preset", "deepid"], "--preset"),
    ],
)
def test_what_the_classifier_cannot_do_is_one_line(words, said, home, capsys):
    assert main(["evaluate", str(home / "run"), "--data", str(home), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_somebody_the_classifier_does_not_know_is_named(home, tmp_path, capsys):
    stranger = home / "stranger.txt"
    stranger.write_text("p 0/0.png\tperson 0\np 1/0.png\tnobody\n")
    words = ["evaluate", home / "run", "--protocol", "closed-set", "--data", stranger, "--classifier"]
    assert main(list(map(str, words))) == 2
    assert "'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"head": {"name": "none"}, "triplet": {"weight": 1.0}},
        {"loop": {"wccn_ridge": 1.0}},
    ],
)
def test_a_recipe_without_a_fitting_classifier_is_refused(wrong, home, tmp_path):
    values = recipe(home)
    for section, changes in wrong.items():
        for key, value in changes.items():
            setattr(getattr(values, section), key, value)
    with pytest.raises(RecipeError, match="keep_classifier"):
        train(values, tmp_path / "run")


def test_logits_take_part_in_views_as_the_embedder_fuses_them():
    kept = Classifier(np.eye(2, dtype=np.float32), np.array([0.5, 0], np.float32), ("a", "b"))
    assert kept.logits(np.array([[2.0, 4.0]]), "sum").tolist() == [[1.5, 2.0]]
    assert kept.logits(np.array([[2.0, 4.0, 0.0, 0.0]]), "concat").tolist() == [[1.5, 2.0]]
    with pytest.raises(ModelFormatError, match="features of 2"):
        kept.logits(np.zeros((1, 3)))
