"""The gallery: enrolling, finding, forgetting, durability and what it refuses."""

import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError

DIM = 32


MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", MODEL, create=True) as made:
        yield made


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
