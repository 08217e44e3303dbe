"""The gallery's tables in PostgreSQL: those of the file, and the templates, which the server searches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, final

import numpy as np

from visavis.deploy.gallery.index import TemplateIndex
from visavis.deploy.gallery.integrity import row_problems
from visavis.deploy.gallery.postgres_dump import dump
from visavis.deploy.gallery.postgres_pool import FORMAT, Connection, PostgresPool
from visavis.deploy.gallery.postgres_schema import exists, lock_creation, make_tables, tables
from visavis.deploy.gallery.postgres_vacuum import rewrite
from visavis.deploy.gallery.records import GalleryReplaced, StorageError
from visavis.deploy.gallery.rows import Rows
from visavis.errors import DataError

_SUM = 1e-6
_CHANGE = 0x76697362  # the advisory lock under which a gallery is changed
Create = Callable[[Any], None]


@final
class PostgresRows(Rows):
    """Rows whose numbers come from the server's sequences."""

    def label(self, key: str) -> str:
        """As `Rows.label`; text here holds no NUL, so that twins are told apart by another character no name holds."""
        return super().label(key.replace("\0", "\x1f"))

    def next_id(self, db: Any, table: str) -> int:
        """The number of the next row; those of erased rows are not given again. Call inside a write."""
        return db.execute("SELECT nextval(pg_get_serial_sequence(?, 'id'))", (table,)).fetchone()[0]

    def insert(self, db: Any, table: str, rows: Any) -> None:
        """As `Rows.insert`; rows with numbers of their own move the sequence behind the last."""
        rows = list(rows)
        super().insert(db, table, rows)
        if rows and isinstance(rows[0][0], int):
            db.execute("SELECT setval(pg_get_serial_sequence(?, 'id'), ?)", (table, max(row[0] for row in rows)))


