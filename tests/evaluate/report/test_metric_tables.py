"""Tables and figures of metrics."""

import numpy as np
import pytest

from visavis.evaluate.report.metric_tables import calibration_figures
from visavis.metrics.intervals import wilson
from visavis.metrics.score_calibration import reliability


def test_reliability_is_drawn_with_wilsons_intervals():
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    found = reliability(probability, rng.random(500) < probability)
    _, plot = calibration_figures({"logistic": found})
    (series,) = plot.series
    assert series.style == "points"
    for share, n, low, high in zip(found.observed, found.count, *series.interval, strict=True):
        assert (low, high) == pytest.approx(wilson(round(share * n), int(n)), abs=1e-12)
        assert low <= share <= high
