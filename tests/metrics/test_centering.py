"""The mean over people, embeddings about it, and the trial on one's own people."""

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.metrics.centering import centered, expected_gain, person_mean


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def people(count, each, *, shared, seed=0, dim=16):
    """Embeddings of people about a mean of length `shared` that all have in common."""
    rng = np.random.default_rng(seed)
    common = np.zeros(dim)
    common[0] = shared
    who = rng.standard_normal((count, dim))
    rows = common + np.repeat(who, each, axis=0) / 3 + rng.standard_normal((count * each, dim)) / 5
    # Pictures differ in how much of the common part they have, as photographs of another camera do.
    rows += np.abs(rng.standard_normal((count * each, 1))) * common
    return unit(rows), np.repeat(np.arange(count), each)


def test_the_mean_counts_people_not_pictures():
    rows = np.array([[2.0, 0, 0], [0, 1, 0], [0, 5, 0], [0, 1, 0]])
    assert np.allclose(person_mean(rows, np.array([7, 3, 3, 3])), [0.5, 0.5, 0])


def test_centered_rows_are_the_formula_in_unit_length():
    rows, labels = people(5, 3, shared=1.0)
    mean = person_mean(rows, labels)
    found = centered(4 * rows, mean)
    for row, got in zip(rows, found, strict=True):
        wanted = row - mean
        assert np.allclose(got, wanted / np.linalg.norm(wanted), atol=1e-6)
    assert found.dtype == np.float32


def test_what_all_share_is_found_to_be_worth_taking_away():
    gain = expected_gain(*people(40, 4, shared=1.0), draws=6)
    assert gain.difference > 0.2
    assert gain.difference > gain.spread / 2
    assert gain.fmr == 1e-2  # 20 people of 4: 3,040 impostors allow thirty at 1e-2, three at 1e-3
    assert len(gain.before) == len(gain.after) == 6


def test_without_anything_shared_no_gain_is_made_up():
    gain = expected_gain(*people(40, 4, shared=0.0), draws=6)
    assert abs(gain.difference) < 0.02


def test_the_judged_half_gives_nothing_to_the_mean(monkeypatch):
    from visavis.metrics import centering

    seen = []
    true = centering.person_mean

    def spied(rows, labels):
        seen.append(set(labels.tolist()))
        return true(rows, labels)

    judged = []
    monkeypatch.setattr(centering, "person_mean", spied)
    real = centering._tmr
    monkeypatch.setattr(centering, "_tmr", lambda rows, of, fmr: judged.append(set(of.tolist())) or real(rows, of, fmr))
    expected_gain(*people(20, 3, shared=1.0), draws=3)
    assert len(seen) == 3
    assert all(not own & others for own, others in zip(seen, judged[::2], strict=True))


@pytest.mark.parametrize(("count", "each", "said"), [(19, 3, "20 people at least, got 19"), (20, 1, "two pictures")])
def test_too_few_are_refused(count, each, said):
    with pytest.raises(DataError, match=said):
        expected_gain(*people(count, each, shared=1.0))


@pytest.mark.parametrize("rows", [np.empty((0, 3)), np.full((2, 3), np.nan), np.ones(3)])
def test_rows_that_give_no_mean_are_refused(rows):
    with pytest.raises(DataError, match="finite embeddings"):
        person_mean(rows, np.zeros(len(rows), int))
