"""The gallery's interface over PostgreSQL with pgvector, for galleries that several machines share."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.base import LIVE, GalleryBase, Progress, Samples
from visavis.deploy.gallery.index import fuse, unit_vectors
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.names import clean_name, name_key
from visavis.deploy.gallery.postgres_erasure import delete, finish
from visavis.deploy.gallery.postgres_pool import Connection, PostgresPool, is_postgres, without_password
from visavis.deploy.gallery.records import Candidate, Enrolment, Forgotten, SourceFile, Subject
from visavis.deploy.gallery.retention import checked_days
from visavis.errors import DataError

_CREATION, _CHANGE = 0x76697361, 0x76697362  # advisory locks: making a gallery in a database, changing one


@final
class PgGallery(GalleryBase):
    """`Gallery` in a schema of a PostgreSQL database with the extension vector (pgvector ≥ 0.5).

    Names, arguments and answers are those of `Gallery`. It differs in what the server does itself: searching (exact, or
    by HNSW when `approximate`), durability, and erasing, where the receipt can speak of rows but not of the server's
    files. There is no encryption by the client: the server could not search.

    Args:
        dsn: as for psycopg, e.g. postgresql://user@host/database.
        model: as for `Gallery`.
        schema: whose tables; several galleries of one database have several.
        create: make the schema when it is absent.
        approximate: keep an HNSW index; faster, and may miss a subject.
        retention_days: default for new subjects; stored when the gallery is made.

    Raises:
        DataError: psycopg is not installed, no such gallery, or another model's.
        StorageError: the server cannot be reached or refuses.
    """

    encrypted = False
    wait = 30.0  # seconds for other transactions to let go of what was erased
    _contains = "strpos(lower(name), lower(?)) > 0"
    _order = 'name COLLATE "C"'

    def __init__(
        self,
        dsn: str,
        model: ModelIdentity | None = None,
        *,
        schema: str = "visavis",
        create: bool = False,
        approximate: bool = False,
        retention_days: float | None = None,
    ) -> None:
        days = "" if retention_days is None else repr(checked_days(retention_days))
        self.path = without_password(dsn) if is_postgres(dsn) else f"postgresql, schema {schema}"
        self._pool = PostgresPool(dsn, schema, name=str(self.path))
        try:
            with self._pool.transaction(read_only=True) as db:
                there = _exists(db, schema)
            if not there and (not create or model is None):
                raise DataError(f"{self.path}: no such gallery; make it with create=True and its model")
            if not there and model is not None:
                with self._pool.transaction() as db:
                    self._create(db, schema, model, approximate, days)
            self.model = self._bound(model)
        except BaseException:
            self._pool.close()
            raise

    @staticmethod
    def _create(db: Connection, schema: str, model: ModelIdentity, approximate: bool, days: str) -> None:
        """Make schema and tables; of several creators one does, the others find them made."""
        db.execute("SELECT pg_advisory_xact_lock(?)", (_CREATION,))
        if _exists(db, schema):
            return
        dim = int(model.dim)
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        db.make_schema(schema)
        db.execute("CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL)")
        db.execute(
            "CREATE TABLE subjects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "key text NOT NULL UNIQUE, name text NOT NULL, "
            "consent text NOT NULL, created double precision NOT NULL, expires double precision, "
            f"template vector({dim}) NOT NULL)"
        )
        db.execute(
            "CREATE TABLE samples (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject bigint NOT NULL "
            f"REFERENCES subjects(id) ON DELETE CASCADE, vector vector({dim}) NOT NULL, "
            "template smallint NOT NULL DEFAULT 0, weight double precision NOT NULL, quality double precision, "
            "picture bytea, source bytea, source_name text, crop bytea, created double precision NOT NULL)"
        )
        db.execute("CREATE INDEX ON samples (subject)")
        if approximate:
            db.execute("CREATE INDEX ON subjects USING hnsw (template vector_ip_ops)")
        values = {"model_name": model.name, "model_digest": model.digest, "dim": str(dim), "retention_days": days}
        for item in values.items():
            db.execute("INSERT INTO meta VALUES (?, ?)", item)

    def _bound(self, model: ModelIdentity | None) -> ModelIdentity:
        with self._reading() as db:
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        bound = ModelIdentity(meta["model_name"], int(meta["dim"]), meta["model_digest"])
        if model is not None and model.digest != bound.digest:
            raise DataError(f"{self.path}: this gallery belongs to the model {bound.name!r}, got {model.name!r}")
        self._retention_days = float(meta["retention_days"]) if meta["retention_days"] else None
        return bound

    @property
    def retention_days(self) -> float | None:
        """How long new subjects are kept unless said otherwise."""
        return self._retention_days

    def _reading(self) -> AbstractContextManager[Any]:
        return self._pool.transaction(read_only=True)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One change at a time: none deadlocks, and none is computed from what another is about to change."""
        with self._pool.transaction() as db:
            db.execute("SELECT pg_advisory_xact_lock(?, hashtext(current_schema()))", (_CHANGE,))
            yield db

    def _changed(self, db: Any, subject: int, gone: Collection[int] = ()) -> None:
        if gone:
            self._fuse(db, subject)

    def refresh(self) -> int:
        """How many subjects can be found; the server's index needs no refreshing."""
        return len(self)

    def enroll(
        self,
        name: str,
        embeddings: npt.ArrayLike,
        *,
        weights: npt.ArrayLike | None = None,
        pictures: Sequence[bytes | None] | None = None,
        crops: Sequence[bytes | None] | None = None,
        sources: Sequence[SourceFile | None] | None = None,
        consent: str = "",
        retention_days: float | None = None,
    ) -> Enrolment:
        """Add samples to a subject; see `Gallery.enroll`."""
        samples = Samples.checked(self.model.dim, embeddings, weights, pictures, crops, sources)
        tidy, now = clean_name(name), time.time()
        expires = self._expires(now, retention_days)
        self.sweep()
        with self._writing() as db:
            known = db.execute(
                "SELECT picture FROM samples JOIN subjects ON subjects.id = subject WHERE key = ?", (name_key(tidy),)
            ).fetchall()
            new = samples.new({bytes(row[0]) for row in known if row[0] is not None})
            if not new:
                return Enrolment(self._find(db, tidy, expired=True), added=0, already=len(samples.marks))
            subject = db.execute(
                "INSERT INTO subjects (key, name, consent, created, expires, template) "
                "VALUES (?, ?, ?, ?, ?, ?::vector) "
                "ON CONFLICT (key) DO UPDATE SET "
                "expires = CASE WHEN ?::boolean THEN excluded.expires ELSE subjects.expires END, "
                "consent = CASE WHEN excluded.consent = '' THEN subjects.consent ELSE excluded.consent END "
                "RETURNING id",
                (name_key(tidy), tidy, consent, now, expires, _text(samples.vectors[0]), retention_days is not None),
            ).fetchone()[0]
            for i in new:
                source, weight = samples.sources[i], float(samples.weights[i])
                db.execute(
                    "INSERT INTO samples (subject, vector, weight, quality, picture, source, source_name, crop, "
                    "created) VALUES (?, ?::vector, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        subject,
                        _text(samples.vectors[i]),
                        weight,
                        weight if samples.rated else None,
                        samples.marks[i],
                        None if source is None else source.digest,
                        None if source is None else source.name,
                        samples.crops[i],
                        now,
                    ),
                )
            self._fuse(db, subject)
            row = db.execute(f"{self._columns} WHERE id = ?", (subject,)).fetchone()
        return Enrolment(Subject(*row), added=len(new), already=len(samples.marks) - len(new))

    def enroll_many(self, names: Sequence[str], embeddings: npt.NDArray[np.float32], *, consent: str = "") -> int:
        """One sample for each of many subjects, one transaction each."""
        if len(names) != len(embeddings):
            raise DataError(f"enrolling wants one name per embedding, got {len(names)} and {len(embeddings)}")
        for name, vector in zip(names, embeddings, strict=True):
            self.enroll(name, vector, consent=consent)
        return len(names)

    @staticmethod
    def _fuse(db: Any, subject: int) -> None:
        rows = db.execute(
            "SELECT weight, vector::text FROM samples WHERE subject = ? ORDER BY id", (subject,)
        ).fetchall()
        vectors = np.array([np.fromstring(row[1][1:-1], np.float32, sep=",") for row in rows], np.float32)
        template = fuse(vectors, np.array([row[0] for row in rows]))
        db.execute("UPDATE subjects SET template = ?::vector WHERE id = ?", (_text(template), subject))

    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The most similar subjects to each probe; see `Gallery.search`."""
        answers = []
        with self._reading() as db:
            for probe in unit_vectors(embeddings, self.model.dim):
                rows = db.execute(
                    f"SELECT id, name, -(template <#> ?::vector) FROM subjects WHERE {LIVE} "
                    "ORDER BY template <#> ?::vector LIMIT ?",
                    (_text(probe), time.time(), _text(probe), top),
                ).fetchall()
                answers.append(tuple(Candidate(row[0], row[1], float(row[2])) for row in rows))
        return answers

    def _erase(self, ids: Iterable[int], progress: Progress | None = None) -> Forgotten:
        with self._writing() as db:
            traces = delete(db, sorted(set(ids)))
        return finish(self._pool, traces, wait=self.wait, progress=progress)

    def close(self) -> None:
        """Let go of the server."""
        self._pool.close()


def _exists(db: Connection, schema: str) -> bool:
    """Whether a schema holds a gallery."""
    query = "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'meta'"
    return db.execute(query, (schema,)).fetchone() is not None


def _text(vector: npt.NDArray[np.float32]) -> str:
    """pgvector's form, digits enough to give back the same float32."""
    return str(vector.tolist())
