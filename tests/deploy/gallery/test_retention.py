"""The time a subject is kept and the consent note: nothing loosens them by the way."""

import math
import time

import numpy as np
import pytest

from visavis.deploy.gallery.exchange import export_gallery, import_gallery
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.retention import DAY, MAX_DAYS, checked_days, earliest, joined_notes
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.unknowns import drop_unknowns
from visavis.deploy.json_views import merge_notes
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 8, "a" * 64)
REFUSED = [math.nan, math.inf, -math.inf, 0, -5, MAX_DAYS * 1.001, "soon", True]


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(place):
    with place.open(MODEL, create=True) as made:
        yield made


def in_days(days):
    return pytest.approx(time.time() + days * DAY, abs=60)


def test_enrolling_again_without_a_limit_leaves_the_limit(gallery):
    first = gallery.enroll("Ada", unit(1), retention_days=30, consent="form 7").subject
    assert first.expires == in_days(30)
    again = gallery.enroll("Ada", unit(2)).subject
    assert (again.expires, again.consent, again.samples) == (first.expires, "form 7", 2)
    gallery.enroll_many(["Ada"], unit(3))
    assert gallery.subject("Ada").expires == first.expires


def test_a_default_is_for_new_subjects_only(place):
    with place.open(MODEL, create=True, retention_days=10) as gallery:
        kept = gallery.enroll("Ada", unit(1), retention_days=3).subject
        assert gallery.enroll("Ada", unit(2)).subject.expires == kept.expires
        assert gallery.enroll("Bob", unit(3)).subject.expires == in_days(10)


def test_only_an_explicit_value_lengthens(gallery):
    gallery.enroll("Ada", unit(1), retention_days=3)
    assert gallery.enroll("Ada", unit(2), retention_days=9).subject.expires == in_days(9)
    assert gallery.update("Ada", consent="form 8").expires == in_days(9)
    assert gallery.update("Ada", retention_days=20).expires == in_days(20)


def test_where_nothing_is_added_nothing_changes(gallery):
    first = gallery.enroll("Ada", unit(1), images=[b"p"], retention_days=30, consent="form 7").subject
    generation = gallery.store.settings()["generation"]
    again = gallery.enroll("Ada", unit(1), images=[b"p"], retention_days=900, consent="anything goes")
    assert (again.added, again.already, again.subject) == (0, 1, first)
    assert gallery.store.settings()["generation"] == generation


@pytest.mark.parametrize("days", REFUSED)
def test_impossible_days_are_refused_wherever_days_are_taken(gallery, tmp_path, days):
    gallery.enroll("Ada", unit(1), retention_days=2)
    before = gallery.subject("Ada")
    for attempt in (
        lambda: checked_days(days),
        lambda: gallery.enroll("Ada", unit(2), retention_days=days),
        lambda: gallery.enroll("Bob", unit(2), retention_days=days),
        lambda: gallery.update("Ada", retention_days=days),
        lambda: Gallery(tmp_path / "other.db", MODEL, create=True, retention_days=days),
        lambda: drop_unknowns(gallery, older_than_days=days),
    ):
        with pytest.raises(DataError, match="retention period"):
            attempt()
    assert gallery.subjects() == [before]
    assert not (tmp_path / "other.db").exists()


def test_the_longest_period_is_a_century():
    assert checked_days(MAX_DAYS) == MAX_DAYS == 36_500


@pytest.mark.parametrize("keep", ["Keep", "Short"])
def test_merging_takes_the_earlier_end_and_joins_the_notes(gallery, keep):
    gallery.enroll("Keep", unit(1), consent="no limit")
    short = gallery.enroll("Short", unit(2), consent="only until May", retention_days=1).subject
    other = {"Keep": "Short", "Short": "Keep"}[keep]
    done = gallery.merge(keep, other)
    assert done.subject.expires == short.expires
    assert set(done.subject.consent.split("; ")) == {"no limit", "only until May"}
    notes = " ".join(merge_notes(done))
    assert "the earliest end of those merged" in notes
    assert "consent notes joined" in notes
    assert [(subject.name, len(samples)) for subject, samples in done.absorbed] == [(other, 1)]


def test_merging_equals_has_nothing_to_say(gallery):
    gallery.enroll("A", unit(1), consent="form")
    gallery.enroll("B", unit(2), consent="form")
    assert merge_notes(gallery.merge("A", "B")) == []


def test_ends_and_notes_are_joined():
    assert earliest([None, 5.0, 3.0]) == 3.0
    assert earliest([None, None]) is None
    assert joined_notes(["a", "", " a ", "b"]) == "a; b"


def test_importing_never_lengthens_and_joins_the_notes(gallery, tmp_path):
    gallery.enroll("Ada", unit(1), retention_days=30, consent="form 7")
    export_gallery(gallery, tmp_path / "e.npz")
    with Gallery(tmp_path / "g.db", MODEL, create=True) as other:
        other.enroll("Ada", unit(2), retention_days=3, consent="form 9")
        import_gallery(other, tmp_path / "e.npz")
        ada = other.subject("Ada")
        assert (ada.samples, ada.expires, ada.consent) == (2, in_days(3), "form 9; form 7")
    with Gallery(tmp_path / "h.db", MODEL, create=True) as third:
        third.enroll("Ada", unit(2))
        import_gallery(third, tmp_path / "e.npz")
        assert third.subject("Ada").expires == in_days(30)
