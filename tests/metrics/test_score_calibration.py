"""Scores as probabilities: logistic and isotonic against scikit-learn, reliability by hand."""

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from visavis.metrics.score_calibration import cross_calibrated, fit_isotonic, fit_logistic, reliability


def scores_of(seed, n=600):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.5
    return rng.normal(size=n) * 0.15 + genuine * 0.35, genuine


def test_logistic_equals_scikit_learn_on_platts_targets():
    """Soft targets are a weighted regression on both labels."""
    scores, genuine = scores_of(3)
    found = fit_logistic(scores, genuine)
    high = (genuine.sum() + 1) / (genuine.sum() + 2)
    low = 1 / ((~genuine).sum() + 2)
    share = np.where(genuine, high, low)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
    model.fit(np.tile(scores, 2)[:, None], np.repeat([1, 0], len(scores)), np.concatenate([share, 1 - share]))
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.offset == pytest.approx(model.intercept_[0], rel=1e-4)
    p = found(scores)  # at the maximum the gradient is zero
    assert np.sum(p - share) == pytest.approx(0, abs=1e-6)
    assert np.sum((p - share) * scores) == pytest.approx(0, abs=1e-6)


def test_a_prior_moves_the_odds_and_separated_scores_stay_finite():
    scores, genuine = scores_of(4)
    own, even = fit_logistic(scores, genuine), fit_logistic(scores, genuine, prior=0.5)
    odds = genuine.mean() / (1 - genuine.mean())
    assert even.offset == pytest.approx(own.offset - math.log(odds), abs=1e-9)
    apart = fit_logistic(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1, 1, 0, 0], bool))
    assert np.isfinite([apart.slope, apart.offset]).all()
    assert apart(np.array([0.85]))[0] > 0.5 > apart(np.array([0.15]))[0]


def test_isotonic_equals_scikit_learn():
    rng = np.random.default_rng(5)
    scores = np.round(rng.normal(size=300), 1)  # with ties
    genuine = rng.random(300) < 1 / (1 + np.exp(-scores))
    found = fit_isotonic(scores, genuine)
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, genuine.astype(float)).predict(scores)
    np.testing.assert_allclose(found(scores), expected, atol=1e-12)
    assert np.all(np.diff(found.values) > 0)


def test_reliability_by_hand():
    found = reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 1, 1, 1], bool), bins=5)
    np.testing.assert_allclose(found.predicted, [0.1, 0.9])
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    assert found.expected_calibration_error == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert found.log_loss == pytest.approx(-np.mean(np.log2([0.9, 0.1, 0.9, 0.9])))


def test_maps_fitted_on_other_folds_are_well_calibrated():
    scores, genuine = scores_of(6, 6000)
    found, maps = cross_calibrated(scores, genuine, np.arange(6000) % 10)
    assert found["logistic"].expected_calibration_error < 0.03
    assert found["isotonic"].expected_calibration_error < 0.03
    assert maps["logistic"]["slope"] > 0
