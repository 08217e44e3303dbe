"""Thresholds, probabilities and groups against scikit-learn and against counting."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.metrics.calibration import calibrate_threshold


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
