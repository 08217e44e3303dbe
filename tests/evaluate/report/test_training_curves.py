"""Training curves from metrics.jsonl."""

import json

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.evaluate.report.training_curves import training_plots


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
