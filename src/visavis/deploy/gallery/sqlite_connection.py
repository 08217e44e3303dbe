"""Connections to a gallery's file: how each is set up, what its errors mean, and how the last one is let go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visavis.deploy.gallery.file_identity import FileIdentity
from visavis.deploy.gallery.records import StorageError
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.schema import APPLICATION_ID, PAGE_SIZE
from visavis.errors import DataError
from visavis.files import release, reserve

IN_USE = "in_use"  # a setting: the log beside the file may hold something


def connect(path: Path, *, read_only: bool, wait: float, private: bool = False) -> sqlite3.Connection:
    """A connection with our settings; a `private` file was absent and shall be readable by its owner only.

    Raises:
        DataError: the file is somebody else's SQLite database; then nothing of it is changed.
    """
    if read_only:
        # A folder that cannot be written has no room for WAL's index; with no -wal file nothing is lost without it.
        logged = path.with_name(path.name + "-wal").exists()
        frozen = "" if logged or os.access(path.parent, os.W_OK) else "&immutable=1"
        name = f"{path.as_uri()}?mode=ro{frozen}"
    else:
        name = f"{path.as_uri()}?mode=rwc"
    db = sqlite3.connect(name, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA user_version").fetchone()  # makes the file; the log will have its mode
        if private:
            with contextlib.suppress(OSError):
                path.chmod(0o600)
        if not is_empty(db) and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise DataError(f"{path}: an SQLite file, but not a visavis gallery")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        if not read_only:
            db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            _use_log(db, wait)
            db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db


def is_empty(db: sqlite3.Connection) -> bool:
    """Whether nothing was ever committed: a new file, or one whose maker was killed."""
    return (
        db.execute("PRAGMA application_id").fetchone()[0] == 0
        and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    )


def _use_log(db: sqlite3.Connection, wait: float) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself when two processes do so at once."""
    give_up = time.monotonic() + wait
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


@contextmanager
def explained(path: object) -> Iterator[None]:
    """Say in the user's words what SQLite found wrong."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise DataError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{path}: {_explain(error)}") from error


@contextmanager
def folder_errors(path: Path) -> Iterator[None]:
    """Say in the user's words what is wrong with a folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error


class LastThings:
    """What is done with a connection when its store is closed or the program ends."""

    def __init__(self, db: sqlite3.Connection, identity: FileIdentity) -> None:
        self._db, self._identity = db, identity
        reserve(identity.path)
        self.rows: Rows | None = None  # once the gallery is known and may be written

    def do(self) -> None:
        """Close the connection, unless its file was replaced.

        Closing deletes the log by its name, which is that of the other file's log by then: this connection is left to
        end with the process.
        """
        release(self._identity.path)
        if self._identity.replaced():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
            return
        if self.rows is not None:
            with contextlib.suppress(sqlite3.Error):  # a full disk keeps nobody from closing
                self._mark_unused(self.rows)
        self._db.close()

    def _mark_unused(self, rows: Rows) -> None:
        """Say in the file that no log belongs to it; who still uses it says the contrary with the next write."""
        row = self._db.execute("SELECT value FROM settings WHERE key = ?", (IN_USE,)).fetchone()
        if row is not None and row[0]:
            self._db.execute("BEGIN IMMEDIATE")
            rows.put_setting(self._db, IN_USE, "")
            self._db.execute("COMMIT")


def _explain(error: sqlite3.DatabaseError) -> str:
    code: Any = getattr(error, "sqlite_errorname", "") or ""
    for prefix, words in (
        ("SQLITE_FULL", "the disk is full; nothing of this change was kept, free some space and repeat it"),
        ("SQLITE_READONLY", "the file or its folder cannot be written"),
        ("SQLITE_CANTOPEN", "the file cannot be opened; is its folder there and writable?"),
        ("SQLITE_BUSY", "another process has been writing for too long; try again"),
        ("SQLITE_CORRUPT", "the gallery is damaged; restore it from an export or a backup"),
        ("SQLITE_NOTADB", "not a gallery (no SQLite file), or damaged in its first bytes"),
        ("SQLITE_IOERR", "the disk refused to read or write; nothing of this change was kept"),
    ):
        if code.startswith(prefix):
            return f"{words} ({code}: {error})"
    return f"{error} ({code or type(error).__name__})"
