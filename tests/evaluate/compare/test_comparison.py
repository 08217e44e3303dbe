"""Paired tests against enumeration, and `compare` from files as written by an evaluation."""

import json
from dataclasses import replace

import numpy as np
import pytest

from visavis.cli import main
from visavis.errors import ProtocolError
from visavis.evaluate import evaluate
from visavis.evaluate.compare.comparison import compare
from visavis.evaluate.compare.saved import read_evaluation
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.types import Pairs


class Noisy:
    """Colors of crops with a given error."""

    dim = 3

    def __init__(self, noise):
        self.noise = noise

    def embed(self, crops):
        rng = np.random.default_rng(int(crops.sum()) % 1000)
        rows = crops.reshape(len(crops), -1, 3).mean(axis=1) - 127.5 + rng.normal(size=(len(crops), 3)) * self.noise
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """JSONs and scores of a better and a worse model, and of one on other pairs."""
    folder = tmp_path_factory.mktemp("evaluations")
    rng = np.random.default_rng(0)
    colors = rng.integers(20, 236, (30, 3))
    images = {
        f"id{i}/{p}.png": np.clip(colors[i] + rng.normal(0, 12, (6, 6, 3)), 0, 255).astype(np.uint8)
        for i in range(30)
        for p in range(4)
    }
    subject = np.repeat(np.arange(30), 4)
    reference, probe = rng.integers(0, 120, (2, 600))
    genuine = np.arange(600) % 2 == 0
    probe = np.where(
        genuine,
        subject[reference] * 4 + (reference + 1) % 4,
        (probe + 4 * (subject[reference] == subject[probe])) % 120,
    )
    pairs = Pairs(tuple(images), reference, probe, subject[reference] == subject[probe], np.arange(600) * 10 // 600)
    for name, noise, listed in (
        ("good", 2, pairs),
        ("bad", 40, pairs),
        ("other", 2, Pairs(tuple(images), probe, reference, pairs.genuine, pairs.fold)),
    ):
        report = evaluate(
            Noisy(noise),
            listed,
            images,
            scores=folder / f"{name}.scores.npz",
            model={"name": name},
            settings=EvaluationSettings(bootstrap=20),
        )
        (folder / f"{name}.json").write_text(report.to_json())
    return folder


def test_compare_finds_the_better_model(evaluations):
    report = compare([read_evaluation(evaluations / f"{n}.json") for n in ("good", "bad")], replicates=100)
    test = report.results["tests"]["bad"]
    assert test["accuracy_difference"] < 0
    assert test["mcnemar"]["p_value"] < 0.01
    assert test["subject_bootstrap"]["accuracy"]["interval"][1] < 0
    assert "bad against good" in str(report)
    assert "<svg" in report.to_html()


def test_compare_refuses_other_comparisons_and_other_files(evaluations, tmp_path):
    with pytest.raises(ProtocolError, match="same comparisons"):
        compare([read_evaluation(evaluations / f"{n}.json") for n in ("good", "other")])
    with pytest.raises(ProtocolError, match="at least two"):
        compare([read_evaluation(evaluations / "good.json")])
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ProtocolError, match="another JSON"):
        read_evaluation(tmp_path / "x.json")
    body = json.loads((evaluations / "good.json").read_text())
    (tmp_path / "alone.json").write_text(json.dumps(body))
    with pytest.raises(ProtocolError, match="expected the scores"):
        read_evaluation(tmp_path / "alone.json")


def test_two_evaluations_of_one_model_are_told_apart_by_their_files(evaluations):
    good, bad = (read_evaluation(evaluations / f"{n}.json") for n in ("good", "bad"))
    report = compare([good, replace(bad, label="good")], replicates=0)
    assert list(report.results["models"]) == ["good (good)", "good (bad)"]


def test_several_models_are_corrected_for_being_several(evaluations):
    good, bad = (read_evaluation(evaluations / f"{n}.json") for n in ("good", "bad"))
    report = compare([good, bad, good], replicates=0)
    tests = report.results["tests"]
    assert tests["bad"]["mcnemar"]["p_holm"] == pytest.approx(2 * tests["bad"]["mcnemar"]["p_value"])
    assert tests["good (2)"]["mcnemar"]["p_holm"] == 1.0
    assert "Holm's correction for 2" in str(report)


def test_command_line(evaluations, tmp_path, capsys):
    good, bad = str(evaluations / "good.json"), str(evaluations / "bad.json")
    out = tmp_path / "c.json"
    assert (
        main(["compare", good, bad, "--bootstrap", "50", "--json", str(out), "--latex", str(tmp_path / "c.tex")]) == 0
    )
    assert "McNemar" in capsys.readouterr().out
    assert json.loads(out.read_text())["reference"] == "good"
    assert r"\toprule" in (tmp_path / "c.tex").read_text()
    assert main(["compare", good, good, "--versus", bad, bad]) == 0
    assert "permutation" in capsys.readouterr().out
    assert main(["compare", good, good, "--versus", str(evaluations / "other.json")]) == 2
    assert "same comparisons" in capsys.readouterr().err
    assert main(["compare", good, str(tmp_path / "missing.json")]) == 2
    assert "missing.json" in capsys.readouterr().err
