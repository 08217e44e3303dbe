"""What every gallery promises, wherever its rows are kept: forgetting, and forgetting in time."""

import time

import numpy as np
import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import UnknownSubject
from visavis.deploy.gallery.unknowns import drop_unknowns, keep_unknowns
from visavis.errors import DataError

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(place):
    with place.open(MODEL, create=True) as made:
        yield made


def test_forgetting_somebody_unknown_erases_nobody(gallery):
    gallery.enroll("Ada", unit(1))
    with pytest.raises(DataError, match="nobody"):
        gallery.forget("Ada", "Bob")
    assert len(gallery) == 1


def test_a_picture_that_somebody_else_still_has_is_no_remainder(gallery):
    gallery.enroll("Ada Lovelace", unit(7))
    gallery.enroll("Ada Byron", unit(7))
    assert gallery.forget("Ada Lovelace").complete


def test_after_the_retention_period_nobody_is_found_and_the_sweep_erases(place):
    with place.open(MODEL, create=True, retention_days=1) as gallery:
        kept = gallery.enroll("Bob", unit(2), retention_days=30).subject
        gallery.enroll("Ada", unit(1), retention_days=0.2 / 86_400)
        assert kept.expires == pytest.approx(time.time() + 30 * 86_400, abs=60)
        assert gallery.search(unit(1), top=1)[0][0].name == "Ada"
        time.sleep(0.25)
        assert [c.name for c in gallery.search(unit(1), top=5)[0]] == ["Bob"]
        assert len(gallery) == 1
        receipt = gallery.sweep()
        assert receipt is not None
        assert (receipt.subjects, receipt.complete) == (1, True)
        assert gallery.sweep() is None
        assert gallery.enroll("Cy", unit(3)).subject.expires == pytest.approx(time.time() + 86_400, abs=60)


def test_samples_of_an_expired_subject_do_not_come_back_with_the_name(gallery):
    gallery.enroll("Ada", unit(1), retention_days=0.1 / 86_400)
    time.sleep(0.15)
    assert gallery.enroll("Ada", unit(2)).subject.samples == 1


def test_forgetting_leaves_no_byte_in_the_files(place, gallery):
    crop = np.random.default_rng(0).bytes(20_000)
    secret = unit(7, 2)
    gallery.enroll("Zebulon Quackenbush", secret, crops=[crop, crop], consent="letter of 3 May")
    gallery.enroll_many([f"s{i}" for i in range(50)], unit(8, 50))
    gallery.refresh()
    with gallery.store.read() as db:
        stored = [bytes(row[0]) for row in db.execute("SELECT vector FROM samples ORDER BY id").fetchall()]
    needles = [stored[0], stored[1][40:90], crop[5000:5100], b"Zebulon Quackenbush", b"letter of 3 May"]
    if place.kind == "postgres":
        with place.connection() as db:
            db.execute("ANALYZE")  # as the server does by itself
    before = place.raw()
    assert all(needle in before for needle in needles)
    receipt = gallery.forget("Zebulon Quackenbush")
    assert (receipt.subjects, receipt.samples, receipt.crops) == (1, 2, 2)
    assert (receipt.found, receipt.complete) == (0, True)
    after = place.raw()
    assert not any(needle in after for needle in needles)
    assert stored[5] in after
    with pytest.raises(UnknownSubject):
        gallery.forget("Zebulon Quackenbush")


def test_several_are_forgotten_together_or_not_at_all(place, gallery):
    gallery.enroll_many(["Ada", "Bob", "Cy"], unit(1, 3))
    with pytest.raises(UnknownSubject):
        gallery.forget("Ada", "nobody", "Bob")
    assert len(gallery) == 3
    receipt = gallery.forget("Ada", gallery.subject("Cy").id, "Ada")
    assert (receipt.subjects, receipt.samples, receipt.complete) == (2, 2, True)
    assert [s.name for s in gallery.subjects()] == ["Bob"]


def test_who_was_forgotten_by_another_meanwhile_is_said(place, gallery, monkeypatch):
    gallery.enroll_many(["Ada", "Bob"], unit(1, 2))
    erase = gallery._erase
    with place.open(MODEL) as other:

        def late(ids, *rest):
            other.forget("Ada")
            return erase(ids, *rest)

        monkeypatch.setattr(gallery, "_erase", late)
        with pytest.raises(UnknownSubject, match="gone already"):
            gallery.forget("Ada", "Bob")
    assert [s.name for s in gallery.subjects()] == ["Bob"]


def test_a_sweep_beside_another_one_fails_neither(place, gallery, monkeypatch):
    gallery.enroll_many(["Ada", "Bob"], unit(1, 2))
    for name in ("Ada", "Bob"):
        gallery.update(name, retention_days=0.5 / 86_400)
    time.sleep(0.6)
    erase = gallery._erase
    with place.open(MODEL) as other:

        def late(ids, *rest):
            monkeypatch.undo()
            other.forget(min(ids))
            return erase(ids, *rest)

        monkeypatch.setattr(gallery, "_erase", late)
        assert gallery.sweep().subjects == 1
    assert gallery.sweep() is None


def test_a_receipt_is_not_complete_while_a_reader_still_sees_the_rows(place, gallery):
    gallery.enroll("Zebulon Quackenbush", unit(1))
    gallery.enroll("Bob", unit(2))
    gallery.store.wait = 0.1
    with place.reader():
        receipt = gallery.forget("Zebulon Quackenbush")
        assert not receipt.complete
        assert receipt.note
    gallery.store.wait = 30.0
    assert gallery.store.scrub()
    assert b"Zebulon Quackenbush" not in place.raw()


def test_merging_and_renaming_leave_what_forgetting_finds(place, gallery):
    gallery.enroll("Adalbert Unterwurzacher", unit(1))
    gallery.enroll("Ada", unit(2))
    gallery.update("Adalbert Unterwurzacher", name="Bartholomew Featherstone", consent="letter of 4 June")
    gallery.merge("Ada", "Bartholomew Featherstone")
    with gallery.store.read() as db:
        stored = [bytes(row[0]) for row in db.execute("SELECT vector FROM samples").fetchall()]
    receipt = gallery.forget("Ada")
    assert (receipt.samples, receipt.complete) == (2, True)
    after = place.raw()
    for needle in (b"Unterwurzacher", b"Featherstone", b"letter of 4 June", *stored):
        assert needle not in after


def test_unknown_faces_that_are_dropped_leave_no_byte(place, gallery):
    keep_unknowns(gallery, [unit(3)[0]])
    with gallery.store.read() as db:
        stored = bytes(db.execute("SELECT vector FROM unknown_faces").fetchone()[0])
    assert stored in place.raw()
    assert drop_unknowns(gallery) == 1
    assert stored not in place.raw()
