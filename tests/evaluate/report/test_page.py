"""The page and the plots: training curves from metrics.jsonl, escaping, PNG, what is shown of a comparison."""

import json

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.evaluate.compare.comparison import compare
from visavis.evaluate.compare.saved import read_evaluation
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.groups import GroupPairProtocol
from visavis.evaluate.protocols.pairs import PairProtocol, verification_plots
from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.plots import to_png
from visavis.evaluate.report.report import Report, plain
from visavis.evaluate.report.tables import Table
from visavis.evaluate.report.training_curves import training_plots
from visavis.evaluate.runner import evaluate
from visavis.metrics.verification import verify_scores
from visavis.types import Pairs


def write_metrics(folder, extra=""):
    lines = [json.dumps({"step": s, "loss": 5 / s, "lr": 0.1, "images_per_second": 100.0}) for s in range(1, 1201)]
    lines += [json.dumps({"step": s, "eval": {"accuracy": {"mean": 0.5 + s / 4000}}}) for s in (400, 800, 1200)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + extra)


def test_training_curves_are_thinned_and_a_cut_last_line_is_left_out(tmp_path):
    write_metrics(tmp_path, extra='{"step": 1201, "lo')
    plots = {p.name: p for p in training_plots(tmp_path)}
    assert set(plots) == {f"training: {k}" for k in ("loss", "lr", "images_per_second", "accuracy")}
    loss = plots["training: loss"].series[0]
    assert len(loss.x) == 400
    assert loss.y[0] == pytest.approx(np.mean([5 / 1, 5 / 2, 5 / 3]))
    assert list(plots["training: accuracy"].series[0].y) == [60.0, 70.0, 80.0]
    (tmp_path / "metrics.jsonl").write_text("{}\nnot json\n{}\n")
    with pytest.raises(DataError, match="line 2"):
        training_plots(tmp_path)


def test_text_is_escaped_and_training_has_a_section_of_its_own(tmp_path):
    write_metrics(tmp_path)
    report = Report(
        protocol="pairs",
        model={"name": "<script>alert(1)</script>", "card": {"license": "a & b"}},
        results={"auc": 0.5},
        tables=(Table("T <b>", ("figure", "value"), (("x", "<i>"),)),),
        plots=training_plots(tmp_path),
    )
    page = report.to_html()
    assert "<script>" not in page
    assert "a &amp; b" in page
    assert "<h2>Training</h2>" in page
    assert page.count("<svg") == 4


@pytest.mark.parametrize("genuine_mean", [0.0, 0.5, 20.0])
def test_plots_of_hopeless_good_and_perfect_scores_are_drawn(genuine_mean):
    rng = np.random.default_rng(0)
    genuine = np.arange(400) % 2 == 0
    scores = rng.normal(size=400) * 0.2 + genuine * genuine_mean
    found = verify_scores(scores, genuine)
    for plot in verification_plots(found.curve, found.threshold):
        assert all(len(s.x) == len(s.y) > 0 for s in plot.series)
        assert to_png(plot, dpi=40)[:4] == b"\x89PNG"


def test_the_roc_that_is_drawn_lies_on_the_exact_one():
    rng = np.random.default_rng(1)
    genuine = rng.random(20_000) < 0.5
    scores = rng.normal(size=20_000) * 0.3 + genuine * 0.5
    curve = verify_scores(scores, genuine).curve
    thresholds, fmr, tmr = curve.roc(points=300)
    assert len(fmr) < 700
    assert (fmr[0], tmr[0], fmr[-1], tmr[-1]) == (0, 0, 1, 1)
    for t, f, m in list(zip(thresholds, fmr, tmr, strict=True))[1::50]:
        assert f == np.mean(scores[~genuine] >= t)
        assert m == np.mean(scores[genuine] >= t)


def test_numbers_that_json_does_not_know_become_null():
    body = {
        "a": np.float32(1.5),
        "b": float("nan"),
        "c": np.array([1, 2]),
        "d": (True, np.bool_(False)),
        3: np.int64(4),
    }
    assert plain(body) == {"a": 1.5, "b": None, "c": [1, 2], "d": [True, False], "3": 4}
    report = Report(
        "p", {}, {"x": float("inf")}, plots=(Plot("n", "t", "x", "y", (Series("s", np.ones(2), np.ones(2)),)),)
    )
    assert json.loads(report.to_json()) == {"protocol": "p", "model": {}, "x": None}


class Shade:
    """Two features of a crop's brightness; `shift` makes a second model."""

    dim = 2

    def __init__(self, shift):
        self.shift = shift

    def embed(self, crops):
        angle = crops.mean(axis=(1, 2, 3)) / 80 + self.shift * crops[:, 0, 0, 0] / 255
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_a_comparison_shows_groups_and_the_hardest_pairs(tmp_path):
    rng = np.random.default_rng(0)
    shades = rng.integers(10, 245, 30)
    images = {
        f"p{i}/{j}.png": np.clip(shades[i] + rng.normal(0, 9, (8, 8, 3)), 0, 255).astype(np.uint8)
        for i in range(30)
        for j in range(2)
    }
    a = rng.integers(0, 60, 400)
    b = np.where(np.arange(400) % 2 == 0, a ^ 1, rng.integers(0, 60, 400))
    pairs = Pairs(tuple(images), a, b, a // 2 == b // 2, np.arange(400) * 10 // 400)
    group = (a // 2) % 2, (b // 2) % 2, ("even", "odd")
    protocol = GroupPairProtocol(pairs, PairProtocol.of(pairs).subjects, "groups", {"parity": group})
    for name, shift in (("plain", 0.0), ("odd", 0.6)):
        report = evaluate(
            Shade(shift), protocol, images, scores=tmp_path / f"{name}.scores.npz", model={"name": name},
            settings=EvaluationSettings(bootstrap=0, group_fmr=0.2),
        )  # fmt: skip
        (tmp_path / f"{name}.json").write_text(report.to_json())
    found = compare([read_evaluation(tmp_path / f"{n}.json") for n in ("plain", "odd")], replicates=20, images=images)
    assert any("By parity" in t.title for t in found.tables)
    groups = {p.group for p in found.pictures}
    assert "Hardest for all" in groups
    page = found.to_html()
    assert "By parity" in page
    assert page.count("data:image/jpeg") == 2 * len(found.pictures) > 0
