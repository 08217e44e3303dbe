"""The gallery: enrolling, finding, forgetting, durability and what it refuses."""

import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import KEY_VARIABLE, AesGcm
from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError, ModelFormatError
from visavis.models.card import ModelCard
from visavis.vision.preprocessing import PreprocessSpec

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", MODEL, create=True) as made:
        yield made


def test_opposite_samples_fall_back_to_the_best():
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    np.testing.assert_array_equal(fuse(rows, np.array([1.0, 1.0])), rows[0])


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_every_precision_gives_the_exact_similarities_of_a_plain_product(tmp_path, precision):
    people, probes = unit(3, 900, 64), unit(4, 7, 64)
    with Gallery(tmp_path / "g.db", ModelIdentity("m", 64, "b"), create=True, precision=precision) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(900)], people)
        for several in (probes[:1], probes):
            truth = several @ people.T
            for row, found in zip(truth, gallery.search(several, top=3), strict=True):
                best = np.argsort(-row)[:3]
                assert [c.name for c in found] == [f"s{i}" for i in best]
                np.testing.assert_allclose([c.similarity for c in found], row[best], atol=1e-6)


def test_forgetting_leaves_no_byte_behind(gallery):
    crop = np.random.default_rng(0).bytes(20_000)
    secret = unit(7, 2)
    gallery.enroll("Zebulon Quackenbush", secret, crops=[crop, crop], consent="letter of 3 May")
    gallery.enroll_many([f"s{i}" for i in range(50)], unit(8, 50))
    gallery.refresh()
    stored = gallery.store._db.execute("SELECT vector FROM samples ORDER BY id").fetchone()[0]
    np.testing.assert_allclose(np.frombuffer(stored, np.float32), secret[0], atol=1e-6)
    needles = [stored, crop[5000:5100], b"Zebulon Quackenbush", b"letter of 3 May"]
    gallery.store.scrub()
    before = gallery.path.read_bytes()
    assert all(needle in before for needle in needles)
    receipt = gallery.forget("Zebulon Quackenbush")
    assert (receipt.subjects, receipt.samples, receipt.crops, receipt.index_rows) == (1, 2, 2, 1)
    assert receipt.complete
    assert receipt.found == 0
    assert receipt.fingerprints >= 6
    everything = b"".join(path.read_bytes() for path in gallery.path.parent.iterdir())
    assert not any(needle in everything for needle in needles)
    raw = gallery._index.vectors._data[: 50 + 1]  # behind it is room never written
    assert not (np.abs(raw @ secret[0]) > 0.99).any()
    with pytest.raises(DataError, match="nobody"):
        gallery.forget("Zebulon Quackenbush")


def test_the_receipt_finds_what_is_left(gallery, monkeypatch):
    """The search is real: with the zeroing and rewriting switched off it reports the remainder."""
    gallery.enroll("Zebulon Quackenbush", unit(7))
    gallery.enroll("other", unit(8))
    gallery.store._db.execute("PRAGMA secure_delete = OFF")
    monkeypatch.setattr(gallery.store, "scrub", lambda: True)
    receipt = gallery.forget("Zebulon Quackenbush")
    assert receipt.found > 0
    assert not receipt.complete


def test_the_identity_depends_on_weights_and_preprocessing():
    card = ModelCard("m", "fake", 8, PreprocessSpec(), weights_digest="1" * 64)
    same = ModelIdentity.of_card(card.with_changes(name="m", thresholds={"1e-3": {"threshold": 0.3}}))
    assert ModelIdentity.of_card(card) == same
    assert ModelIdentity.of_card(card.with_changes(weights_digest="2" * 64)).digest != same.digest
    bgr = card.with_changes(preprocess=PreprocessSpec(channels="BGR"))
    assert ModelIdentity.of_card(bgr).digest != same.digest
    with pytest.raises(ModelFormatError, match="weights_digest"):
        ModelIdentity.of_card(card.with_changes(weights_digest=""))


def test_a_gallery_that_is_not_there_or_not_one_is_refused_in_plain_words(tmp_path):
    with pytest.raises(DataError, match="no such gallery"):
        Gallery(tmp_path / "absent.db", MODEL)
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(DataError, match="not a gallery"):
        Gallery(tmp_path / "text.db", MODEL)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(DataError, match="not a visavis gallery"):
        Gallery(tmp_path / "other.db", MODEL, create=True)
    assert (tmp_path / "other.db").read_bytes() == before
    assert [path.name for path in tmp_path.glob("other.db*")] == ["other.db"]
    with pytest.raises(DataError, match="wants the model"):
        Gallery(tmp_path / "new.db", create=True)
    with pytest.raises(DataError):
        Gallery(tmp_path / "no" / "folder" / "g.db", MODEL, create=True)


def test_a_damaged_file_is_reported(tmp_path):
    path = tmp_path / "g.db"
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(3000)], unit(1, 3000))
    data = bytearray(path.read_bytes())
    data[16_384 * 4 : 16_384 * 9] = os.urandom(16_384 * 5)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"), Gallery(path, MODEL) as gallery:
        gallery.store.verify()
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(DataError, match="damaged"), Gallery(path, MODEL) as gallery:
        gallery.store.verify()


