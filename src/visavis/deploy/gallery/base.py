"""What every gallery does alike, wherever its rows are kept: looking up, renaming, merging, erasing, deciding."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.index import unit_vectors
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.names import clean_name, name_key
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
from visavis.errors import DataError

LIVE = "(expires IS NULL OR expires > ?)"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Samples:
    """What is enrolled at once: unit vectors (n, D) and for each a weight, a mark of its picture, a crop, its file.

    `rated` says whether the weights are qualities, or 1 because nobody judged.
    """

    vectors: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    marks: Sequence[bytes | None]
    crops: Sequence[bytes | None]
    sources: Sequence[SourceFile | None]
    rated: bool

    @classmethod
    def checked(
        cls,
        dim: int,
        embeddings: npt.ArrayLike,
        weights: npt.ArrayLike | None,
        pictures: Sequence[bytes | None] | None,
        crops: Sequence[bytes | None] | None,
        sources: Sequence[SourceFile | None] | None = None,
    ) -> Samples:
        """The arguments of `enroll`, or a DataError that says what does not fit."""
        vectors = unit_vectors(embeddings, dim)
        n = len(vectors)
        quality = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        marks, kept, files = pictures or [None] * n, crops or [None] * n, sources or [None] * n
        fits = quality.shape == (n,) and len(marks) == len(kept) == len(files) == n
        if n == 0 or not fits or not (np.isfinite(quality) & (quality > 0)).all():
            raise DataError(
                "enrolling wants one finite positive weight, picture, crop and source for each of 1 or more samples, "
                f"got {n}"
            )
        return cls(vectors, quality, marks, kept, files, weights is not None)

    def new(self, there: Collection[bytes]) -> list[int]:
        """Positions of the samples whose picture is not `there` and did not come before."""
        marks = self.marks
        return [
            i for i, mark in enumerate(marks) if mark is None or (mark not in there and mark not in list(marks[:i]))
        ]


class GalleryBase(ABC):
    """Enrol, identify, forget over two tables, subjects and samples; SQL here marks its values with `?`."""

    path: str | os.PathLike[str]
    model: ModelIdentity
    # How the tables give a subject's name and consent note, whether a name contains a text, and the order of names.
    _name = "name"
    _consent = "consent"
    _contains = "instr(fold(name), fold(?))"
    _order = "name"

    @property
    @abstractmethod
    def retention_days(self) -> float | None:
        """How long new subjects are kept unless said otherwise."""

    @abstractmethod
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
        """Add samples to a subject, who is made when new."""

    @abstractmethod
    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The `top` most similar subjects to each probe (P, D) or (D,), best first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or the server."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Any]: ...

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Any]: ...

    @abstractmethod
    def _erase(self, ids: Iterable[int], progress: Progress | None = None) -> Forgotten: ...

    @abstractmethod
    def _changed(self, db: Any, subject: int, gone: Collection[int] = ()) -> None:
        """After a subject's row changed, or it took over the samples of those `gone`."""

    def _label(self, name: str) -> str:
        """What the column `key`, by which a subject is found, holds for a name."""
        return name_key(name)

    def _stored(self, name: str | None, consent: str | None, subject: int) -> dict[str, Any]:
        """Columns and values that hold a name and a consent note of a subject."""
        values = {"key": None if name is None else self._label(name), "name": name, "consent": consent}
        return {column: value for column, value in values.items() if value is not None}

    def _whole(self, db: Any, subject: int) -> None:  # noqa: B027
        """Raise StorageError when the row of a subject is damaged, if the store can tell."""

    def _move(self, db: Any, samples: Sequence[int], subject: int) -> None:
        """Give samples to another subject; call `_changed` for both after it."""
        for sample in samples:
            db.execute("UPDATE samples SET subject = ? WHERE id = ?", (subject, sample))

    def _unsealed(self, crop: bytes, sample: int) -> bytes:
        return bytes(crop)

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
                (clean_name(query) if query else "", time.time(), 1 << 62 if limit is None else limit, offset),
            ).fetchall()
        return [Subject(*row) for row in rows]

    def subject(self, who: str | int) -> Subject:
        """One subject by name or id.

        Raises:
            DataError: nobody of that name or id.
        """
        with self._reading() as db:
            return self._find(db, who)

    def _find(self, db: Any, who: str | int, *, expired: bool = False) -> Subject:
        column, stored = ("id", who) if isinstance(who, int) else ("key", self._label(who))
        now = 0.0 if expired else time.time()
        row = db.execute(f"{self._columns} WHERE {column} = ? AND {LIVE}", (stored, now)).fetchone()
        if row is None:
            kind = "id" if column == "id" else "name"
            raise UnknownSubject(f"{self.path}: nobody with {kind} {who!r} is enrolled")
        if not expired:
            self._whole(db, row[0])
        return Subject(*row)

    def crop(self, who: str | int) -> bytes | None:
        """The kept crop of a subject's best sample, encoded; None when pictures are not kept."""
        with self._reading() as db:
            subject = self._find(db, who)
            row = db.execute(
                "SELECT crop, id FROM samples WHERE subject = ? AND crop IS NOT NULL ORDER BY weight DESC LIMIT 1",
                (subject.id,),
            ).fetchone()
        return None if row is None else self._unsealed(row[0], row[1])

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

    def merge(self, into: str | int, *others: str | int) -> Merge:
        """Give the samples of `others` to `into`; the others cease to exist. Their template is fused anew.

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
                self._move(db, absorbed[-1][1], keep.id)
                db.execute("DELETE FROM subjects WHERE id = ?", (subject.id,))
            values = self._stored(None, joined_notes(s.consent for s in (keep, *gone)), keep.id)
            values["expires"] = earliest(s.expires for s in (keep, *gone))
            parts = ", ".join(f"{column} = ?" for column in values)
            db.execute(f"UPDATE subjects SET {parts} WHERE id = ?", (*values.values(), keep.id))
            self._changed(db, keep.id, [subject.id for subject in gone])
            return Merge(keep, tuple(absorbed), self._find(db, keep.id))

    def forget(self, *who: str | int, progress: Progress | None = None) -> Forgotten:
        """Erase subjects with everything of theirs, all or none, and look for what might be left.

        In a file: deleted cells are overwritten with zeros (secure_delete), the file is rewritten without free pages
        (VACUUM, once for all of `who`), the write-ahead log emptied, the index entries dropped, and every file searched
        for pieces of what was erased.

        Args:
            who: names or ids.
            progress: told what is being done; a large file takes a while.

        Raises:
            DataError: nobody of that name; then nothing is erased.
        """
        with self._reading() as db:
            ids = [self._find(db, one, expired=True).id for one in who]
        return self._erase(ids, progress)

    def sweep(self, *, progress: Progress | None = None) -> Forgotten | None:
        """Erase the subjects whose retention period is over; None when there are none."""
        with self._reading() as db:
            rows = db.execute("SELECT id FROM subjects WHERE expires <= ?", (time.time(),)).fetchall()
        return self._erase([row[0] for row in rows], progress) if rows else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
