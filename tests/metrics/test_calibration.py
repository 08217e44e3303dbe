"""Thresholds, probabilities and groups against scikit-learn and against counting."""

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from visavis.errors import ProtocolError
from visavis.evaluate.report.metric_tables import calibration_figures, group_table
from visavis.evaluate.report.tables import Table
from visavis.metrics.calibration import calibrate_threshold
from visavis.metrics.groups import differentials, group_rates, group_report
from visavis.metrics.intervals import wilson
from visavis.metrics.score_calibration import cross_calibrated, fit_isotonic, fit_logistic, reliability


def scores_of(seed, n=600):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.5
    return rng.normal(size=n) * 0.15 + genuine * 0.35, genuine


def test_a_threshold_keeps_its_rate_and_says_what_it_rests_on():
    scores, genuine = scores_of(0, 4000)
    scores[:10] = np.nan
    subjects = (np.arange(4000) % 97, (np.arange(4000) * 7) % 97)
    found = calibrate_threshold(scores, genuine, 0.01, digest="abc", subjects=subjects)
    impostors = scores[~genuine]
    assert found.fmr == np.mean(impostors >= found.threshold) <= 0.01
    assert found.tmr == np.mean(scores[genuine] >= found.threshold)
    lower = np.nextafter(np.sort(impostors[impostors < found.threshold])[-1], -1)
    assert np.mean(impostors >= lower) > 0.01  # nothing more lax keeps the rate
    assert found.threshold_interval[0] <= found.threshold <= found.threshold_interval[1]
    assert found.fmr_interval[0] < found.fmr < found.fmr_interval[1]
    assert found.to_dict()["set_digest"] == "abc"


def test_a_rate_without_impostors_is_refused_with_the_number_needed():
    scores, genuine = scores_of(0, 400)
    with pytest.raises(ProtocolError, match="at least 10,000 impostor comparisons"):
        calibrate_threshold(scores, genuine, 1e-4)
    with pytest.raises(ProtocolError, match="between 0 and 1"):
        calibrate_threshold(scores, genuine, 1.0)


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


def test_group_rates_equal_counting():
    scores, genuine = scores_of(7)
    scores[3] = np.nan
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 3, (2, 600))
    found = {r.group: r for r in group_rates(scores, genuine, (a, b), ("x", "y", "z"), threshold=0.3)}
    for number, name in enumerate("xyz"):
        here = (a == number) & (b == number)
        r = found[name]
        assert r.fmr == np.mean(~np.less(scores[here & ~genuine], 0.3) & ~np.isnan(scores[here & ~genuine]))
        assert r.fnmr == np.mean(~(scores[here & genuine] >= 0.3))


def test_worst_group_comes_first_and_differentials_are_the_formulas():
    rates = [0.01, 0.02, 0.08]
    found = differentials(rates)
    assert found["max_over_geometric_mean"] == pytest.approx(0.08 / (0.01 * 0.02 * 0.08) ** (1 / 3))
    assert found["max_over_min"] == pytest.approx(8)
    gini = sum(abs(x - y) for x in rates for y in rates) / (2 * 9 * np.mean(rates)) * 3 / 2
    assert found["gini"] == pytest.approx(gini)
    assert differentials([0.0, 0.1])["max_over_geometric_mean"] is None
    scores, genuine = scores_of(8, 3000)
    group = np.arange(3000) % 2
    scores += group * 0.1  # group 1 looks alike to the model: more false matches
    body = group_report(scores, genuine, (group, group), ("first", "second"), column="site", fmr=0.05)
    assert [g["group"] for g in body["groups"]] == ["second", "first"]
    assert body["fmr_overall"] <= 0.05 < body["groups"][0]["fmr"]
    assert group_table("site", body).rows[0][0] == "second"
    with pytest.raises(ProtocolError, match="at least two groups"):
        group_report(scores, genuine, (group, group), ("one",), column="site")


def test_a_table_in_every_form():
    table = Table("A & B", ("model", "TMR %"), (("m_1", "9|9"),), "note")
    assert "m_1" in table.to_text()
    assert r"9\|9" in table.to_markdown()
    assert r"m\_1 & 9|9 \\" in table.to_latex()
    assert r"A \& B. note" in table.to_latex()
    with pytest.raises(ValueError, match="2 columns"):
        Table("x", ("a", "b"), (("1",),))


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


def test_latex_knows_every_sign():
    text = Table("a ≤ b_{c}\\d", ("x", "d′"), (("2 … 3 ~^", "± 5 % – −1 < 2 > 1 · 3 × 4"),)).to_latex()
    assert text.isascii()
    assert r"$\leq$ b\_\{c\}\textbackslash{}d" in text