def test_a_full_disk_keeps_the_old_state(gallery):
    gallery.enroll("Ada", unit(1))
    pages = gallery.store._db.execute("PRAGMA page_count").fetchone()[0]
    gallery.store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DataError, match="disk is full"):
        gallery.enroll_many([f"s{i}" for i in range(2000)], unit(2, 2000))
    gallery.store._db.execute("PRAGMA max_page_count = 1000000")
    assert [s.name for s in gallery.subjects()] == ["Ada"]
    gallery.enroll("Bob", unit(2))
    assert len(gallery) == 2


def test_a_file_opened_for_reading_can_be_searched_and_not_changed(gallery):
    gallery.enroll("Ada", unit(1))
    gallery.close()
    with Gallery(gallery.path, MODEL, read_only=True) as frozen:
        assert frozen.search(unit(1), top=1)[0][0].name == "Ada"
        with pytest.raises(DataError, match="reading only"):
            frozen.enroll("Bob", unit(2))


def test_forgetting_says_when_a_reader_still_holds_the_old_state(gallery):
    gallery.enroll("Ada Lovelace", unit(1))
    gallery.store.wait = 0.05
    reader = sqlite3.connect(gallery.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM samples").fetchone()
    receipt = gallery.forget("Ada Lovelace")
    assert not receipt.complete
    assert "another process" in receipt.note
    reader.close()
    assert gallery.store.scrub()


def test_encrypted_galleries_hold_no_plain_vector_and_want_their_key(tmp_path, monkeypatch):
    path, key, vector = tmp_path / "g.db", AesGcm(b"k" * 32), unit(1)
    with Gallery(path, MODEL, create=True, seal=key) as gallery:
        gallery.enroll("Ada", vector, crops=[b"a crop " * 100])
        assert gallery.encrypted
        assert gallery.search(vector, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
        assert gallery.crop("Ada") == b"a crop " * 100
    data = path.read_bytes()
    assert vector.tobytes()[:32] not in data
    assert b"a crop a crop" not in data
    with pytest.raises(DataError, match="encrypted"):
        Gallery(path, MODEL)
    with pytest.raises(DataError, match="key"):
        Gallery(path, MODEL, seal=AesGcm(b"x" * 32))
    monkeypatch.setenv(KEY_VARIABLE, "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    with Gallery(path, MODEL) as gallery:
        assert gallery.forget("Ada").complete
    monkeypatch.setenv(KEY_VARIABLE, "not base64!")
    with pytest.raises(DataError, match="base64"):
        Gallery(path, MODEL)


def test_encrypted_galleries_hold_no_plain_name_note_or_picture_digest(tmp_path):
    path, key = tmp_path / "g.db", AesGcm(b"k" * 32)
    secrets = ["Zebulon Quackenbush", "Žofie Nováková", "letter of the 3rd of May"]
    with Gallery(path, MODEL, create=True, seal=key) as gallery:
        gallery.enroll(secrets[0], unit(1), consent=secrets[2], pictures=[b"digest of a picture"])
        gallery.enroll_many([secrets[1], "Bob"], unit(2, 2), consent="asked")
        assert gallery.subject("Zebulon Quackenbush").consent == secrets[2]
        assert [s.name for s in gallery.subjects("quack")] == [secrets[0]]
        assert [s.name for s in gallery.subjects()] == ["Bob", *secrets[:2]]
        assert gallery.search(unit(1), top=1)[0][0].name == secrets[0]
        again = gallery.enroll(secrets[0], unit(1), pictures=[b"digest of a picture"])
        assert (again.added, again.already, again.subject.consent) == (0, 1, secrets[2])
        with pytest.raises(DataError, match="taken"):
            gallery.update("Bob", name=secrets[1])
        assert gallery.update("Bob", name="Robert Tables").name == "Robert Tables"
        gallery.merge(secrets[0], secrets[1])
        plain = [*secrets, "Robert Tables", "asked", "digest of a picture"]
        everything = b"".join(file.read_bytes() for file in gallery.store.files())
        assert not [text for text in plain if text.encode() in everything]
        receipt = gallery.forget(secrets[0])
        assert (receipt.complete, receipt.found) == (True, 0)
        assert [s.name for s in gallery.subjects()] == ["Robert Tables"]


def test_searching_goes_on_while_the_file_is_rewritten(gallery, monkeypatch):
    gallery.enroll_many([f"s{i}" for i in range(50)], unit(8, 50))
    connect, answers = gallery.store._connect, []

    class Slow:
        def __init__(self, db):
            self._db = db

        def execute(self, query):
            if query == "VACUUM":
                worker = threading.Thread(target=lambda: answers.append(gallery.search(unit(8, 50)[3], top=1)))
                worker.start()
                worker.join(20)
            return self._db.execute(query)

        def close(self):
            self._db.close()

    monkeypatch.setattr(gallery.store, "_connect", lambda: Slow(connect()))
    said = []
    assert gallery.forget("s7", "s8", progress=said.append).complete
    assert answers[0][0][0].name == "s3"
    assert [text.split()[0] for text in said] == ["rewriting", "searching"]


def test_files_lists_every_companion(gallery):
    gallery.enroll("Ada", unit(1))
    assert {Path(p).name for p in gallery.store.files()} == {"people.db", "people.db-wal", "people.db-shm"}
