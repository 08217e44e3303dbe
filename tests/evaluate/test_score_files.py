"""Scores on disk."""

import csv

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.evaluate.score_files import load_scores


def test_scores_that_are_no_npz_are_refused(tmp_path):
    bad = tmp_path / "scores.npz"
    bad.write_bytes(b"not a zip")
    with pytest.raises(ProtocolError, match="expected the scores"):
        load_scores(bad)
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ProtocolError, match="expected the scores"):
        load_scores(tmp_path / "pickled.npz")


def test_scores_of_nameless_pairs_say_who_is_genuine(tmp_path):
    from visavis.errors import ProtocolError
    from visavis.evaluate.score_files import write_score_csv

    unknown = np.array([-1, -1])
    scores = {
        "similarity": np.array([0.5, np.nan], np.float32), "genuine": np.array([True, False]),
        "reference": np.array([0, 2]), "probe": np.array([1, 3]), "names": np.array(["a", "b", "c", "d"]),
        "reference_subject": unknown, "probe_subject": unknown,
    }  # fmt: skip
    write_score_csv(tmp_path / "s.csv", scores)
    rows = list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))[1:]
    assert rows == [["image0", "a", "image0", "b", "0.5"], ["image2", "c", "image3", "d", "nan"]]
    with pytest.raises(ProtocolError, match="has no names"):
        write_score_csv(tmp_path / "s.csv", {k: v for k, v in scores.items() if k != "names"})
