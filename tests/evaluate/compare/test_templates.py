"""Two models on the same comparisons of templates: tests of TMR, from arrays and from the command line."""

import json

import numpy as np
import pytest

from visavis.cli import main
from visavis.evaluate import evaluate
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.template_verification import TemplateProtocol
from visavis.metrics.error_rates import error_curve
from visavis.metrics.fusion import Pooling

PEOPLE, TEMPLATES = 30, 90


SUBJECT = np.arange(TEMPLATES) // 3


class Noisy:
    """The person's vector, hidden in the pixels' seed, with noise."""

    dim = 16

    def __init__(self, noise):
        self.noise = noise

    def embed(self, crops):
        rows = []
        for crop in crops:
            person, image = int(crop[0, 0, 0]), int(crop[0, 0, 1])
            center = np.random.default_rng(person).normal(size=16)
            rows.append(center + self.noise * np.random.default_rng((person, image)).normal(size=16))
        rows = np.array(rows)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def protocol(known=True):
    a, b = np.triu_indices(TEMPLATES, 1)
    names = tuple(f"{t}.png" for t in range(TEMPLATES))
    images = {n: np.full((2, 2, 3), (SUBJECT[t], t % 3, 0), np.uint8) for t, n in enumerate(names)}
    places = np.arange(TEMPLATES)
    subjects = SUBJECT if known else np.full(TEMPLATES, -1)
    pooling = Pooling(places, places, places)
    return TemplateProtocol(names, pooling, TEMPLATES, a, b, SUBJECT[a] == SUBJECT[b], subjects), images


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("templates")
    for name, noise, known in (("good", 0.4, True), ("bad", 0.9, True), ("unknown", 0.9, False)):
        task, images = protocol(known)
        report = evaluate(
            Noisy(noise),
            task,
            images,
            settings=EvaluationSettings(bootstrap=0),
            scores=root / f"{name}.npz",
            model={"name": name},
        )
        (root / f"{name}.json").write_text(report.to_json())
    return root


def test_compare_reads_evaluations_of_templates(written, tmp_path, capsys):
    good, bad, out = (str(written / "good.json"), str(written / "bad.json"), tmp_path / "c.json")
    assert main(["compare", good, bad, "--json", str(out), "--html", str(tmp_path / "c.html")]) == 0
    said = capsys.readouterr().out
    assert "bad against good" in said
    body = json.loads(out.read_text())
    assert body["models"]["good"]["accuracy"] is None
    test = body["tests"]["bad"]["tmr"]["1e-2"]
    task, _ = protocol()
    rates = []
    for name in ("good", "bad"):
        s = np.load(written / f"{name}.npz")["similarity"]
        rates.append(np.mean(s[task.genuine] >= error_curve(s, task.genuine).at_fmr(1e-2).threshold))
    assert test["difference"] == pytest.approx(rates[1] - rates[0], abs=1e-12)
    assert test["interval"][1] < 0
    assert test["p_value_subjects"] < 0.05
    assert test["mcnemar"]["only_first"] > test["mcnemar"]["only_second"]
    assert main(["compare", good, good, "--versus", bad, bad]) == 0
    assert "TMR at FMR 1e-2" in capsys.readouterr().out


def test_without_subjects_the_exact_test_remains(written, tmp_path, capsys):
    unknown = str(written / "unknown.json")
    assert main(["compare", unknown, unknown, "--json", str(tmp_path / "c.json")]) == 0
    test = json.loads((tmp_path / "c.json").read_text())["tests"]["unknown (2)"]["tmr"]["1e-1"]
    assert test["interval"] is None
    assert test["mcnemar"]["p_value"] == 1.0
    assert main(["compare", unknown, str(written / "good.json")]) == 2
    assert "same comparisons" in capsys.readouterr().err
