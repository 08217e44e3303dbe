"""The page and the plots: training curves from metrics.jsonl, escaping, PNG, what is shown of a comparison."""

import json

import numpy as np

from visavis.evaluate.compare.comparison import compare
from visavis.evaluate.compare.saved import read_evaluation
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.groups import GroupPairProtocol
from visavis.evaluate.protocols.pairs import PairProtocol
from visavis.evaluate.report.report import Report
from visavis.evaluate.report.tables import Table
from visavis.evaluate.report.training_curves import training_plots
from visavis.evaluate.runner import evaluate
from visavis.types import Pairs


def write_metrics(folder, extra=""):
    lines = [json.dumps({"step": s, "loss": 5 / s, "lr": 0.1, "images_per_second": 100.0}) for s in range(1, 1201)]
    lines += [json.dumps({"step": s, "eval": {"accuracy": {"mean": 0.5 + s / 4000}}}) for s in (400, 800, 1200)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + extra)


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
    groups = {p.group for p in found.images}
    assert "Hardest for all" in groups
    page = found.to_html()
    assert "By parity" in page
    assert page.count("data:image/jpeg") == 2 * len(found.images) > 0
