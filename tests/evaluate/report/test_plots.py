"""Plots of scores, hopeless, good and perfect."""

import numpy as np
import pytest

from visavis.evaluate.protocols.pairs import verification_plots
from visavis.evaluate.report.plots import to_png
from visavis.metrics.verification import verify_scores


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
