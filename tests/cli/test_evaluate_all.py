"""visavis evaluate RUN --all: the checkpoints a run has kept, newest first, with accuracy over steps."""

import json
import re

import pytest

from visavis.cli import main
from visavis.models.card import read_card
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe


@pytest.fixture(scope="module")
def run(blob_folder, tmp_path_factory):
    values = {
        "data": {"source": str(blob_folder), "workers": 0},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
        "optimizer": {"lr": 0.05},
        "loop": {"batch_size": 8, "steps": 11, "checkpoint_every": 2, "keep": 3, "device": "cpu", "ema": 0.9},
    }
    return train(parse_recipe(values), tmp_path_factory.mktemp("kept") / "run").folder


def test_the_newest_checkpoints_stay_as_model_folders(run):
    kept = sorted((run / "models").iterdir())
    assert [folder.name for folder in kept] == ["step-00000008", "step-00000010", "step-00000011"]
    assert [read_card(folder).notes["step"] for folder in kept] == [8, 10, 11]
    for name in ("card.json", "weights.safetensors"):
        assert (kept[-1] / name).read_bytes() == (run / "last" / name).read_bytes()


def test_all_are_judged_newest_first_and_drawn_over_steps(run, blob_folder, tmp_path, capsys):
    files = {kind: tmp_path / f"r.{kind}" for kind in ("json", "html")}
    words = ["evaluate", str(run), "--all", "--data", str(blob_folder), "--bootstrap", "0"]
    assert main([*words, "--json", str(files["json"]), "--html", str(files["html"])]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^step (\d+): accuracy", said, re.MULTILINE) == ["11", "10", "8"]
    assert "Checkpoints, newest first" in said
    body = json.loads(files["json"].read_text())
    history = body["history"]
    assert [entry["step"] for entry in history] == [11, 10, 8]
    assert history[0]["accuracy"] == body["accuracy"]
    assert "Accuracy over steps" in files["html"].read_text()
    alone = tmp_path / "alone.json"
    assert main([*words[:1], str(run / "models" / "step-00000008"), *words[3:], "--json", str(alone)]) == 0
    assert json.loads(alone.read_text())["accuracy"] == history[2]["accuracy"]


def test_what_is_about_one_model_and_a_run_that_kept_none_are_refused(run, blob_folder, tmp_path, capsys):
    words = ["evaluate", str(run), "--all", "--data", str(blob_folder)]
    assert main([*words, "--calibrate", "0.1"]) == 2
    assert "--calibrate is about one model; leave it or --all out" in capsys.readouterr().err
    assert main(["evaluate", str(run / "last"), *words[2:]]) == 2
    assert "no checkpoints were kept here; train with --loop.keep N" in capsys.readouterr().err
