"""Samples one by one: listed, taken back, split off, and a merge undone; unknown faces go with who is forgotten."""

import time

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import AesGcm, NoCipher
from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.records import SourceFile
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.unknowns import keep_unknowns, read_unknowns
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 16, "a" * 64)


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def source(number):
    return SourceFile(bytes([number]) * 32, f"holiday picture {number}.jpg")


@pytest.fixture(params=["plain", "encrypted", "postgres"])
def gallery(request, tmp_path):
    if request.param == "postgres":
        server, schema = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
        made = PgGallery(server.dsn, MODEL, schema=schema, create=True)
    else:
        cipher = NoCipher() if request.param == "plain" else AesGcm(b"k" * 32)
        made = Gallery(tmp_path / "people.db", MODEL, create=True, cipher=cipher)
    with made:
        yield made


def test_samples_are_listed_with_their_file_quality_and_time(gallery):
    gallery.enroll("Ada", unit(1, 2), weights=[0.5, 0.8], sources=[source(1), source(2)], crops=[None, b"crop"])
    gallery.enroll("Ada", unit(2))
    first, second, third = gallery.samples("Ada")
    assert [s.id for s in (first, second, third)] == [1, 2, 3]
    assert (first.source_name, first.quality, first.crop) == ("holiday picture 1.jpg", 0.5, False)
    assert (second.weight, second.crop, second.template) == (0.8, True, 0)
    assert (third.source_name, third.quality, third.weight) == (None, None, 1.0)
    assert first.created == pytest.approx(time.time(), abs=60)


def test_files_that_are_there_are_known_by_their_digest(gallery):
    gallery.enroll("Ada", unit(1, 2), sources=[source(1), source(2)])
    assert gallery.known_sources("Ada", [source(2), source(3)]) == [True, False]
    assert gallery.known_sources("Bob", [source(2)]) == [False]
    gallery.enroll("Ada", unit(3))
    assert [s.id for s in gallery.samples_without("Ada", [source(1), source(9)])] == [2]


