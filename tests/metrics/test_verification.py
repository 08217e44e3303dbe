"""Figures of a verification: unsupported rates, failures, one kind alone."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.metrics.verification import verify_scores


def random_scores(seed, n=400, *, levels=0, failed=0):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.4
    scores = rng.normal(size=n) * 0.2 + genuine * 0.4
    if levels:
        scores = np.round(scores * levels) / levels
    scores[rng.choice(n, failed, replace=False)] = np.nan
    return scores, genuine


def test_unsupported_rates_are_marked_and_failures_count_as_non_matches():
    scores, genuine = random_scores(5, 300, failed=20)
    found = verify_scores(scores, genuine)
    assert found.tmr_at_fmr["1e-1"] is not None
    assert found.tmr_at_fmr["1e-3"] is None
    body = found.to_dict()
    assert body["comparisons"]["failed_to_acquire"] == 20
    assert body["tmr_at_fmr"]["1e-3"] is None
    lost = np.isnan(scores) & genuine
    assert found.curve.at(-1e9).tmr == pytest.approx(1 - lost.sum() / genuine.sum())


@pytest.mark.parametrize("genuine", [np.ones(5, bool), np.zeros(5, bool)])
def test_one_kind_of_comparison_is_refused(genuine):
    with pytest.raises(ProtocolError, match="genuine and impostor"):
        verify_scores(np.arange(5.0), genuine)
