"""Rates nearest to a target, as row A7's source takes them."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from visavis.evaluate.protocols.template_verification import corner_points, nearest_rates
from visavis.metrics.error_rates import error_curve


@pytest.mark.parametrize("levels", [0, 40])
@pytest.mark.parametrize("seed", range(3))
def test_nearest_rate_of_row_a7_equals_its_source(seed, levels):
    """roc_curve, turned around, and the first of the smallest |fpr − x|."""
    rng = np.random.default_rng(seed)
    genuine = rng.random(3000) < 0.1
    scores = rng.normal(size=3000) * 0.2 + genuine * 0.5
    scores = np.round(scores * levels) / levels if levels else scores
    fpr, tpr, _ = roc_curve(genuine, scores)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    curve = error_curve(scores, genuine)
    _, ours_fmr, ours_tmr = corner_points(curve)
    np.testing.assert_allclose(ours_fmr[::-1], fpr, atol=1e-12)
    np.testing.assert_allclose(ours_tmr[::-1], tpr, atol=1e-12)
    rates = {"1e-3": None, "1e-2": None, "1e-1": None}
    found = nearest_rates(curve, rates)
    for name in rates:
        _, index = min(zip(abs(fpr - float(name)), range(len(fpr)), strict=True))
        assert found[name] == pytest.approx(tpr[index], abs=1e-12)