def test_one_sample_is_erased_without_a_trace_and_the_template_fused_anew(gallery, kept_bytes):
    rows = unit(1, 3)
    gallery.enroll("Ada", rows, sources=[source(1), source(2), source(3)], crops=[None, bytes(range(256)) * 40, None])
    with gallery.store.read() as db:
        stored = [bytes(r[0]) for r in db.execute("SELECT vector FROM samples ORDER BY id").fetchall()]
    gallery.refresh()
    receipt = gallery.forget_samples("Ada", [2])
    assert (receipt.subjects, receipt.samples, receipt.crops, receipt.tables) == (0, 1, 1, ("samples",))
    assert receipt.complete
    everything = kept_bytes(gallery)
    assert stored[1] not in everything
    assert b"holiday picture 2" not in everything
    assert stored[0] in everything
    template = fuse(rows[[0, 2]], np.ones(2))
    assert gallery.search(template, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
    assert [s.id for s in gallery.samples("Ada")] == [1, 3]


@pytest.mark.parametrize("samples", [[1, 2], [3], [9], [], [True], [1, 3]])
def test_what_cannot_be_erased_erases_nothing(gallery, samples):
    gallery.enroll("Ada", unit(1, 2))
    gallery.enroll("Bob", unit(2))
    with pytest.raises(DataError, match="samples"):
        gallery.forget_samples("Ada", samples)
    assert (len(gallery.samples("Ada")), len(gallery.samples("Bob"))) == (2, 1)


def test_a_subject_is_split_by_samples_and_both_keep_what_was_agreed(gallery):
    rows = unit(1, 3)
    ada = gallery.enroll("Ada", rows, consent="form 7", retention_days=30).subject
    gallery.refresh()
    one, other = gallery.split("Ada", [3], "Bob")
    assert (one.id, one.samples, other.name, other.samples) == (ada.id, 2, "Bob", 1)
    assert (other.consent, other.expires) == ("form 7", ada.expires)
    assert gallery.search(rows[2], top=1)[0][0].name == "Bob"
    assert gallery.search(fuse(rows[:2], np.ones(2)), top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
    with pytest.raises(DataError, match="taken by subject"):
        gallery.split("Ada", [1], "Bob")
    with pytest.raises(DataError, match="rename"):
        gallery.split("Ada", [1, 2], "Cy")
    assert [s.name for s in gallery.subjects()] == ["Ada", "Bob"]


def test_a_merge_is_undone_to_the_note_and_the_second(gallery):
    rows = unit(1, 4)
    ada = gallery.enroll("Ada", rows[:2], consent="no limit").subject
    bob = gallery.enroll("Bob", rows[2:], consent="until May", retention_days=3).subject
    merge = gallery.merge("Ada", "Bob")
    gallery.refresh()
    back = gallery.undo_merge(merge)
    assert [(s.name, s.consent, s.expires, s.samples) for s in back] == [
        ("Ada", "no limit", None, 2),
        ("Bob", "until May", bob.expires, 2),
    ]
    assert back[0].id == ada.id
    assert back[1].id > bob.id  # numbers of erased subjects are not given again
    assert gallery.search(fuse(rows[2:], np.ones(2)), top=1)[0][0].name == "Bob"
    assert gallery.search(fuse(rows[:2], np.ones(2)), top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)


def test_a_merge_that_was_built_upon_is_not_undone(gallery):
    gallery.enroll("Ada", unit(1), consent="form 1")
    gallery.enroll("Bob", unit(2), consent="form 2")
    merge = gallery.merge("Ada", "Bob")
    gallery.update("Ada", consent="both asked again")
    with pytest.raises(DataError, match="changed since"):
        gallery.undo_merge(merge)
    assert gallery.subject("Ada").samples == 2
    gallery.update("Ada", consent=merge.subject.consent)
    gallery.forget_samples("Ada", [1])
    with pytest.raises(DataError, match="no sample left"):
        gallery.undo_merge(merge)
    assert [s.name for s in gallery.subjects()] == ["Ada"]


def test_forgetting_takes_the_unknown_faces_of_the_same_person_along(gallery, kept_bytes):
    ada, bob = unit(1), unit(2)
    gallery.enroll("Ada", ada)
    near = ada + 0.1 * unit(3)
    keep_unknowns(gallery, [near[0], bob[0]])
    with gallery.store.read() as db:
        stored = bytes(db.execute("SELECT vector FROM unknown_faces ORDER BY id").fetchone()[0])
    receipt = gallery.forget("Ada", threshold=0.9)
    assert (receipt.unknown_faces, receipt.tables) == (1, ("subjects", "samples", "unknown_faces"))
    assert receipt.complete
    assert read_unknowns(gallery)[0] == [2]
    assert stored not in kept_bytes(gallery)


def test_unknown_faces_that_nobody_compared_make_the_receipt_incomplete(gallery):
    gallery.enroll("Ada", unit(1))
    gallery.enroll("Bob", unit(4), retention_days=0.05 / 86_400)
    keep_unknowns(gallery, [unit(1)[0]])
    receipt = gallery.forget("Ada")
    assert not receipt.complete
    assert "1 unknown faces are kept" in receipt.note
    assert "drop-unknowns" in receipt.note
    time.sleep(0.06)
    assert gallery.sweep(threshold=0.9).complete
    assert read_unknowns(gallery)[0] == [1]


def test_whoever_is_swept_by_an_enrollment_takes_unknown_faces_along_too(gallery):
    gallery.enroll("Ada", unit(1), retention_days=0.05 / 86_400)
    keep_unknowns(gallery, [unit(1)[0], unit(2)[0]])
    time.sleep(0.06)
    gallery.enroll("Bob", unit(3), threshold=0.9)
    assert [s.name for s in gallery.subjects()] == ["Bob"]
    assert len(read_unknowns(gallery)[0]) == 1


def test_the_threshold_itself_counts(gallery):
    gallery.enroll("Ada", np.eye(16)[0])
    keep_unknowns(gallery, [np.array([0.6, 0.8, *[0] * 14], np.float32), np.array([0.59, 0.8, *[0] * 14])])
    assert gallery.forget("Ada", threshold=np.float32(0.6)).unknown_faces == 1
