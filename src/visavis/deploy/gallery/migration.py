"""Galleries of earlier formats brought to the present one: a copy first, then one transaction."""

from __future__ import annotations

import logging
import sqlite3

from visavis.deploy.gallery.encryption import Cipher, NoCipher
from visavis.deploy.gallery.names import name_key
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.schema import SCHEMA, SCHEMA_VERSION
from visavis.deploy.gallery.sqlite_file import Store
from visavis.errors import DataError

log = logging.getLogger(__name__)
_BATCH = 1000


def migrate(store: Store, cipher: Cipher) -> None:
    """Bring a gallery of format 1 or 2 to the present one; the old state stays beside it as GALLERY.format-N.backup.

    Everything happens while this process alone may write, in one transaction: killed at any moment, the gallery is of
    its old format or of the new, and the next opening goes on from there.

    Raises:
        DataError: it is opened for reading only; the disk has no room for the copy.
    """
    rows = store.rows
    if rows is None or store.version == SCHEMA_VERSION:
        return
    if store.read_only:
        raise DataError(
            f"{store.path}: a gallery of format {store.version}, this program reads {SCHEMA_VERSION}; to bring it "
            f"there, where it can be written, type: visavis gallery {store.path} check"
        )
    with store.write() as db:
        version = store.version
        if version == SCHEMA_VERSION:
            return  # another process did it while this one waited
        copy = store.backup_path(version)
        store.backup(copy)
        _to_format_3(db, version, _Old(cipher, rows.context), rows)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    log.warning("%s: brought from format %d to %d; as it was: %s", store.path, version, SCHEMA_VERSION, copy.name)
    store.scrub()


class _Old:
    """How formats 1 and 2 encrypted: bound to the gallery, not to the row."""

    def __init__(self, cipher: Cipher, context: bytes) -> None:
        self._cipher, self._context = cipher, context
        self.encrypted = not isinstance(cipher, NoCipher)

    def decrypted(self, stored: bytes | None) -> bytes | None:
        return None if stored is None else self._cipher.decrypt(stored, self._context)

    def text(self, stored: bytes | str) -> str:
        return self._cipher.decrypt(stored, self._context).decode() if isinstance(stored, bytes) else stored


def _to_format_3(db: sqlite3.Connection, version: int, old: _Old, rows: Rows) -> None:
    names = ("meta", "subjects", "samples", "unknowns", "forgotten")
    for name in names:
        db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
    for index in ("subjects_changed", "subjects_expires", "samples_subject", "forgotten_changed"):
        db.execute(f"DROP INDEX {index}")
    for statement in SCHEMA:
        db.execute(statement)
    for key, value in db.execute("SELECT key, value FROM old_meta").fetchall():
        rows.put_setting(db, key, value)
    _subjects(db, version, old, rows)
    _samples(db, version, old, rows)
    _unknowns(db, old, rows)
    db.execute("INSERT INTO forgotten SELECT subject, changed FROM old_forgotten")
    given = {"subjects": "subjects", "samples": "samples", "unknowns": "unknown_faces"}
    for name, fresh in given.items():  # numbers of erased rows are not given again
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (f"old_{name}",)).fetchone()
        if last is not None:
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (fresh,))
            db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (fresh, last[0]))
    for name in ("samples", "subjects", "unknowns", "meta", "forgotten"):  # what refers to another goes first
        db.execute(f"DROP TABLE old_{name}")


def _subjects(db: sqlite3.Connection, version: int, old: _Old, rows: Rows) -> None:
    shown = "title" if version > 1 and old.encrypted else "name"
    query = f"SELECT id, {shown}, consent, created, expires, changed FROM old_subjects ORDER BY id"
    taken: set[str] = set()
    for number, stored, consent, created, expires, changed in db.execute(query):
        name, note = old.text(stored), old.text(consent)
        label = rows.label(name_key(name) or name)
        if label in taken:
            log.warning("subject %d bears the name of another but for characters nobody sees; rename one", number)
            label = rows.label(f"{name_key(name)}\0{number}")
        taken.add(label)
        encrypted = [rows.encrypt_text(t, "subjects", c, number) for c, t in (("name", name), ("consent", note))]
        rows.insert(db, "subjects", [(number, label, *encrypted, created, expires, changed)])


def _samples(db: sqlite3.Connection, version: int, old: _Old, rows: Rows) -> None:
    query = "SELECT id, subject, vector, weight, picture, crop, created FROM old_samples ORDER BY id"
    cursor = db.execute(query)
    while batch := cursor.fetchmany(_BATCH):
        fresh = []
        for number, subject, vector, weight, image, crop, created in batch:
            mark = rows.earlier_digest(image) if version == 1 and rows.encrypted else image
            encrypted = rows.encrypt(old.decrypted(vector), "samples", "vector", number)
            row = (number, subject, 0, encrypted, weight, None, mark, None, None, created)
            fresh.append(rows.with_crop(row, old.decrypted(crop), "samples"))
        rows.insert(db, "samples", fresh)


def _unknowns(db: sqlite3.Connection, old: _Old, rows: Rows) -> None:
    query = "SELECT id, vector, crop, created FROM old_unknowns ORDER BY id"
    for number, vector, crop, created in db.execute(query):
        encrypted = rows.encrypt(old.decrypted(vector), "unknown_faces", "vector", number)
        row = (number, encrypted, None, None, None, None, created)
        rows.insert(db, "unknown_faces", [rows.with_crop(row, old.decrypted(crop), "unknown_faces")])
