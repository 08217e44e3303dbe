"""Gallery: enrol, identify, forget. SQLite holds everything; the search index in memory is derived from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy import erasure
from visavis.deploy.binding import ModelIdentity, bind, open_binding
from visavis.deploy.index import TemplateIndex, unit_vectors
from visavis.deploy.locks import SharedLock
from visavis.deploy.records import (
    Candidate,
    Enrolment,
    Forgotten,
    Identification,
    Subject,
    UnknownSubject,
    clean_name,
    decide,
)
from visavis.deploy.sealing import Plain, Seal, seal_from_environment
from visavis.deploy.store import Store
from visavis.deploy.vectors import Precision
from visavis.errors import DataError

DAY = 86_400.0
_LIVE = "(expires IS NULL OR expires > ?)"
Vectors = npt.NDArray[np.float32]
_SUBJECT = (
    "SELECT id, name, (SELECT count(*) FROM samples WHERE subject = subjects.id), consent, created, expires "
    "FROM subjects"
)


@final
class Gallery:
    """The people a model can recognise, in one file.

    A write that returned is on the disk; a process killed in the middle of one leaves the file as it was before. One
    process writes at a time, any number read. Methods may be called from several threads. Expired subjects are never
    found; `sweep` erases them.

    Args:
        path: the file; made when absent and `create` is true.
        model: the model whose embeddings it holds; needed to make one, and checked against the file's when given.
        create: make the file when it is absent.
        read_only: open a file that cannot or shall not be written.
        precision: how the index holds vectors in memory: float32, float16 or int8. Lossy kinds find 4·top + 16
            candidates and rescore them with the stored float32 vectors.
        approximate: search large galleries by cells (`InvertedVectors`, needs faiss): faster, and may miss a subject.
        retention_days: how long new subjects are kept by default; stored when the gallery is made.
        seal: encryption at rest; taken from the environment when None.

    Raises:
        DataError: no such gallery, damaged, another model's, or sealed with another key.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: ModelIdentity | None = None,
        *,
        create: bool = False,
        read_only: bool = False,
        precision: Precision = "float32",
        approximate: bool = False,
        retention_days: float | None = None,
        seal: Seal | None = None,
    ) -> None:
        self.path = Path(path)
        exists = self.path.exists() and self.path.stat().st_size > 0
        if create and not exists and model is None:
            raise DataError(f"{self.path}: a new gallery wants the model it is for; add --model MODEL")
        self._seal = seal_from_environment() if seal is None else seal
        self._store = Store(self.path, create=create and not exists, read_only=read_only)
        try:
            if create and model is not None:
                bind(self._store, model, self._seal, retention_days)
            self.model, self._context = open_binding(self._store, model, self._seal)
        except BaseException:
            self._store.close()
            raise
        self._index = TemplateIndex(self.model.dim, precision, self._seal, self._context, approximate=approximate)
        self._lock = SharedLock()

    @property
    def encrypted(self) -> bool:
        """Whether vectors and crops are encrypted in the file."""
        return not isinstance(self._seal, Plain)

    @property
    def retention_days(self) -> float | None:
        """How long new subjects are kept unless said otherwise."""
        text = self._store.meta("retention_days")
        return float(text) if text else None

    def __len__(self) -> int:
        with self._store.read() as db:
            return db.execute(f"SELECT count(*) FROM subjects WHERE {_LIVE}", (time.time(),)).fetchone()[0]

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
        """Add samples to a subject, who is made when new; all or none, on the disk when this returns.

        The subject is then found by the template Σ wᵢ·vᵢ / ‖Σ wᵢ·vᵢ‖ over all samples.

        Args:
            name: the subject; Unicode, 1 to 200 characters.
            embeddings: (n, D), or (D,) for one; any length but 0, stored as unit vectors.
            weights: quality of each sample, positive; 1 when None.
            pictures: digests by which a sample that is already there is recognised and left out.
            crops: encoded pictures to keep; nothing is kept when None.
            consent: why this person may be enrolled; replaces the note of an earlier enrolment when not empty.
            retention_days: erase after so many days; the gallery's default when None.

        Raises:
            DataError: wrong shape or length, not finite, no valid name; full disk; read-only.
        """
        vectors = unit_vectors(embeddings, self.model.dim)
        n = len(vectors)
        quality = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        marks, kept = pictures or [None] * n, crops or [None] * n
        if n == 0 or quality.shape != (n,) or len(marks) != n or len(kept) != n or not (quality > 0).all():
            raise DataError(
                f"enrolling wants one positive weight, picture and crop for each of 1 or more samples, got {n}"
            )
        self.sweep()  # or the samples of a subject whose time is over would come back with the name
        now = time.time()
        days = self.retention_days if retention_days is None else retention_days
        with self._store.write() as db:
            subject = self._touch(db, clean_name(name), consent, now, None if days is None else now + days * DAY)
            there = {row[0] for row in db.execute("SELECT picture FROM samples WHERE subject = ?", (subject,))} - {None}
            new = [i for i in range(n) if marks[i] is None or (marks[i] not in there and marks[i] not in marks[:i])]
            db.executemany(
                "INSERT INTO samples (subject, vector, weight, picture, crop, created) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (subject, self.seal(vectors[i].tobytes()), float(quality[i]), marks[i], self.seal(kept[i]), now)
                    for i in new
                ],
            )
            row = db.execute(f"{_SUBJECT} WHERE id = ?", (subject,)).fetchone()
        return Enrolment(Subject(*row), added=len(new), already=n - len(new))

    def enroll_many(self, names: Sequence[str], embeddings: Vectors, *, consent: str = "", batch: int = 10_000) -> int:
        """Add one sample to each of many subjects, `batch` per transaction; returns how many were added.

        Raises:
            DataError: as `enroll`; the batches before the failing one are kept.
        """
        if len(names) != len(embeddings):
            raise DataError(
                f"enrolling wants one name per embedding, got {len(names)} names and {len(embeddings)} embeddings"
            )
        self.sweep()
        days, now = self.retention_days, time.time()
        expires = None if days is None else now + days * DAY
        for start in range(0, len(names), batch):
            vectors = unit_vectors(embeddings[start : start + batch], self.model.dim)
            tidy = [clean_name(name) for name in names[start : start + batch]]
            with self._store.write() as db:
                generation = self._store.next_generation(db)
                rows = []
                for name, vector in zip(tidy, vectors, strict=True):
                    subject = db.execute(_UPSERT, (name, consent, now, expires, generation)).fetchone()[0]
                    rows.append((subject, self.seal(vector.tobytes()), now))
                db.executemany("INSERT INTO samples (subject, vector, weight, created) VALUES (?, ?, 1.0, ?)", rows)
        return len(names)

    def _touch(self, db: Any, name: str, consent: str, now: float, expires: float | None) -> int:
        return db.execute(_UPSERT, (name, consent, now, expires, self._store.next_generation(db))).fetchone()[0]

    def refresh(self) -> int:
        """Bring the index up to the file, also after another process wrote; returns the subjects searchable."""
        with self._store.read() as db:
            generation = self._store.generation(db)
            if generation != self._index.generation:
                with self._lock.exclusive():
                    self._index.load(db, generation)
        now = time.time()
        if self._index.expiring(now):
            with self._lock.exclusive():
                self._index.drop_expired(now)
        return len(self._index)

    @contextmanager
    def searchable(self) -> Iterator[TemplateIndex]:
        """The index, brought up to date and held still."""
        self.refresh()
        with self._lock.shared():
            yield self._index

    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The `top` most similar subjects to each probe (P, D) or (D,), best first, their similarities exact."""
        probes = unit_vectors(embeddings, self.model.dim)
        with self.searchable() as index:
            lossy = index.vectors.precision != "float32"
            similarity, row = index.vectors.search(probes, max(1, 4 * top + 16 if lossy else top))
            ids = index.ids[row] if row.size else row
        with self._store.read() as db:
            if lossy:
                exact = index.exact(db, {int(i) for i in ids.ravel()})
                similarity = np.array(
                    [[exact[i] @ p if i in exact else -1 for i in r] for r, p in zip(ids.tolist(), probes, strict=True)]
                )
            names = self._names(db, {int(i) for i in ids.ravel()})
        answers = []
        for values, subjects in zip(similarity.tolist(), ids.tolist(), strict=True):
            pairs = [(float(v), i) for v, i in zip(values, subjects, strict=True) if i in names]
            pairs.sort(key=lambda pair: -pair[0])
            answers.append(tuple(Candidate(i, names[i], v) for v, i in pairs[:top]))
        return answers

    def identify(
        self, embeddings: npt.ArrayLike, *, threshold: float | None, fmr: float | None = None, top: int = 5
    ) -> list[Identification]:
        """Who each probe is, or unknown: the best candidate is a match when its similarity reaches `threshold`.

        Args:
            embeddings: (P, D) or (D,).
            threshold: cosine similarity; None ranks without deciding.
            fmr: the false match rate `threshold` was calibrated at; gives the FPIR stated.
            top: candidates to return.
        """
        return decide(self.search(embeddings, top=top), len(self._index), threshold, fmr)

    @staticmethod
    def _names(db: Any, ids: set[int]) -> dict[int, str]:
        wanted, names = sorted(ids), {}
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            names |= dict(db.execute(f"SELECT id, name FROM subjects WHERE id IN ({marks})", part).fetchall())
        return names

    def subjects(self, query: str = "", *, offset: int = 0, limit: int | None = None) -> list[Subject]:
        """Subjects whose name contains `query` (no wildcards), by name."""
        with self._store.read() as db:
            rows = db.execute(
                f"{_SUBJECT} WHERE instr(fold(name), fold(?)) AND {_LIVE} ORDER BY name LIMIT ? OFFSET ?",
                (clean_name(query) if query else "", time.time(), -1 if limit is None else limit, offset),
            ).fetchall()
        return [Subject(*row) for row in rows]

    def subject(self, who: str | int) -> Subject:
        """One subject by name or id.

        Raises:
            DataError: nobody of that name or id.
        """
        with self._store.read() as db:
            return self._find(db, who)

    def _find(self, db: Any, who: str | int, *, expired: bool = False) -> Subject:
        column, value = ("id", who) if isinstance(who, int) else ("name", clean_name(who))
        row = db.execute(
            f"{_SUBJECT} WHERE {column} = ? AND {_LIVE}", (value, 0.0 if expired else time.time())
        ).fetchone()
        if row is None:
            raise UnknownSubject(f"{self.path}: nobody with {column} {value!r} is enrolled")
        return Subject(*row)

    def crop(self, who: str | int) -> bytes | None:
        """The kept crop of a subject's best sample, encoded; None when pictures are not kept."""
        with self._store.read() as db:
            subject = self._find(db, who)
            row = db.execute(
                "SELECT crop FROM samples WHERE subject = ? AND crop IS NOT NULL ORDER BY weight DESC LIMIT 1",
                (subject.id,),
            ).fetchone()
        return None if row is None else self._seal.unseal(row[0], self._context)

    def update(
        self,
        who: str | int,
        *,
        name: str | None = None,
        consent: str | None = None,
        retention_days: float | None = None,
    ) -> Subject:
        """Rename a subject, change the consent note, or keep for so many days from now."""
        with self._store.write() as db:
            subject = self._find(db, who)
            fresh = subject.name if name is None else clean_name(name)
            taken = db.execute("SELECT id FROM subjects WHERE name = ? AND id != ?", (fresh, subject.id)).fetchone()
            if taken:
                raise DataError(
                    f"{self.path}: the name {fresh!r} is taken by subject {taken[0]}; merge the two instead"
                )
            expires = subject.expires if retention_days is None else time.time() + retention_days * DAY
            db.execute(
                "UPDATE subjects SET name = ?, consent = ?, expires = ?, changed = ? WHERE id = ?",
                (
                    fresh,
                    subject.consent if consent is None else consent,
                    expires,
                    self._store.next_generation(db),
                    subject.id,
                ),
            )
            return self._find(db, subject.id)

    def merge(self, into: str | int, *others: str | int) -> Subject:
        """Give the samples of `others` to `into`; the others cease to exist. Their template is fused anew."""
        with self._store.write() as db:
            keep = self._find(db, into)
            gone = {self._find(db, other).id for other in others} - {keep.id}
            if not gone:
                raise DataError(f"merging wants another subject besides {keep.name!r}")
            generation = self._store.next_generation(db)
            for subject in gone:
                db.execute("UPDATE samples SET subject = ? WHERE subject = ?", (keep.id, subject))
                db.execute("DELETE FROM subjects WHERE id = ?", (subject,))
                db.execute("INSERT INTO forgotten VALUES (?, ?)", (subject, generation))
            db.execute("UPDATE subjects SET changed = ? WHERE id = ?", (generation, keep.id))
            return self._find(db, keep.id)

    def forget(self, *who: str | int) -> Forgotten:
        """Erase subjects: rows, vectors, kept crops and index entries; then search the files for what might be left.

        Deleted cells are overwritten with zeros (secure_delete), the file is rewritten without free pages (VACUUM), the
        write-ahead log emptied, and every file searched for pieces of what was erased.

        Raises:
            DataError: nobody of that name; then nothing is erased.
        """
        with self._store.read() as db:
            ids = [self._find(db, one, expired=True).id for one in who]
        return self._erase(ids)

    def sweep(self) -> Forgotten | None:
        """Erase the subjects whose retention period is over; None when there are none."""
        with self._store.read() as db:
            ids = [row[0] for row in db.execute("SELECT id FROM subjects WHERE expires <= ?", (time.time(),))]
        return self._erase(ids) if ids else None

    def _erase(self, ids: Iterable[int]) -> Forgotten:
        traces = erasure.delete(self._store, sorted(set(ids)))
        with self._lock.exclusive():
            rows = self._index.remove(traces.subjects)
        return erasure.finish(self._store, traces, index_rows=rows)

    @property
    def store(self) -> Store:
        """The file underneath, for the modules that export, cluster and measure."""
        return self._store

    def unseal(self, stored: bytes) -> bytes:
        """Bytes of the file as they were before encryption."""
        return self._seal.unseal(stored, self._context)

    def seal(self, plain: bytes | None) -> bytes | None:
        """Bytes as the file holds them."""
        return None if plain is None else self._seal.seal(plain, self._context)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_UPSERT = (
    "INSERT INTO subjects (name, consent, created, expires, changed) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET changed = excluded.changed, expires = excluded.expires, "
    "consent = CASE WHEN excluded.consent = '' THEN consent ELSE excluded.consent END RETURNING id"
)
