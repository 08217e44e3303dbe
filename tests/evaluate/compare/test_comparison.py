"""Paired tests against enumeration, and `compare` from files as written by an evaluation."""

import json
from dataclasses import replace
from itertools import product
from math import comb

import numpy as np
import pytest

from visavis.cli import main
from visavis.errors import ProtocolError
from visavis.evaluate import evaluate
from visavis.evaluate.compare.comparison import compare
from visavis.evaluate.compare.saved import read_evaluation
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.metrics.intervals import bootstrap_subjects, wilson
from visavis.metrics.paired_tests import (
    PairedDecisions,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    seed_effect,
)
from visavis.types import Pairs


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 9), (10, 10), (40, 12)])
def test_mcnemar_equals_the_binomial_sum(only_first, only_second):
    first = np.array([True] * only_first + [False] * only_second + [True] * 7 + [False] * 3)
    second = np.array([False] * only_first + [True] * only_second + [True] * 7 + [False] * 3)
    found = mcnemar(first, second)
    n, k = only_first + only_second, min(only_first, only_second)
    expected = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(expected, abs=1e-12)


def test_minimum_detectable_difference_solves_its_equation_and_shrinks_with_size():
    psi, n = 0.03, 6000
    delta = minimum_detectable_difference(psi, n)
    needed = (1.959963984540054 * psi**0.5 + 0.8416212335729143 * (psi - delta**2) ** 0.5) ** 2 / delta**2
    assert needed == pytest.approx(n, rel=1e-9)
    assert minimum_detectable_difference(psi, 4 * n) < delta
    assert minimum_detectable_difference(0.0, n) == 0.0


def test_seed_effect_equals_the_count_of_splits():
    found = seed_effect([0.90, 0.91, 0.92], [0.93, 0.94, 0.95])
    assert found.p_value == pytest.approx(2 / 20)
    assert found.difference == pytest.approx(0.03)
    assert seed_effect([0.9, 0.9], [0.9, 0.9]).p_value == 1.0
    with pytest.raises(ProtocolError, match="1 to 20 runs"):
        seed_effect([], [1.0])


def test_wilson_solves_its_quadratic():
    for k, n in product((0, 3, 17, 20), (20, 400)):
        low, high = wilson(k, n)
        for bound in (low, high):
            if 0 < bound < 1:
                assert abs(k / n - bound) == pytest.approx(
                    1.959963984540054 * (bound * (1 - bound) / n) ** 0.5, abs=1e-12
                )


def small_world(seed=0, n=240, subjects=12):
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, subjects, n)
    genuine = rng.random(n) < 0.5
    probe = np.where(genuine, reference, (reference + rng.integers(1, subjects, n)) % subjects)
    scores = rng.normal(size=n) * 0.3 + genuine * 0.6
    return scores, genuine, reference, probe


def test_bootstrap_of_subjects_equals_repeating_comparisons():
    """A weight of k is the same as k copies of the comparison."""
    scores, genuine, reference, probe = small_world()
    correct = (scores > 0.3) == genuine
    found = bootstrap_subjects(scores, genuine, correct, (reference, probe), fmrs=(0.1,), replicates=5, seed=3)
    drawn = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=5)
    for row, times in enumerate(drawn):
        copies = [times[a] if a == b else times[a] * times[b] for a, b in zip(reference, probe, strict=True)]
        s, g, c = (np.repeat(v, copies) for v in (scores, genuine, correct))
        assert found.accuracy[row] == pytest.approx(c.mean(), abs=1e-12)
        best = max((np.mean(s[g] >= t) for t in s if np.mean(s[~g] >= t) <= 0.1), default=0.0)
        assert found.tmr["1e-1"][row] == pytest.approx(best, abs=1e-12)


def test_paired_bootstrap_of_a_model_with_itself_is_no_difference_and_of_a_worse_one_is():
    scores, genuine, reference, probe = small_world(1, n=800, subjects=40)
    right = (scores > 0.3) == genuine
    model = PairedDecisions(scores, right)
    same = paired_bootstrap((model, model), genuine, (reference, probe), fmrs=(0.1,), replicates=200)
    assert same["accuracy"].value == 0.0
    assert same["accuracy"].interval == (0.0, 0.0)
    assert same["accuracy"].p_value == 1.0
    noisy = scores + np.random.default_rng(2).normal(size=len(scores)) * 0.6
    worse = PairedDecisions(noisy, (noisy > 0.3) == genuine)
    found = paired_bootstrap((model, worse), genuine, (reference, probe), fmrs=(0.1,), replicates=400)
    assert found["accuracy"].value < 0
    assert found["accuracy"].interval[1] < 0
    assert found["1e-1"].p_value < 0.05


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


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06], abs=1e-12)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


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
