"""The gallery's file: SQLite in WAL mode, every acknowledged write on the disk, every freed page zeroed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visavis.deploy.gallery.records import StorageError
from visavis.errors import DataError

APPLICATION_ID = 0x76697361  # "visa", bytes 68..71 of the file
SCHEMA_VERSION = 2  # 1 had no encrypted names; `binding.upgrade` brings it to 2
_PAGE = 16_384  # holds seven 512-d vectors; SQLite's 4096 would hold one and waste half
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE subjects (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, consent TEXT NOT NULL,
  created REAL NOT NULL, expires REAL, changed INTEGER NOT NULL, title BLOB);
CREATE INDEX subjects_changed ON subjects(changed);
CREATE INDEX subjects_expires ON subjects(expires) WHERE expires IS NOT NULL;
CREATE TABLE samples (
  id INTEGER PRIMARY KEY AUTOINCREMENT, subject INTEGER NOT NULL REFERENCES subjects(id) ON DELETE CASCADE,
  vector BLOB NOT NULL, weight REAL NOT NULL, picture BLOB, crop BLOB, created REAL NOT NULL);
CREATE INDEX samples_subject ON samples(subject);
CREATE TABLE forgotten (subject INTEGER PRIMARY KEY, changed INTEGER NOT NULL);
CREATE INDEX forgotten_changed ON forgotten(changed);
CREATE TABLE unknowns (id INTEGER PRIMARY KEY AUTOINCREMENT, vector BLOB NOT NULL, crop BLOB, created REAL NOT NULL);
"""


class Store:
    """One connection, shared by the threads of a process under a lock; other processes open their own.

    Raises:
        DataError: no such file, not a gallery, damaged, from a newer version, or not writable (`read_only=False`).
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False, wait: float = 30.0) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._writer = (
            threading.RLock()
        )  # taken before `lock`; rewriting the file holds it alone, so that readers go on
        self.wait = wait
        self.read_only = read_only
        if not create and not path.is_file():
            raise DataError(
                f"{path}: no such gallery; make it with: visavis enroll {path} --model MODEL --name NAME PICTURE"
            )
        with self.explained():
            self._db = self._connect()
            try:
                if create:
                    self._create()
                self._check()
            except BaseException:
                self._db.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        if self.read_only:
            # A folder that cannot be written has no room for WAL's index; with no -wal file nothing is lost without it.
            frozen = "" if self.path.with_name(self.path.name + "-wal").exists() else "&immutable=1"
            name = f"{self.path.resolve().as_uri()}?mode=ro{frozen}"
        else:
            name = f"{self.path.resolve().as_uri()}?mode=rwc"
        db = sqlite3.connect(name, uri=True, timeout=self.wait, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        db.create_function("fold", 1, str.casefold, deterministic=True)
        if not self.read_only:
            db.execute(f"PRAGMA page_size = {_PAGE}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        return db

    def _create(self) -> None:
        with self.write() as db:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return  # another process made it first
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("INSERT INTO meta VALUES ('generation', '0')")

    def _check(self) -> None:
        if self._db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise DataError(f"{self.path}: an SQLite file, but not a visavis gallery")
        if self.version not in (1, SCHEMA_VERSION):
            raise DataError(
                f"{self.path}: gallery format {self.version}, this program reads {SCHEMA_VERSION}; update visavis"
            )

    @property
    def version(self) -> int:
        """The format of the file."""
        with self.lock:
            return self._db.execute("PRAGMA user_version").fetchone()[0]

    def define(self, name: str, function: Callable[[Any], Any]) -> None:
        """Let queries call a function of one value."""
        self._db.create_function(name, 1, function, deterministic=True)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view for several queries."""
        with self.lock, self.explained():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction; when the block ends without an error it is on the disk, otherwise nothing of it is."""
        if self.read_only:
            raise DataError(f"{self.path}: opened for reading only")
        with self._writer, self.lock, self.explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def next_generation(self, db: sqlite3.Connection) -> int:
        """Count one more change; call inside `write`."""
        db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
        return self.generation(db)

    def generation(self, db: sqlite3.Connection) -> int:
        """How many changes the gallery has seen; an index built at another number is stale."""
        return int(db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])

    def meta(self, key: str) -> str | None:
        """One setting of the gallery."""
        with self.read() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def scrub(self) -> bool:
        """Rewrite the file without freed pages and empty the log; False while another process reads the old state.

        Searches go on meanwhile, writes wait.
        """
        with self._writer, self.explained():
            db = self._connect()
            try:
                db.execute("VACUUM")
                busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.close()
            return not busy

    def files(self) -> list[Path]:
        """Every file that may hold a gallery's bytes."""
        names = [self.path.name + suffix for suffix in ("", "-wal", "-shm", "-journal")]
        return [path for name in names if (path := self.path.with_name(name)).exists()]

    def verify(self) -> None:
        """Read every page and index.

        Raises:
            DataError: the file is damaged.
        """
        with self.lock, self.explained():
            problem = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise DataError(f"{self.path}: the gallery is damaged ({problem}); restore it from an export or a backup")

    def backup(self, path: Path) -> None:
        """Copy the gallery while it is in use."""
        with self.lock, self.explained(), sqlite3.connect(path) as target:
            self._db.backup(target)
        target.close()

    def close(self) -> None:
        """Empty the log into the file and let go of it."""
        with self.lock:
            self._db.close()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in the user's words what SQLite found wrong."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise DataError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self.path}: {_explain(error)}") from error


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
