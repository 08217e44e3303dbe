"""The exact figures against slow, plain implementations of their definitions, and against scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from visavis.metrics.error_rates import error_curve, rate_name


def random_scores(seed, n=400, *, levels=0, failed=0):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.4
    scores = rng.normal(size=n) * 0.2 + genuine * 0.4
    if levels:
        scores = np.round(scores * levels) / levels
    scores[rng.choice(n, failed, replace=False)] = np.nan
    return scores, genuine


def plain_rates(scores, genuine, threshold):
    """Counts by looking at every comparison; NaN is never ≥ anything."""
    match = [s >= threshold for s in scores]
    fm = sum(m and not g for m, g in zip(match, genuine, strict=True))
    tm = sum(m and g for m, g in zip(match, genuine, strict=True))
    return fm / sum(not g for g in genuine), tm / sum(genuine)


def plain_tmr_at_fmr(scores, genuine, fmr):
    best = 0.0
    for t in scores[~np.isnan(scores)]:
        f, tmr = plain_rates(scores, genuine, t)
        if f <= fmr + 1e-12:
            best = max(best, tmr)
    return best


def plain_auc(scores, genuine):
    s = np.where(np.isnan(scores), -np.inf, scores)
    total = 0.0
    for g in s[genuine]:
        for i in s[~genuine]:
            total += 1.0 if g > i else 0.5 if g == i else 0.0
    return total / (genuine.sum() * (~genuine).sum())


def plain_eer(scores, genuine):
    """SortedScores the ROC's points from strict to lax, −inf last; the first segment that crosses fmr = fnmr."""
    s = np.where(np.isnan(scores), -np.inf, scores)
    points = [(0.0, 1.0)]
    for t in sorted(set(s), reverse=True):
        match = s >= t
        points.append((match[~genuine].mean(), 1 - match[genuine].mean()))
    for (f0, n0), (f1, n1) in pairwise(points):
        if f1 >= n1:
            a, b = f0 - n0, f1 - n1
            return f0 + (f1 - f0) * (-a / (b - a))
    raise AssertionError


@pytest.mark.parametrize("failed", [0, 30])
@pytest.mark.parametrize("levels", [0, 6])
@pytest.mark.parametrize("seed", range(4))
def test_rates_equal_their_definitions(seed, levels, failed):
    scores, genuine = random_scores(seed, levels=levels, failed=failed)
    curve = error_curve(scores, genuine)
    for fmr in (0.5, 0.1, 0.03, 0.01):
        assert curve.at_fmr(fmr).tmr == pytest.approx(plain_tmr_at_fmr(scores, genuine, fmr), abs=1e-12)
        point = curve.at_fmr(fmr)
        assert (point.fmr, point.tmr) == pytest.approx(plain_rates(scores, genuine, point.threshold), abs=1e-12)
    assert curve.auc == pytest.approx(plain_auc(scores, genuine), abs=1e-12)
    assert curve.eer == pytest.approx(plain_eer(scores, genuine), abs=1e-12)


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_roc_and_auc_equal_scikit_learn(seed, levels):
    scores, genuine = random_scores(seed, 3000, levels=levels)
    curve = error_curve(scores, genuine)
    assert curve.auc == pytest.approx(roc_auc_score(genuine, scores), abs=1e-12)
    fpr, tpr, thresholds = roc_curve(genuine, scores, drop_intermediate=False)
    ours = curve.roc()
    np.testing.assert_allclose(ours[0][1:], thresholds[1:], atol=1e-12)
    np.testing.assert_allclose(ours[1], fpr, atol=1e-12)
    np.testing.assert_allclose(ours[2], tpr, atol=1e-12)


def test_a_tie_of_genuine_and_impostor_counts_half_in_the_auc_and_is_accepted_whole():
    curve = error_curve(np.array([0.5, 0.5]), np.array([True, False]))
    assert curve.auc == 0.5
    assert curve.eer == 0.5
    assert curve.at_fmr(0.0).tmr == 0.0


@pytest.mark.parametrize(
    ("rate", "name"), [(1e-3, "1e-3"), (0.1, "1e-1"), (5e-4, "5e-4"), (1e-6, "1e-6"), (1.0, "1e0")]
)
def test_rate_names(rate, name):
    assert rate_name(rate) == name