@final
class PostgresStore:
    """A gallery's schema, with the interface of `Store`.

    Args:
        pool: its connections.
        schema: its name.
        create: writes the settings of a new gallery; None when one must be there.
        dim: length of the embeddings, for a new one.
        approximate: keep an HNSW index in a new one.
        read_only: refuse to write.

    Raises:
        DataError: no such gallery, not one, or of another format.
    """

    def __init__(
        self,
        pool: PostgresPool,
        schema: str,
        *,
        create: Create | None = None,
        dim: int = 0,
        approximate: bool = False,
        read_only: bool = False,
    ) -> None:
        self.read_only = read_only
        self.path = pool.name
        self.pool = pool
        self.schema = schema
        self.wait = 30.0  # seconds for other transactions to let go of what was erased
        self.rows: Rows | None = None
        self._id: str | None = None
        if not exists(pool, schema):
            if create is None:
                raise DataError(
                    f"{self.path}: no such gallery; make it with: visavis enroll {self.path} --model MODEL --name NAME "
                    "PICTURE"
                )
            with pool.transaction() as db:
                self._create(db, schema, create, dim, approximate)
        self._check(schema)

    def _create(self, db: Connection, schema: str, create: Create, dim: int, approximate: bool) -> None:
        """Make schema and tables; of several creators one does, the others find them made."""
        lock_creation(db)
        if tables(db, schema) & {"settings", "meta"}:
            return
        if not db.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            db.execute("CREATE EXTENSION vector SCHEMA public")
        db.make_schema(schema)
        make_tables(db, dim, approximate)
        create(db)

    def _check(self, schema: str) -> None:
        with self.pool.transaction(read_only=True) as db:
            if "settings" not in tables(db, schema):
                raise DataError(
                    f"{self.path}: a gallery of format 1, this program reads {FORMAT}; back it up and bring it there "
                    f"with: visavis gallery {self.path} migrate BACKUP-FILE"
                )
            settings = dict(db.execute("SELECT key, value FROM settings").fetchall())
        if settings.get("format") != str(FORMAT):
            raise DataError(
                f"{self.path}: gallery format {settings.get('format')}, this program reads {FORMAT}; update visavis"
            )
        self._id = settings.get("uuid")

    def use(self, rows: Rows) -> None:
        """Say how rows are summed, before any is read or written."""
        self.rows = rows

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view for several queries.

        Raises:
            StorageError: another gallery stands where this one stood.
        """
        with self.pool.transaction(read_only=True) as db:
            self._same(db.execute("SELECT value FROM settings WHERE key = 'uuid'").fetchone())
            yield db

    def _same(self, row: Any) -> None:
        if self._id is not None and (row is None or row[-1] != self._id):
            raise GalleryReplaced(self.path)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One change at a time: none deadlocks, and none is computed from what another is about to change.

        Raises:
            StorageError: another gallery stands where this one stood.
            DataError: opened for reading only.
        """
        if self.read_only:
            raise DataError(f"{self.path}: opened for reading only")
        with self.pool.transaction() as db:
            row = db.execute(
                "SELECT pg_advisory_xact_lock(?, hashtext(current_schema())), "
                "(SELECT value FROM settings WHERE key = 'uuid')",
                (_CHANGE,),
            ).fetchone()
            self._same(row)
            yield db

    def settings(self) -> dict[str, str]:
        """What the gallery says of itself."""
        with self.read() as db:
            return dict(db.execute("SELECT key, value FROM settings").fetchall())

    def generation(self, db: Any) -> int:
        """How many changes the gallery has seen."""
        return int(db.execute("SELECT value FROM settings WHERE key = 'generation'").fetchone()[0])

    def next_generation(self, db: Any) -> int:
        """Count one more change; call inside `write`."""
        assert self.rows is not None
        generation = self.generation(db) + 1
        self.rows.put_setting(db, "generation", str(generation))
        return generation

    def scrub(self) -> bool:
        """Rewrite the tables without deleted rows; False while a transaction still sees some."""
        with self.pool.transaction() as db:
            transaction = db.execute("SELECT pg_current_xact_id()::xid::text").fetchone()[0]
        return rewrite(self.pool, transaction, wait=self.wait)

    def verify(self) -> None:
        """Read every row, its checksum, and whether the templates searched are those of the samples.

        Raises:
            DataError: something is not as it was written.
        """
        assert self.rows is not None
        with self.read() as db:
            dim = int(db.execute("SELECT value FROM settings WHERE key = 'dim'").fetchone()[0])
            index = TemplateIndex(dim, "float32", self.rows)
            found = list(islice(chain(row_problems(db, self.rows, dim), template_problems(db, index)), 5))
        if found:
            raise DataError(f"{self.path}: the gallery is damaged ({'; '.join(found)}); restore it from a backup")

    def backup(self, path: Path) -> None:
        """Copy the schema into a file by pg_dump, also while others read and write; it is whole or not there."""
        dump(self.pool, self.schema, path)

    def close(self) -> None:
        """Let go of the server."""
        self.pool.close()


def template_problems(db: Connection, index: TemplateIndex) -> Iterator[str]:
    """Templates that are not those of their subject's samples."""
    stored: dict[int, list[str]] = {}
    for subject, text in db.execute("SELECT subject, vector::text FROM templates ORDER BY subject, number"):
        stored.setdefault(subject, []).append(text)
    for (subject,) in db.execute("SELECT id FROM subjects ORDER BY id").fetchall():
        try:
            meant = index.exact(db, [subject]).get(subject, np.empty((0, 0), np.float32))
        except StorageError:
            continue  # a damaged sample, named before
        there = [np.array(text[1:-1].split(","), np.float32) for text in stored.pop(subject, [])]
        # Sums of several samples may differ in their last bits from one processor to the next.
        if len(there) != len(meant) or (there and not np.allclose(meant, np.stack(there), rtol=0, atol=_SUM)):
            yield f"the template of subject {subject} is not that of its samples"
