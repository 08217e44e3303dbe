"""Damage is found: by `verify` all of it, and in use whatever would be answered."""

import sqlite3

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import AesGcm, NoCipher
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import StorageError
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError

DIM = 32


MODEL = ModelIdentity("fake", DIM, "a" * 64)


CIPHERS = {"plain": NoCipher(), "sealed": AesGcm(b"k" * 32)}


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["plain", "sealed"])
def cipher(request):
    return CIPHERS[request.param]


@pytest.fixture
def path(tmp_path, cipher):
    path = tmp_path / "people.db"
    with Gallery(path, MODEL, create=True, cipher=cipher, retention_days=3000) as gallery:
        for i in range(40):
            gallery.enroll(
                f"person {i}", unit(i, 2), weights=[0.5, 1], images=[b"%d" % i * 8, None], consent="asked in May",
                crops=[np.random.default_rng(i).bytes(900), None],
            )  # fmt: skip
    return path


def content(path):
    """Every value of every row, as SQLite reads it."""
    db = sqlite3.connect(path)
    try:
        tables = ("settings", "subjects", "samples", "unknown_faces", "forgotten", "sqlite_sequence")
        return [db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]
    finally:
        db.close()


def test_a_flipped_bit_that_changes_any_value_is_reported(path, cipher):
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    before = content(path)
    reported = 0
    for _ in range(150):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            with Gallery(path, MODEL, cipher=cipher) as gallery:
                gallery.store.verify()
        except DataError:
            reported += 1
        else:
            assert [[row for row in table if row[0] != "in_use"] for table in content(path)] == [
                [row for row in table if row[0] != "in_use"] for table in before
            ]
        for log in path.parent.glob("people.db-*"):
            log.unlink()
    assert reported > 15  # most bytes of so small a file belong to no row


CHANGES = {
    "a vector": ("UPDATE samples SET vector = flipped(vector) WHERE id = 7", "sample 7 of subject 4"),
    "a weight": ("UPDATE samples SET weight = 0.75 WHERE id = 7", "sample 7 of subject 4"),
    "whose it is": ("UPDATE samples SET subject = 9 WHERE id = 7", "sample 7 of subject 9"),
    "a crop": ("UPDATE samples SET crop = flipped(crop) WHERE id = 7", "sample 7 of subject 4"),
    "a name": ("UPDATE subjects SET name = name || 'x' WHERE id = 4", "subject 4"),
    "a time": ("UPDATE subjects SET expires = expires + 1 WHERE id = 4", "subject 4"),
    "a note": ("UPDATE subjects SET consent = '' WHERE id = 4", "subject 4"),
    "two names": (
        "UPDATE subjects SET name = (SELECT name FROM subjects AS other WHERE other.id = 9 - subjects.id) "
        "WHERE id IN (4, 5)",
        "subject 4",
    ),
    "two vectors": (
        "UPDATE samples SET vector = (SELECT vector FROM samples AS other WHERE other.id = 16 - samples.id) "
        "WHERE id IN (7, 9)",
        "sample 7 of subject 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_without_the_program_is_named_by_check_and_not_answered(path, cipher, what):
    statement, who = CHANGES[what]
    db = sqlite3.connect(path)
    db.create_function("flipped", 1, lambda blob: bytes([blob[0] ^ 1, *blob[1:]]))
    db.execute(statement)
    db.commit()
    db.close()
    with Gallery(path, MODEL, cipher=cipher) as gallery:
        with pytest.raises(StorageError, match=rf"damaged.*{who} "):
            gallery.store.verify()
        use = (lambda: gallery.crop(4)) if what == "a crop" else (lambda: gallery.search(unit(3), top=40))
        with pytest.raises(DataError, match=f"{who} is damaged"):
            use()
        if "subject" in statement.split()[1]:
            with pytest.raises(DataError, match=f"{who} is damaged"):
                gallery.subjects()
        gallery.forget(int(who.split()[-1]))  # the way out that is named
        gallery.store.verify()


def test_a_changed_setting_is_reported_when_the_gallery_is_opened(path, cipher):
    db = sqlite3.connect(path)
    db.execute("UPDATE settings SET value = '5.0' WHERE key = 'retention_days'")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match=r"damaged: its settings \(retention_days\)"):
        Gallery(path, MODEL, cipher=cipher)


def test_a_key_is_needed_to_write_a_row_into_an_encrypted_gallery(tmp_path):
    """The sum of a plain gallery is no secret; that of an encrypted one is under its key."""
    sums = []
    for key in (b"k" * 32, b"x" * 32):
        with Gallery(tmp_path / f"{key[0]}.db", MODEL, create=True, cipher=AesGcm(key)) as gallery:
            sums.append(gallery.rows.checksum("subjects", (1, "key", "name", "", 1.0, None, 1)))
    assert sums[0] != sums[1]
    assert all(0 <= one < 1 << 63 for one in sums)
