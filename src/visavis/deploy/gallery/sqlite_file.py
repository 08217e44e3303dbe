"""The gallery's file: SQLite in WAL mode, every acknowledged write on the disk, every freed page zeroed."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visavis.deploy.gallery.file_identity import FileIdentity
from visavis.deploy.gallery.integrity import problems
from visavis.deploy.gallery.records import GalleryReplaced, StorageError
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.schema import APPLICATION_ID, PAGE_SIZE, SCHEMA, SCHEMA_VERSION
from visavis.errors import DataError
from visavis.files import is_reserved, open_private, release, reserve, sync_folder

Create = Callable[[sqlite3.Connection], None]
EARLIER = (1, 2)
_IN_USE = "in_use"  # a setting: the log beside the file may hold something
_MOST_PROBLEMS = 20
log = logging.getLogger(__name__)


class Store:
    """One connection, shared by the threads of a process under a lock; other processes open their own.

    Raises:
        DataError: no such file, not a gallery, damaged, from a newer version, or not writable (`read_only=False`).
    """

    def __init__(
        self, path: Path, *, create: Create | None = None, read_only: bool = False, wait: float = 30.0
    ) -> None:
        self.path = path
        self.real = path.resolve()  # where a link points: the log lies there
        self.lock = threading.RLock()
        self._writer = (
            threading.RLock()
        )  # taken before `lock`; rewriting the file holds it alone, so that readers go on
        self.wait = wait
        self.read_only = read_only
        self.rows: Rows | None = None
        self.lacks_log = False
        self._gallery = ""  # its own id, once known
        self._generation = self._next = 0  # the last seen; the one being written
        self.identity = FileIdentity(self.real, path)
        self.identity.refuse_foreign_log()
        absent = not self.real.is_file()
        if create is None and absent:
            raise DataError(self._absent())
        logged = self._beside("-wal").exists()
        with self.explained():
            self._db = self._connect(private=absent)
            try:
                self.identity.opened(read_only=read_only)
                self._check(create)
            except BaseException:
                self._db.close()
                raise
        self._had_log = logged or absent
        self._last = _LastThings(self._db, self.identity)
        self._let_go = weakref.finalize(self, self._last.do)

    def _beside(self, end: str) -> Path:
        return self.real.with_name(self.real.name + end)

    def _absent(self) -> str:
        return (
            f"{self.path}: no such gallery; make it with: visavis enroll {self.path} --model MODEL --name NAME PICTURE"
        )

    def _connect(self, *, private: bool = False) -> sqlite3.Connection:
        """A connection with our settings; a `private` file was absent and shall be readable by its owner only."""
        if self.read_only:
            # A folder that cannot be written has no room for WAL's index; with no -wal file nothing is lost without it.
            frozen = "" if self._beside("-wal").exists() or os.access(self.real.parent, os.W_OK) else "&immutable=1"
            name = f"{self.real.as_uri()}?mode=ro{frozen}"
        else:
            name = f"{self.real.as_uri()}?mode=rwc"
        db = sqlite3.connect(name, uri=True, timeout=self.wait, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA foreign_keys = ON")
        if private:
            db.execute("PRAGMA user_version").fetchone()  # makes the file; the log will have its mode
            with contextlib.suppress(OSError):
                self.real.chmod(0o600)
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        if self.rows is not None:
            self.rows.define(db)
        if not self.read_only:
            db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            self._use_log(db)
            db.execute("PRAGMA synchronous = FULL")
        return db

    def _use_log(self, db: sqlite3.Connection) -> None:
        """Switch to the write-ahead log; SQLite does not wait by itself when two processes do so at once."""
        give_up = time.monotonic() + self.wait
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def _check(self, create: Create | None) -> None:
        """Refuse what is no gallery of a format this program knows; an empty file becomes one when it shall."""
        if create is not None and self._empty():
            with self.write() as db:
                if self._empty():  # or another process made it while this one waited
                    for statement in SCHEMA:
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    create(db)
        elif self._empty() and not self.read_only:
            with self.write():
                pass  # waits for one who is just making it
        if self._empty():
            raise DataError(self._absent())
        if self._db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise DataError(f"{self.path}: an SQLite file, but not a visavis gallery")
        if self.version not in (*EARLIER, SCHEMA_VERSION):
            raise DataError(
                f"{self.path}: gallery format {self.version}, this program reads {SCHEMA_VERSION}; update visavis"
            )

    def _empty(self) -> bool:
        """Whether nothing was ever committed: a new file, or one whose maker was killed."""
        return (
            self._db.execute("PRAGMA application_id").fetchone()[0] == 0
            and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        )

    def use(self, rows: Rows) -> None:
        """Say how rows are encrypted and summed, before any is read or written."""
        self.rows = rows
        with self.lock:
            rows.define(self._db)

    def know(self) -> None:
        """Remember which gallery this is, after it was brought to the present format.

        Raises:
            StorageError: what it says of itself is damaged.
        """
        rows = self._rows()
        with self.read() as db:
            bad = list(rows.damaged(db, "settings"))
            settings = dict(db.execute("SELECT key, value FROM settings"))
        if bad or "uuid" not in settings:
            raise StorageError(
                f"{self.path}: the gallery is damaged: its settings ({', '.join(bad)}) are not as they were written; "
                "restore it from a backup"
            )
        self._gallery = settings["uuid"]
        if settings.get(_IN_USE) and not self._had_log:
            self.lacks_log = True
            log.warning(
                "%s: copied while it was in use, without %s: what was written last may be missing; copy by: visavis "
                "gallery GALLERY backup FILE",
                self.path, self._beside("-wal").name,
            )  # fmt: skip
        else:
            self.said_of_missing_log()

    def said_of_missing_log(self) -> None:
        """From now on the file is taken for whole: it was when it was opened, or its user knows that it is not."""
        if not self.read_only:
            self._last.rows = self.rows

    def _rows(self) -> Rows:
        assert self.rows is not None, "Store.use comes first"
        return self.rows

    def _same(self, db: sqlite3.Connection) -> bool:
        """Make sure that this is the gallery that was opened; whether the file says that it is in use."""
        if not self._gallery:
            return True
        settings = dict(db.execute("SELECT key, value FROM settings WHERE key IN ('uuid', 'generation', 'in_use')"))
        generation = int(settings.get("generation", -1))
        if settings.get("uuid") != self._gallery or generation < self._generation:
            raise GalleryReplaced(self.path)
        self._generation = generation
        return bool(settings.get(_IN_USE))

    @property
    def version(self) -> int:
        """The format of the file."""
        with self.lock:
            return self._db.execute("PRAGMA user_version").fetchone()[0]

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view for several queries."""
        with self.lock, self.explained():
            self.identity.check()
            self._db.execute("BEGIN")
            try:
                self._same(self._db)
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
            self.identity.check()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                marked = self._same(self._db)
                if not marked:
                    self._rows().put_setting(self._db, _IN_USE, "1")
                self._next = 0
                yield self._db
                self._db.execute("COMMIT")
                self._generation = max(self._generation, self._next)
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if not marked:  # into the file itself, so that a copy of it alone tells that it lacks the log
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self.identity.check()

    def next_generation(self, db: sqlite3.Connection) -> int:
        """Count one more change; call inside `write`."""
        generation = self.generation(db) + 1
        self._rows().put_setting(db, "generation", str(generation))
        self._next = generation
        return generation

    def set(self, db: sqlite3.Connection, key: str, value: str) -> None:
        """Write one setting; call inside `write`."""
        self._rows().put_setting(db, key, value)

    def generation(self, db: sqlite3.Connection) -> int:
        """How many changes the gallery has seen; an index built at another number is stale."""
        return int(db.execute("SELECT value FROM settings WHERE key = 'generation'").fetchone()[0])

    def settings(self) -> dict[str, str]:
        """What the gallery says of itself."""
        with self.read() as db:
            table = "settings" if self.version == SCHEMA_VERSION else "meta"
            return dict(db.execute(f"SELECT key, value FROM {table}").fetchall())

    def scrub(self) -> bool:
        """Rewrite the file without freed pages and empty the log; False while another process reads the old state.

        Searches go on meanwhile, writes wait.
        """
        with self._writer, self.explained():
            db = self._connect()
            try:
                self.identity.check()
                db.execute("VACUUM")
                busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.close()
            return not busy

    def files(self) -> list[Path]:
        """Every file that may hold a gallery's bytes."""
        derived = [path for path in self.real.parent.glob(self.real.name + "-vectors*") if path.suffix != ".lock"]
        return [path for end in ("", "-wal", "-shm", "-journal") if (path := self._beside(end)).exists()] + derived

    def backup_path(self, version: int) -> Path:
        """Where a migration keeps the state of an earlier format."""
        return self._beside(f".format-{version}.backup")

    def backups(self) -> list[Path]:
        """The states kept by migrations, which hold people whom the gallery may have forgotten since."""
        return [path for version in EARLIER if (path := self.backup_path(version)).exists()]

    def verify(self, dim: int | None = None) -> None:
        """Read everything: pages, indexes, the checksum of every row, the length of every vector (`dim` numbers).

        Raises:
            StorageError: something is not as it was written, and which subject's it is.
        """
        dim = int(self.settings()["dim"]) if dim is None else dim
        with self.read() as db:
            found = list(itertools.islice(problems(db, self._rows(), dim), _MOST_PROBLEMS + 1))
        if found:
            more = ["and more"] if len(found) > _MOST_PROBLEMS else []
            raise StorageError(
                f"{self.path}: the gallery is damaged: {'; '.join(found[:_MOST_PROBLEMS] + more)}. Restore it from a "
                "backup or an export, or erase the subjects named: visavis forget GALLERY --id N"
            )

    def backup(self, path: Path) -> None:
        """Copy the gallery into one file, also while others read and write; the copy is whole or not there."""
        if is_reserved(path):
            raise DataError(f"{path}: the gallery itself; name another file to copy it to")
        part = path.with_name(path.name + ".part")
        with self.explained(), _folder_errors(path):
            part.unlink(missing_ok=True)
            os.close(open_private(part))
            source, target = self._connect(), sqlite3.connect(part, isolation_level=None)
            try:
                self.identity.check()
                source.backup(target)
                if self._gallery:  # else the copy is of an earlier format
                    self._rows().put_setting(target, _IN_USE, "")
                target.execute("PRAGMA journal_mode = DELETE")  # the copy needs no log beside it
            finally:
                target.close()
                source.close()
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(path.parent)

    def close(self) -> None:
        """Empty the log into the file and let go of it."""
        with self.lock:
            self._let_go()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in the user's words what SQLite found wrong."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise DataError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self.path}: {_explain(error)}") from error


@contextmanager
def _folder_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error


class _LastThings:
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
        row = self._db.execute("SELECT value FROM settings WHERE key = ?", (_IN_USE,)).fetchone()
        if row is not None and row[0]:
            self._db.execute("BEGIN IMMEDIATE")
            rows.put_setting(self._db, _IN_USE, "")
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
