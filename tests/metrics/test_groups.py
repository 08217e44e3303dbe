"""Error rates by group against counting, and the differentials' formulas."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.evaluate.report.metric_tables import group_table
from visavis.metrics.groups import differentials, group_rates, group_report


def scores_of(seed, n=600):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.5
    return rng.normal(size=n) * 0.15 + genuine * 0.35, genuine


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
