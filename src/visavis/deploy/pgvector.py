"""The gallery's interface over PostgreSQL with pgvector, for galleries that several machines share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy.binding import ModelIdentity
from visavis.deploy.gallery import DAY
from visavis.deploy.index import fuse, unit_vectors
from visavis.deploy.records import (
    Candidate,
    Enrolment,
    Forgotten,
    Identification,
    StorageError,
    Subject,
    UnknownSubject,
    clean_name,
    decide,
)
from visavis.errors import DataError

_LIVE = "(expires IS NULL OR expires > %s)"
_SUBJECT = (
    "SELECT id, name, (SELECT count(*) FROM samples WHERE subject = subjects.id), consent, created, expires "
    "FROM subjects"
)
_NOTE = "the rows are gone and the tables rewritten; the server's log and its backups are its administrator's to erase"


@final
class PgGallery:
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
        try:
            import psycopg  # pyright: ignore[reportMissingImports]
            from psycopg import sql  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise DataError("a gallery in PostgreSQL wants psycopg; type: pip install 'psycopg[binary]'") from error
        self._errors = psycopg.Error
        self.path = f"postgresql, schema {schema}"
        try:
            self._db: Any = psycopg.connect(dsn, autocommit=True)
        except psycopg.Error as error:
            raise StorageError(f"PostgreSQL cannot be reached: {str(error).strip().splitlines()[0]}") from error
        try:
            with self._transaction() as db:
                name = sql.Identifier(schema)
                there = db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
                if not there and (not create or model is None):
                    raise DataError(f"{self.path}: no such gallery; make it with create=True and its model")
                if not there:
                    db.execute("CREATE EXTENSION IF NOT EXISTS vector")
                    db.execute(sql.SQL("CREATE SCHEMA {}").format(name))
                db.execute(sql.SQL("SET search_path TO {}, public").format(name))
                if not there and model is not None:
                    self._create(db, model, approximate, retention_days)
            self._db.execute(sql.SQL("SET search_path TO {}, public").format(name))
            self.model = self._bound(model)
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def _create(db: Any, model: ModelIdentity, approximate: bool, retention_days: float | None) -> None:
        dim = int(model.dim)
        db.execute("CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL)")
        db.execute(
            "CREATE TABLE subjects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, "
            "consent text NOT NULL, created double precision NOT NULL, expires double precision, "
            f"template vector({dim}) NOT NULL)"
        )
        db.execute(
            "CREATE TABLE samples (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject bigint NOT NULL "
            f"REFERENCES subjects(id) ON DELETE CASCADE, vector vector({dim}) NOT NULL, "
            "weight double precision NOT NULL, picture bytea, crop bytea, created double precision NOT NULL)"
        )
        db.execute("CREATE INDEX ON samples (subject)")
        if approximate:
            db.execute("CREATE INDEX ON subjects USING hnsw (template vector_ip_ops)")
        days = "" if retention_days is None else repr(float(retention_days))
        values = {"model_name": model.name, "model_digest": model.digest, "dim": str(dim), "retention_days": days}
        for item in values.items():
            db.execute("INSERT INTO meta VALUES (%s, %s)", item)

    def _bound(self, model: ModelIdentity | None) -> ModelIdentity:
        with self._transaction() as db:
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        bound = ModelIdentity(meta["model_name"], int(meta["dim"]), meta["model_digest"])
        if model is not None and model.digest != bound.digest:
            raise DataError(f"{self.path}: this gallery belongs to the model {bound.name!r}, got {model.name!r}")
        self.retention_days = float(meta["retention_days"]) if meta["retention_days"] else None
        return bound

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            with self._db.transaction():
                yield self._db
        except self._errors as error:
            raise StorageError(f"{self.path}: {str(error).strip().splitlines()[0]}") from error

    def __len__(self) -> int:
        with self._transaction() as db:
            return db.execute(f"SELECT count(*) FROM subjects WHERE {_LIVE}", (time.time(),)).fetchone()[0]

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
        consent: str = "",
        retention_days: float | None = None,
    ) -> Enrolment:
        """Add samples to a subject; see `Gallery.enroll`."""
        vectors = unit_vectors(embeddings, self.model.dim)
        n = len(vectors)
        quality = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        marks, kept = pictures or [None] * n, crops or [None] * n
        if n == 0 or quality.shape != (n,) or len(marks) != n or len(kept) != n or not (quality > 0).all():
            raise DataError(
                f"enrolling wants one positive weight, picture and crop for each of 1 or more samples, got {n}"
            )
        tidy, now = clean_name(name), time.time()
        days = self.retention_days if retention_days is None else retention_days
        self.sweep()
        with self._transaction() as db:
            subject = db.execute(
                "INSERT INTO subjects (name, consent, created, expires, template) VALUES (%s, %s, %s, %s, %s::vector) "
                "ON CONFLICT (name) DO UPDATE SET expires = excluded.expires, "
                "consent = CASE WHEN excluded.consent = '' THEN subjects.consent ELSE excluded.consent END "
                "RETURNING id",
                (tidy, consent, now, None if days is None else now + days * DAY, _text(vectors[0])),
            ).fetchone()[0]
            known = db.execute("SELECT picture FROM samples WHERE subject = %s", (subject,)).fetchall()
            there = {bytes(row[0]) for row in known if row[0] is not None}
            new = [i for i in range(n) if marks[i] is None or (marks[i] not in there and marks[i] not in marks[:i])]
            for i in new:
                db.execute(
                    "INSERT INTO samples (subject, vector, weight, picture, crop, created) "
                    "VALUES (%s, %s::vector, %s, %s, %s, %s)",
                    (subject, _text(vectors[i]), float(quality[i]), marks[i], kept[i], now),
                )
            self._fuse(db, subject)
            row = db.execute(f"{_SUBJECT} WHERE id = %s", (subject,)).fetchone()
        return Enrolment(Subject(*row), added=len(new), already=n - len(new))

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
            "SELECT weight, vector::text FROM samples WHERE subject = %s ORDER BY id", (subject,)
        ).fetchall()
        vectors = np.array([np.fromstring(row[1][1:-1], np.float32, sep=",") for row in rows], np.float32)
        template = fuse(vectors, np.array([row[0] for row in rows]))
        db.execute("UPDATE subjects SET template = %s::vector WHERE id = %s", (_text(template), subject))

    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The most similar subjects to each probe; see `Gallery.search`."""
        answers = []
        with self._transaction() as db:
            for probe in unit_vectors(embeddings, self.model.dim):
                rows = db.execute(
                    f"SELECT id, name, -(template <#> %s::vector) FROM subjects WHERE {_LIVE} "
                    "ORDER BY template <#> %s::vector LIMIT %s",
                    (_text(probe), time.time(), _text(probe), top),
                ).fetchall()
                answers.append(tuple(Candidate(row[0], row[1], float(row[2])) for row in rows))
        return answers

    def identify(
        self, embeddings: npt.ArrayLike, *, threshold: float | None, fmr: float | None = None, top: int = 5
    ) -> list[Identification]:
        """Who each probe is, or unknown; see `Gallery.identify`."""
        return decide(self.search(embeddings, top=top), len(self), threshold, fmr)

    def subjects(self, query: str = "", *, offset: int = 0, limit: int | None = None) -> list[Subject]:
        """Subjects whose name contains `query`, by name."""
        with self._transaction() as db:
            rows = db.execute(
                f"{_SUBJECT} WHERE strpos(lower(name), lower(%s)) > 0 AND {_LIVE} "
                'ORDER BY name COLLATE "C" LIMIT %s OFFSET %s',
                (clean_name(query) if query else "", time.time(), limit, offset),
            ).fetchall()
        return [Subject(*row) for row in rows]

    def subject(self, who: str | int) -> Subject:
        """One subject by name or id."""
        with self._transaction() as db:
            return self._find(db, who)

    def _find(self, db: Any, who: str | int, *, expired: bool = False) -> Subject:
        column, value = ("id", who) if isinstance(who, int) else ("name", clean_name(who))
        now = 0.0 if expired else time.time()
        row = db.execute(f"{_SUBJECT} WHERE {column} = %s AND {_LIVE}", (value, now)).fetchone()
        if row is None:
            raise UnknownSubject(f"{self.path}: nobody with {column} {value!r} is enrolled")
        return Subject(*row)

    def crop(self, who: str | int) -> bytes | None:
        """The kept crop of a subject's best sample."""
        with self._transaction() as db:
            subject = self._find(db, who)
            row = db.execute(
                "SELECT crop FROM samples WHERE subject = %s AND crop IS NOT NULL ORDER BY weight DESC LIMIT 1",
                (subject.id,),
            ).fetchone()
        return None if row is None else bytes(row[0])

    def update(
        self,
        who: str | int,
        *,
        name: str | None = None,
        consent: str | None = None,
        retention_days: float | None = None,
    ) -> Subject:
        """Rename a subject, change the consent note, or keep for so many days from now."""
        with self._transaction() as db:
            subject = self._find(db, who)
            fresh = subject.name if name is None else clean_name(name)
            taken = db.execute("SELECT id FROM subjects WHERE name = %s AND id != %s", (fresh, subject.id)).fetchone()
            if taken:
                raise DataError(
                    f"{self.path}: the name {fresh!r} is taken by subject {taken[0]}; merge the two instead"
                )
            expires = subject.expires if retention_days is None else time.time() + retention_days * DAY
            db.execute(
                "UPDATE subjects SET name = %s, consent = %s, expires = %s WHERE id = %s",
                (fresh, subject.consent if consent is None else consent, expires, subject.id),
            )
            return self._find(db, subject.id)

    def merge(self, into: str | int, *others: str | int) -> Subject:
        """Give the samples of `others` to `into`; the others cease to exist."""
        with self._transaction() as db:
            keep = self._find(db, into)
            gone = {self._find(db, other).id for other in others} - {keep.id}
            if not gone:
                raise DataError(f"merging wants another subject besides {keep.name!r}")
            db.execute("UPDATE samples SET subject = %s WHERE subject = ANY(%s)", (keep.id, list(gone)))
            db.execute("DELETE FROM subjects WHERE id = ANY(%s)", (list(gone),))
            self._fuse(db, keep.id)
            return self._find(db, keep.id)

    def forget(self, *who: str | int) -> Forgotten:
        """Erase subjects and rewrite the tables; the receipt counts rows, the server's files are beyond it."""
        with self._transaction() as db:
            ids = sorted({self._find(db, one, expired=True).id for one in who})
        return self._erase(ids)

    def sweep(self) -> Forgotten | None:
        """Erase the subjects whose retention period is over."""
        with self._transaction() as db:
            ids = [
                row[0] for row in db.execute("SELECT id FROM subjects WHERE expires <= %s", (time.time(),)).fetchall()
            ]
        return self._erase(ids) if ids else None

    def _erase(self, ids: list[int]) -> Forgotten:
        with self._transaction() as db:
            count = db.execute("SELECT count(*), count(crop) FROM samples WHERE subject = ANY(%s)", (ids,)).fetchone()
            db.execute("DELETE FROM subjects WHERE id = ANY(%s)", (ids,))
        try:
            self._db.execute("VACUUM FULL samples")
            self._db.execute("VACUUM FULL subjects")
            found = self._db.execute(
                "SELECT (SELECT count(*) FROM subjects WHERE id = ANY(%s)) + "
                "(SELECT count(*) FROM samples WHERE subject = ANY(%s))",
                (ids, ids),
            ).fetchone()[0]
        except self._errors as error:
            raise StorageError(f"{self.path}: deleted, but the tables could not be rewritten: {error}") from error
        return Forgotten(
            subjects=len(ids), samples=count[0], crops=count[1], index_rows=len(ids), files=(), bytes_searched=0,
            fingerprints=0, found=found, complete=found == 0, note=_NOTE,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the server."""
        self._db.close()

    def __enter__(self) -> PgGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(vector: npt.NDArray[np.float32]) -> str:
    """pgvector's form, digits enough to give back the same float32."""
    return "[" + ",".join(np.format_float_positional(v, unique=True, trim="-") for v in vector) + "]"
