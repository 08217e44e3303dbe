"""The gallery's file: SQLite in WAL mode, every acknowledged write on the disk, every freed page zeroed."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from visavis.deploy.gallery.file_identity import FileIdentity
from visavis.deploy.gallery.integrity import problems
from visavis.deploy.gallery.records import GalleryReplaced, StorageError
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from visavis.deploy.gallery.sqlite_connection import (
    IN_USE,
    LastThings,
    connect,
    explained,
    folder_errors,
    is_empty,
)
from visavis.errors import DataError
from visavis.files import is_reserved, open_private, sync_folder

Create = Callable[[sqlite3.Connection], None]
EARLIER = (1, 2)
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
        with explained(self.path):
            self._db = connect(self.real, read_only=read_only, wait=wait, private=absent)
            try:
                self.identity.opened(read_only=read_only)
                self._check(create)
            except BaseException:
                self._db.close()
                raise
        self._had_log = logged or absent
        self._last = LastThings(self._db, self.identity)
        self._let_go = weakref.finalize(self, self._last.do)

    def _beside(self, end: str) -> Path:
        return self.real.with_name(self.real.name + end)

    def _absent(self) -> str:
        return (
            f"{self.path}: no such gallery; make it with: visavis enroll {self.path} --model MODEL --name NAME PICTURE"
        )

    def _connect(self) -> sqlite3.Connection:
        """Another connection, for long work beside the one all share."""
        db = connect(self.real, read_only=self.read_only, wait=self.wait)
        if self.rows is not None:
            self.rows.define(db)
        return db

    def _check(self, create: Create | None) -> None:
        """Refuse what is no gallery of a format this program knows; an empty file becomes one when it shall."""
        if create is not None and is_empty(self._db):
            with self.write() as db:
                if is_empty(self._db):  # or another process made it while this one waited
                    for statement in SCHEMA:
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    create(db)
        elif is_empty(self._db) and not self.read_only:
            with self.write():
                pass  # waits for one who is just making it
        if is_empty(self._db):
            raise DataError(self._absent())
        if self.version not in (*EARLIER, SCHEMA_VERSION):
            raise DataError(
                f"{self.path}: gallery format {self.version}, this program reads {SCHEMA_VERSION}; update visavis"
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
        if settings.get(IN_USE) and not self._had_log:
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
        return bool(settings.get(IN_USE))

    @property
    def version(self) -> int:
        """The format of the file."""
        with self.lock:
            return self._db.execute("PRAGMA user_version").fetchone()[0]

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view for several queries."""
        with self.lock, explained(self.path):
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
        with self._writer, self.lock, explained(self.path):
            self.identity.check()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                marked = self._same(self._db)
                if not marked:
                    self._rows().put_setting(self._db, IN_USE, "1")
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
        with self._writer, explained(self.path):
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
        with explained(self.path), folder_errors(path):
            part.unlink(missing_ok=True)
            os.close(open_private(part))
            source, target = self._connect(), sqlite3.connect(part, isolation_level=None)
            try:
                self.identity.check()
                source.backup(target)
                if self._gallery:  # else the copy is of an earlier format
                    self._rows().put_setting(target, IN_USE, "")
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
