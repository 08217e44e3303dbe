"""What a report holds in JSON."""

import json

import numpy as np

from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.report import Report, plain


def test_numbers_that_json_does_not_know_become_null():
    body = {
        "a": np.float32(1.5),
        "b": float("nan"),
        "c": np.array([1, 2]),
        "d": (True, np.bool_(False)),
        3: np.int64(4),
    }
    assert plain(body) == {"a": 1.5, "b": None, "c": [1, 2], "d": [True, False], "3": 4}
    report = Report(
        "p", {}, {"x": float("inf")}, plots=(Plot("n", "t", "x", "y", (Series("s", np.ones(2), np.ones(2)),)),)
    )
    assert json.loads(report.to_json()) == {"protocol": "p", "model": {}, "warnings": [], "x": None}
