"""What every gallery does alike, wherever its rows are kept: enrolling, looking up, merging, erasing, deciding."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.index import TemplateIndex, unit_vectors
from visavis.deploy.gallery.locks import SharedLock
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.names import MAX_NAME, clean_name, clean_note, name_key
from visavis.deploy.gallery.records import (
    Candidate,
    Enrolment,
    Forgotten,
    Identification,
    Merge,
    SourceFile,
    Subject,
    UnknownSubject,
    decide,
)
from visavis.deploy.gallery.retention import DAY, checked_days, earliest, joined_notes
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.sample_methods import SampleMethods
from visavis.deploy.gallery.samples import Samples
from visavis.deploy.gallery.subject_rows import (
    add_samples,
    change_subject,
    check_samples,
    check_subjects,
    move_samples,
    shift_templates,
    touch_subject,
    touch_subjects,
)
from visavis.errors import DataError

_FACES = 4096  # unknown faces compared at a time
LIVE = "(expires IS NULL OR expires > ?)"
Progress = Callable[[str], None]


class GalleryBase(SampleMethods, ABC):
    """Enrol, identify, forget over a store's tables; SQL here marks its values with `?`.

    A gallery of a kind opens its store, and says how it searches and how it erases.
    """

    path: str | os.PathLike[str]
    model: ModelIdentity
    _store: Any  # `Store` or `PostgresStore`
    _rows: Rows
    _index: TemplateIndex
    _lock: SharedLock
    # How the tables give a subject's name and consent note, whether a name contains a text, and the order of names.
    _name = "name"
    _consent = "consent"
    _contains = "instr(fold(name), fold(?))"
    _order = "name"

    @abstractmethod
    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The `top` most similar subjects to each probe (P, D) or (D,), best first."""

    @abstractmethod
    def _delete(self, db: Any, subjects: Sequence[int], samples: Sequence[int], faces: Sequence[int]) -> Any:
        """Delete subjects, samples and unknown faces; returns the traces by which a remainder would show."""

    @abstractmethod
    def _finish(self, traces: Any, progress: Progress | None, note: str = "") -> Forgotten:
        """Let the store let go of what was deleted, and look for what is left; with a `note` it is not complete."""

    @property
    def encrypted(self) -> bool:
        """Whether names, notes, vectors and crops are encrypted in the file."""
        return self._rows.encrypted

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
        threshold: float | None = None,
        same: float | None = None,
    ) -> Enrolment:
        """Add samples to a subject, who is made when new; all or none, on the disk when this returns.

        The subject is then found by the template Σ wᵢ·vᵢ / ‖Σ wᵢ·vᵢ‖ over all samples, and, where these fall apart at
        `threshold` into groups, by one more template for each group but the largest.

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
            threshold: the model's calibrated similarity; without it the new samples join the first template.
            same: similarity from which two samples count as one picture, however they were encoded and cut out; None
                tells them apart by `pictures` and `sources` alone.

        Raises:
            DataError: wrong shape or length, not finite, no valid name; full disk; read-only.
        """
        marks = None if pictures is None else [self._rows.digest(picture) for picture in pictures]
        samples = Samples.checked(self.model.dim, embeddings, weights, marks, crops, sources)
        tidy, note, now = clean_name(name), clean_note(consent), time.time()
        expires = self._expires(now, retention_days)
        self.sweep()  # or the samples of a subject whose time is over would come back with the name
        with self._store.write() as db:
            earlier = [self._rows.earlier_digest(picture) for picture in pictures or [None] * len(samples.marks)]
            new = self._new(db, tidy, samples, earlier, same)
            if not new:
                return Enrolment(self._find(db, tidy, expired=True), added=0, already=len(samples.marks))
            generation = self._store.next_generation(db)
            subject = touch_subject(
                db, self._rows, tidy, note,
                now=now, expires=expires, generation=generation, renew=retention_days is not None,
            )  # fmt: skip
            add_samples(db, self._rows, [subject] * len(samples.marks), samples, new, now=now)
            self._regroup(db, subject, threshold)
            self._fused(db, [subject])
            row = db.execute(f"{self._columns} WHERE id = ?", (subject,)).fetchone()
        return Enrolment(Subject(*row), added=len(new), already=len(samples.marks) - len(new))

    def enroll_many(
        self, names: Sequence[str], embeddings: npt.NDArray[np.float32], *, consent: str = "", batch: int = 10_000
    ) -> int:
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
                subjects = touch_subjects(db, self._rows, tidy, note, now=now, expires=expires, generation=generation)
                add_samples(db, self._rows, subjects, samples, range(len(tidy)), now=now)
                self._fused(db, list(dict.fromkeys(subjects)))
        return len(names)

    def _label(self, name: str) -> str:
        """What the column `key`, by which a subject is found, holds for a name."""
        return self._rows.label(name_key(name))

    def _stored(self, name: str | None, consent: str | None, subject: int) -> dict[str, Any]:
        """Columns and values that hold a name and a consent note of a subject."""
        values: dict[str, Any] = {} if name is None else {"key": self._label(name)}
        for column, text in (("name", name), ("consent", consent)):
            if text is not None:
                values[column] = self._rows.seal_text(text, "subjects", column, subject)
        return values

    def _whole(self, db: Any, subjects: Sequence[int]) -> None:
        """Raise StorageError when the row of one of the subjects is damaged."""
        check_subjects(db, self._rows, subjects)

    def _move(self, db: Any, samples: Sequence[int], subject: int) -> None:
        """Give samples to another subject; call `_changed` for both after it."""
        move_samples(db, self._rows, samples, subject)

    def _unsealed(self, db: Any, crop: bytes, sample: int) -> bytes:
        check_samples(db, self._rows, [sample])
        return self._rows.unseal(crop, "samples", "crop", sample)

    def _reading(self) -> AbstractContextManager[Any]:
        return self._store.read()

    def _writing(self) -> AbstractContextManager[Any]:
        return self._store.write()

    def _changed(self, db: Any, subject: int, gone: Collection[int] = ()) -> None:
        """After a subject's row changed, or it took over the samples of those `gone`."""
        generation = self._store.next_generation(db)
        db.executemany("INSERT INTO forgotten VALUES (?, ?)", [(one, generation) for one in gone])
        change_subject(db, self._rows, subject, generation)
        self._fused(db, [subject])

    def renew_templates(self, db: Any, subjects: Sequence[int]) -> None:
        """After samples of subjects were written by another module, inside its transaction."""
        self._fused(db, subjects)

    def _fused(self, db: Any, subjects: Sequence[int]) -> None:
        """Renew what the store itself keeps of subjects' templates."""

    @staticmethod
    def _most(top: int) -> int:
        """The number of candidates asked for.

        Raises:
            DataError: not a whole number from 1 on.
        """
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise DataError(f"the number of candidates is a whole number from 1 on, got {top!r}")
        return min(top, 1 << 31)

    @property
    def _columns(self) -> str:
        count = "(SELECT count(*) FROM samples WHERE subject = subjects.id)"
        return f"SELECT id, {self._name}, {count}, {self._consent}, created, expires FROM subjects"

    def _expires(self, now: float, days: float | None) -> float | None:
        """When a new subject's time ends."""
        kept = self.retention_days if days is None else checked_days(days)
        return None if kept is None else now + kept * DAY

    def __len__(self) -> int:
        with self._reading() as db:
            return db.execute(f"SELECT count(*) FROM subjects WHERE {LIVE}", (time.time(),)).fetchone()[0]

    def identify(
        self,
        embeddings: npt.ArrayLike,
        *,
        threshold: float | None,
        fmr: float | None = None,
        fmr_interval: tuple[float, float] | None = None,
        top: int = 5,
    ) -> list[Identification]:
        """Who each probe is, or unknown: the best candidate is a match when its similarity reaches `threshold`.

        Args:
            embeddings: (P, D) or (D,).
            threshold: cosine similarity; None ranks without deciding.
            fmr: the false match rate `threshold` was calibrated at; gives the FPIR stated.
            fmr_interval: where that rate truly lies; gives the FPIR's interval.
            top: candidates to return.
        """
        return decide(self.search(embeddings, top=top), len(self), threshold, fmr, fmr_interval)

    def subjects(self, query: str = "", *, offset: int = 0, limit: int | None = None) -> list[Subject]:
        """Subjects whose name contains `query` (no wildcards), by name."""
        with self._reading() as db:
            rows = db.execute(
                f"{self._columns} WHERE {self._contains} AND {LIVE} ORDER BY {self._order} LIMIT ? OFFSET ?",
                (
                    clean_name(query).casefold() if query else "",
                    time.time(),
                    1 << 62 if limit is None else limit,
                    offset,
                ),
            ).fetchall()
            self._whole(db, [row[0] for row in rows])
        return [Subject(*row) for row in rows]

    def subject(self, who: str | int) -> Subject:
        """One subject by name or id.

        Raises:
            DataError: nobody of that name or id.
        """
        with self._reading() as db:
            return self._find(db, who)

    def _find(self, db: Any, who: str | int, *, expired: bool = False) -> Subject:
        if isinstance(who, bool) or not isinstance(who, int | str):
            raise DataError(f"a subject goes by name or number, got {who!r}")
        if isinstance(who, int) and not 0 <= who < 1 << 63:
            raise UnknownSubject(f"{self.path}: nobody with id {who} is enrolled")
        column, stored = ("id", who) if isinstance(who, int) else ("key", self._label(who))
        now = 0.0 if expired else time.time()
        row = db.execute(f"{self._columns} WHERE {column} = ? AND {LIVE}", (stored, now)).fetchone()
        if row is None:
            kind = "id" if column == "id" else "name"
            shown = who if isinstance(who, int) else who[:MAX_NAME]
            raise UnknownSubject(f"{self.path}: nobody with {kind} {shown!r} is enrolled")
        if not expired:
            self._whole(db, [row[0]])
        return Subject(*row)

    def crop(self, who: str | int) -> bytes | None:
        """The kept crop of a subject's best sample, encoded; None when pictures are not kept."""
        with self._reading() as db:
            subject = self._find(db, who)
            row = db.execute(
                "SELECT crop, id FROM samples WHERE subject = ? AND crop IS NOT NULL ORDER BY weight DESC LIMIT 1",
                (subject.id,),
            ).fetchone()
            return None if row is None else self._unsealed(db, row[0], row[1])

    def update(
        self,
        who: str | int,
        *,
        name: str | None = None,
        consent: str | None = None,
        retention_days: float | None = None,
    ) -> Subject:
        """Rename a subject, change the consent note, or keep for so many days from now; what is None stays.

        Raises:
            DataError: nobody of that name or id, the new name is taken, or no valid `retention_days`.
        """
        fresh = None if name is None else clean_name(name)
        consent = None if consent is None else clean_note(consent)
        days = None if retention_days is None else checked_days(retention_days)
        with self._writing() as db:
            subject = self._find(db, who)
            values = self._stored(fresh, consent, subject.id)
            if fresh is not None:
                taken = db.execute(
                    "SELECT id FROM subjects WHERE key = ? AND id != ?", (values["key"], subject.id)
                ).fetchone()
                if taken:
                    raise DataError(
                        f"{self.path}: the name {fresh!r} is taken by subject {taken[0]}; merge the two instead"
                    )
            values["expires"] = subject.expires if days is None else time.time() + days * DAY
            parts = ", ".join(f"{column} = ?" for column in values)
            db.execute(f"UPDATE subjects SET {parts} WHERE id = ?", (*values.values(), subject.id))
            self._changed(db, subject.id)
            return self._find(db, subject.id)

    def merge(self, into: str | int, *others: str | int, threshold: float | None = None) -> Merge:
        """Give the samples of `others` to `into`; the others cease to exist. Templates are made anew, as in `enroll`.

        The subject is kept until the earliest end of all, and the consent notes are joined: what was agreed for some of
        the samples holds for them wherever they are.

        Raises:
            DataError: nobody of that name or id, or no other subject.
        """
        with self._writing() as db:
            keep = self._find(db, into)
            found = {subject.id: subject for subject in (self._find(db, other) for other in others)}
            gone = [subject for subject in found.values() if subject.id != keep.id]
            if not gone:
                raise DataError(f"merging wants another subject besides {keep.name!r}")
            absorbed = []
            for subject in gone:
                rows = db.execute("SELECT id FROM samples WHERE subject = ? ORDER BY id", (subject.id,)).fetchall()
                absorbed.append((subject, tuple(row[0] for row in rows)))
                shift_templates(db, self._rows, subject.id, beyond=keep.id)
                self._move(db, absorbed[-1][1], keep.id)
                db.execute("DELETE FROM subjects WHERE id = ?", (subject.id,))
            self._regroup(db, keep.id, threshold)
            values = self._stored(None, joined_notes(s.consent for s in (keep, *gone)), keep.id)
            values["expires"] = earliest(s.expires for s in (keep, *gone))
            parts = ", ".join(f"{column} = ?" for column in values)
            db.execute(f"UPDATE subjects SET {parts} WHERE id = ?", (*values.values(), keep.id))
            self._changed(db, keep.id, [subject.id for subject in gone])
            return Merge(keep, tuple(absorbed), self._find(db, keep.id))

    def forget(self, *who: str | int, threshold: float | None = None, progress: Progress | None = None) -> Forgotten:
        """Erase subjects with everything of theirs, all or none, and look for what might be left.

        In a file: deleted cells are overwritten with zeros (secure_delete), the file is rewritten without free pages
        (VACUUM, once for all of `who`), the write-ahead log emptied, the index entries dropped, and every file searched
        for pieces of what was erased.

        The unknown faces kept are of the same people too: those whose similarity to any sample of theirs reaches
        `threshold` are erased with them. Without it they are not compared, and the receipt is not complete.

        Args:
            who: names or ids.
            threshold: the model's calibrated similarity.
            progress: told what is being done; a large file takes a while.

        Raises:
            DataError: nobody of that name; then nothing is erased.
        """
        with self._reading() as db:
            ids = list(dict.fromkeys(self._find(db, one, expired=True).id for one in who))
        return self._erase(ids, progress, threshold)

    def sweep(self, *, threshold: float | None = None, progress: Progress | None = None) -> Forgotten | None:
        """Erase the subjects whose retention period is over, as `forget`; None when there are none."""
        while True:
            with self._reading() as db:
                rows = db.execute("SELECT id FROM subjects WHERE expires <= ?", (time.time(),)).fetchall()
            if not rows:
                return None
            try:
                return self._erase([row[0] for row in rows], progress, threshold)
            except UnknownSubject:
                continue  # another process was faster with some of them

    def _erase(self, ids: Iterable[int], progress: Progress | None = None, threshold: float | None = None) -> Forgotten:
        subjects = sorted(set(ids))
        with self._store.write() as db:
            faces, note = self._faces_of(db, subjects, threshold)
            traces = self._delete(db, subjects, [], faces)
        return self._finish(traces, progress, note)

    def _faces_of(self, db: Any, subjects: Sequence[int], threshold: float | None) -> tuple[list[int], str]:
        """Unknown faces of subjects, and what is left to do where they cannot be told."""
        kept = db.execute("SELECT count(*) FROM unknown_faces").fetchone()[0]
        if not kept:
            return [], ""
        if threshold is None:
            return [], (
                f"{kept} unknown faces are kept and were not compared, as no threshold was given; to finish: visavis "
                f"gallery {self.path} unknowns --threshold S, then drop-unknowns"
            )
        theirs = np.concatenate([self._vectors(db, subject)[1] for subject in subjects])
        faces: list[int] = []
        cursor = db.execute("SELECT id, vector FROM unknown_faces")
        while rows := cursor.fetchmany(_FACES):
            plain = b"".join(self._rows.unseal(row[1], "unknown_faces", "vector", row[0]) for row in rows)
            vectors = unit_vectors(np.frombuffer(plain, np.float32).reshape(len(rows), -1), self.model.dim)
            alike = (vectors @ theirs.T).max(1) >= threshold
            faces += [row[0] for row, same in zip(rows, alike.tolist(), strict=True) if same]
        return faces, ""

    def refresh(self) -> int:
        """Know what other processes wrote; returns the subjects that can be found."""
        self._load()
        return len(self._index)

    def _load(self) -> None:
        """Bring the index in memory up to the store."""
        with self._store.read() as db:
            generation = self._store.generation(db)
            if generation != self._index.generation:
                with self._lock.exclusive():
                    self._index.load(db, generation)
        now = time.time()
        if self._index.expiring(now):
            with self._lock.exclusive():
                self._index.drop_expired(now)

    @contextmanager
    def searchable(self) -> Iterator[TemplateIndex]:
        """The index in memory, brought up to date and held still."""
        self._load()
        with self._lock.shared():
            yield self._index

    def _names(self, db: Any, ids: set[int]) -> dict[int, str]:
        """Names of those of the subjects that exist."""
        wanted, names = sorted(ids), {}
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            self._whole(db, part)
            names |= dict(db.execute(f"SELECT id, {self._name} FROM subjects WHERE id IN ({marks})", part).fetchall())
        return names

    def everybody(self, db: Any) -> list[Subject]:
        """All subjects by id, also those whose time is over, for a reader that holds `store.read()`."""
        return [Subject(*row) for row in db.execute(f"{self._columns} ORDER BY id")]

    @property
    def store(self) -> Any:
        """The file or schema underneath, for the modules that export, cluster and measure."""
        return self._store

    @property
    def rows(self) -> Rows:
        """How the rows are encrypted and summed, for the modules that write some."""
        return self._rows

    def verify(self) -> None:
        """Read everything.

        Raises:
            StorageError: something is not as it was written, and which subject's it is.
        """
        self._store.verify()

    def close(self) -> None:
        """Let go of the file or the server."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
