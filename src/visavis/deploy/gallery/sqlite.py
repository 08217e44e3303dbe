"""Gallery: enrol, identify, forget. SQLite holds everything; the search index in memory is derived from it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery import erasure
from visavis.deploy.gallery.base import GalleryBase, Progress, Samples
from visavis.deploy.gallery.encryption import Cipher, NoCipher, cipher_from_environment
from visavis.deploy.gallery.index import Approximation, TemplateIndex, unit_vectors
from visavis.deploy.gallery.locks import SharedLock
from visavis.deploy.gallery.migration import migrate
from visavis.deploy.gallery.model_identity import ModelIdentity, creator, open_binding
from visavis.deploy.gallery.names import clean_name, clean_note
from visavis.deploy.gallery.records import (
    Candidate,
    Enrolment,
    Forgotten,
    Identification,
    SourceFile,
    Subject,
    damaged_subject,
    decide,
)
from visavis.deploy.gallery.retention import checked_days
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.sqlite_file import Store
from visavis.deploy.gallery.subject_rows import add_samples, change_subject, check_subject, move_samples, touch_subject
from visavis.deploy.gallery.vectors import Precision
from visavis.errors import DataError

Vectors = npt.NDArray[np.float32]
_TRIES = 20


@final
class Gallery(GalleryBase):
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
        approximate: search large galleries by "cells" or by a "graph" (needs faiss): faster, and may miss a subject.
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
        approximate: Approximation | None = None,
        retention_days: float | None = None,
        seal: Cipher | None = None,
    ) -> None:
        self.path = Path(path)
        if retention_days is not None:
            checked_days(retention_days)
        exists = self.path.exists() and self.path.stat().st_size > 0
        if create and not exists and model is None:
            raise DataError(f"{self.path}: a new gallery wants the model it is for; add --model MODEL")
        self._seal = cipher_from_environment() if seal is None else seal
        new = creator(model, self._seal, retention_days) if create and model is not None else None
        self._store = Store(self.path, create=new, read_only=read_only)
        try:
            self.model, self._rows = open_binding(self._store, model, self._seal)
            self._store.use(self._rows)
            migrate(self._store, self._seal)
        except BaseException:
            self._store.close()
            raise
        self._index = TemplateIndex(self.model.dim, precision, self._rows, approximate=approximate)
        self._lock = SharedLock()
        if self.encrypted:
            self._name, self._consent = "plain_name(id, name)", "plain_consent(id, consent)"
            self._contains, self._order = "instr(fold(plain_name(id, name)), fold(?))", "plain_name(id, name)"

    @property
    def encrypted(self) -> bool:
        """Whether names, notes, vectors and crops are encrypted in the file."""
        return not isinstance(self._seal, NoCipher)

    @property
    def retention_days(self) -> float | None:
        """How long new subjects are kept unless said otherwise."""
        text = self._store.settings().get("retention_days")
        return float(text) if text else None

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
        """Add samples to a subject, who is made when new; all or none, on the disk when this returns.

        The subject is then found by the template Σ wᵢ·vᵢ / ‖Σ wᵢ·vᵢ‖ over all samples.

        Args:
            name: the subject; Unicode, 1 to 200 characters.
            embeddings: (n, D), or (D,) for one; any length but 0, stored as unit vectors.
            weights: quality of each sample, positive; 1 when None.
            pictures: digests by which a sample that is already there is recognised and left out.
            crops: encoded pictures to keep; nothing is kept when None.
            sources: the file of each sample.
            consent: why this person may be enrolled; replaces the note of an earlier enrolment when not empty.
            retention_days: erase after so many days from now. None leaves the end of a subject who is there as it is;
                a new one gets the gallery's default. Where every sample is there already, nothing at all changes.

        Raises:
            DataError: wrong shape or length, not finite, no valid name; full disk; read-only.
        """
        marks = None if pictures is None else [self._rows.digest(picture) for picture in pictures]
        samples = Samples.checked(self.model.dim, embeddings, weights, marks, crops, sources)
        tidy, note, now = clean_name(name), clean_note(consent), time.time()
        expires = self._expires(now, retention_days)
        self.sweep()  # or the samples of a subject whose time is over would come back with the name
        with self._store.write() as db:
            new = samples.new(self._pictures(db, tidy))
            if not new:
                return Enrolment(self._find(db, tidy, expired=True), added=0, already=len(samples.marks))
            generation = self._store.next_generation(db)
            subject = touch_subject(
                db, self._rows, tidy, note,
                now=now, expires=expires, generation=generation, renew=retention_days is not None,
            )  # fmt: skip
            add_samples(db, self._rows, [subject] * len(samples.marks), samples, new, now=now)
            row = db.execute(f"{self._columns} WHERE id = ?", (subject,)).fetchone()
        return Enrolment(Subject(*row), added=len(new), already=len(samples.marks) - len(new))

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
        note, now = clean_note(consent), time.time()
        expires = self._expires(now, None)
        for start in range(0, len(names), batch):
            samples = Samples.checked(self.model.dim, embeddings[start : start + batch], None, None, None)
            tidy = [clean_name(name) for name in names[start : start + batch]]
            with self._store.write() as db:
                generation = self._store.next_generation(db)
                subjects = [
                    touch_subject(
                        db, self._rows, name, note, now=now, expires=expires, generation=generation, renew=False
                    )
                    for name in tidy
                ]
                add_samples(db, self._rows, subjects, samples, range(len(tidy)), now=now)
        return len(names)

    def _pictures(self, db: Any, name: str) -> set[bytes]:
        """Marks of the pictures a subject has."""
        rows = db.execute(
            "SELECT picture FROM samples JOIN subjects ON subjects.id = subject WHERE key = ?", (self._label(name),)
        )
        return {row[0] for row in rows} - {None}

    def _label(self, name: str) -> str:
        return self._rows.label(super()._label(name))

    def _stored(self, name: str | None, consent: str | None, subject: int) -> dict[str, Any]:
        values = super()._stored(name, consent, subject)
        for column in ("name", "consent"):
            if column in values:
                values[column] = self._rows.seal_text(values[column], "subjects", column, subject)
        return values

    def _whole(self, db: Any, subject: int) -> None:
        check_subject(db, self._rows, subject)

    def _move(self, db: Any, samples: Sequence[int], subject: int) -> None:
        move_samples(db, self._rows, samples, subject)

    def _unsealed(self, crop: bytes, sample: int) -> bytes:
        return self._rows.unseal(crop, "samples", "crop", sample)

    def _reading(self) -> AbstractContextManager[Any]:
        return self._store.read()

    def _writing(self) -> AbstractContextManager[Any]:
        return self._store.write()

    def _changed(self, db: Any, subject: int, gone: Collection[int] = ()) -> None:
        generation = self._store.next_generation(db)
        db.executemany("INSERT INTO forgotten VALUES (?, ?)", [(one, generation) for one in gone])
        change_subject(db, self._rows, subject, generation)

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
        answers: list[tuple[Candidate, ...]] = []
        for _ in range(_TRIES):
            answers, gone = self._search(probes, top)
            if not gone:  # else somebody was erased between finding and naming: without them others would be best
                break
        return answers

    def _search(self, probes: Vectors, top: int) -> tuple[list[tuple[Candidate, ...]], int]:
        """Candidates of each probe, and how many of the subjects found do not exist any more."""
        with self.searchable() as index:
            lossy = index.vectors.precision != "float32"
            similarity, row = index.vectors.search(
                probes, index.most_templates * max(1, 4 * top + 16 if lossy else top)
            )
            ids = index.ids[row] if row.size else row
        with self._store.read() as db:
            if lossy:
                exact = index.exact(db, {int(i) for i in ids.ravel()})
                similarity = np.array(
                    [
                        [(exact[i] @ p).max() if i in exact else -1 for i in r]
                        for r, p in zip(ids.tolist(), probes, strict=True)
                    ]
                )
            found = {int(i) for i in ids.ravel()}
            names = self._names(db, found)
        answers = []
        for values, subjects in zip(similarity.tolist(), ids.tolist(), strict=True):
            best: dict[int, float] = {}  # of the templates of a subject the most similar counts
            for value, i in sorted(zip(values, subjects, strict=True), key=lambda pair: -pair[0]):
                if i in names:
                    best.setdefault(i, float(value))
            answers.append(tuple(Candidate(i, names[i], v) for i, v in list(best.items())[:top]))
        return answers, len(found) - len(names)

    def identify(
        self,
        embeddings: npt.ArrayLike,
        *,
        threshold: float | None,
        fmr: float | None = None,
        fmr_interval: tuple[float, float] | None = None,
        top: int = 5,
    ) -> list[Identification]:
        """As `GalleryBase.identify`; what was searched is the index's count."""
        return decide(self.search(embeddings, top=top), len(self._index), threshold, fmr, fmr_interval)

    def _names(self, db: Any, ids: set[int]) -> dict[int, str]:
        wanted, names = sorted(ids), {}
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            for number in self._rows.damaged(db, "subjects", f"id IN ({marks})", part):
                raise damaged_subject(number)
            names |= dict(db.execute(f"SELECT id, {self._name} FROM subjects WHERE id IN ({marks})", part).fetchall())
        return names

    def _erase(self, ids: Iterable[int], progress: Progress | None = None) -> Forgotten:
        traces = erasure.delete(self._store, sorted(set(ids)))
        with self._lock.exclusive():
            rows = self._index.remove(traces.subjects)
        return erasure.finish(self._store, traces, index_rows=rows, progress=progress)

    def everybody(self, db: Any) -> list[Subject]:
        """All subjects by id, also those whose time is over, for a reader that holds `store.read()`."""
        return [Subject(*row) for row in db.execute(f"{self._columns} ORDER BY id")]

    @property
    def store(self) -> Store:
        """The file underneath, for the modules that export, cluster and measure."""
        return self._store

    @property
    def rows(self) -> Rows:
        """How the file's rows are encrypted and summed, for the modules that write some."""
        return self._rows

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()
