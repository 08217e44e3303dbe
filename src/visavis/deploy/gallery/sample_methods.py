"""What can be done with single samples: look at them, take one back, split a subject, undo a merge."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.index import Vector
from visavis.deploy.gallery.names import clean_name
from visavis.deploy.gallery.records import Forgotten, Merge, Sample, SourceFile, Subject
from visavis.deploy.gallery.samples import Samples
from visavis.deploy.gallery.subject_rows import set_source, set_templates, touch_subject
from visavis.deploy.gallery.table_access import Progress, TableAccess
from visavis.deploy.gallery.templates import template_numbers
from visavis.errors import DataError


class SampleMethods(TableAccess):
    """The part of a gallery that knows samples one by one."""

    def samples(self, who: str | int) -> list[Sample]:
        """The samples of a subject, in the order they were enrolled."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, subject, source_name, quality, weight, template, created, crop IS NOT NULL FROM samples "
                "WHERE subject = ? ORDER BY id",
                (self._find(db, who).id,),
            ).fetchall()
        samples = []
        for number, subject, source, quality, weight, template, created, crop in rows:
            name = self._rows.text(source, "samples", "source_name", number)
            samples.append(Sample(number, subject, name, quality, weight, template, created, bool(crop)))
        return samples

    def sample_vectors(self, who: str | int) -> tuple[list[int], Vector, npt.NDArray[np.float64]]:
        """Numbers, embeddings (n, D) and weights (n,) of a subject's samples."""
        with self._reading() as db:
            return self._vectors(db, self._find(db, who).id)

    def _vectors(self, db: Any, subject: int) -> tuple[list[int], Vector, npt.NDArray[np.float64]]:
        query = "SELECT id, vector, weight FROM samples WHERE subject = ? ORDER BY id"
        rows = db.execute(query, (subject,)).fetchall()
        plain = b"".join(self._rows.decrypt(row[1], "samples", "vector", row[0]) for row in rows)
        vectors = np.frombuffer(plain, np.float32).reshape(len(rows), self.model.dim)
        return [row[0] for row in rows], vectors, np.array([row[2] for row in rows], float)

    def _new(
        self, db: Any, name: str, samples: Samples, earlier: Sequence[bytes | None], same: float | None
    ) -> list[int]:
        """Positions of the samples the subject does not have; those that are there learn their file, if unknown.

        `earlier` are the marks of the samples' pictures as former versions made them.
        """
        query = "SELECT samples.id, picture, source FROM samples JOIN subjects ON subjects.id = subject WHERE key = ?"
        rows = db.execute(f"{query} ORDER BY samples.id", (self._label(name),)).fetchall()
        there: dict[bytes, int | None] = {mark: row[0] for row in rows for mark in row[1:] if mark is not None}
        vectors = np.empty((0, self.model.dim), np.float32)
        if same is not None and rows:
            subject = db.execute("SELECT id FROM subjects WHERE key = ?", (self._label(name),)).fetchone()[0]
            vectors = self._vectors(db, subject)[1]
        numbers: list[int | None] = [row[0] for row in rows]
        without_file = {row[0] for row in rows if row[2] is None}
        new: list[int] = []
        for i, vector in enumerate(samples.vectors):
            source = samples.sources[i]
            marks = [samples.marks[i], earlier[i], None if source is None else self._rows.digest(source.digest)]
            known = next((there[mark] for mark in marks if mark is not None and mark in there), -1)
            if known == -1 and same is not None and len(vectors) and (vectors @ vector).max() >= same:
                known = numbers[int((vectors @ vector).argmax())]
            there |= {mark: None if known == -1 else known for mark in marks if mark is not None}
            if known == -1:
                new.append(i)
                vectors, numbers = np.concatenate([vectors, vector[None]]), [*numbers, None]
            elif known is not None and known in without_file and source is not None:
                set_source(db, self._rows, known, source)
                without_file.discard(known)
        return new

    def _regroup(self, db: Any, subject: int, threshold: float | None) -> None:
        """Part a subject's samples into templates anew; nothing without a threshold."""
        if threshold is None:
            return
        samples, vectors, _ = self._vectors(db, subject)
        query = "SELECT template FROM samples WHERE subject = ? ORDER BY id"
        before = [row[0] for row in db.execute(query, (subject,)).fetchall()]
        after = template_numbers(vectors, threshold).tolist()
        moved = {sample: new for sample, old, new in zip(samples, before, after, strict=True) if old != new}
        set_templates(db, self._rows, moved)

    def known_sources(self, who: str, sources: Sequence[SourceFile | None]) -> list[bool]:
        """Which of these files the subject of that name has a sample of; nobody of that name has none."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT source FROM samples JOIN subjects ON subjects.id = subject "
                "WHERE key = ? AND source IS NOT NULL AND (expires IS NULL OR expires > ?)",
                (self._label(who), time.time()),
            ).fetchall()
        there = {row[0] for row in rows}
        return [source is not None and self._rows.digest(source.digest) in there for source in sources]

    def samples_without(self, who: str | int, sources: Sequence[SourceFile]) -> list[Sample]:
        """The samples of a subject that came from a file, but from none of these."""
        kept = {self._rows.digest(source.digest) for source in sources}
        with self._reading() as db:
            subject = self._find(db, who).id
            rows = db.execute("SELECT id, source FROM samples WHERE subject = ?", (subject,)).fetchall()
        gone = {row[0] for row in rows if row[1] is not None and row[1] not in kept}
        return [sample for sample in self.samples(who) if sample.id in gone]

    def subjects_with_files(self, *, batch: int = 500) -> Iterator[int]:
        """Numbers of the subjects who have samples that came from files, a batch at a time."""
        after = 0
        query = "SELECT DISTINCT subject FROM samples WHERE source IS NOT NULL AND subject > ? ORDER BY subject LIMIT ?"
        while True:
            with self._reading() as db:
                found = [row[0] for row in db.execute(query, (after, batch)).fetchall()]
            yield from found
            if len(found) < batch:
                return
            after = found[-1]

    def forget_samples(
        self,
        who: str | int,
        samples: Iterable[int],
        *,
        threshold: float | None = None,
        progress: Progress | None = None,
    ) -> Forgotten:
        """Erase single samples of a subject, all or none, with the search for what might be left as in `forget`.

        With the model's `threshold` the templates of the others are made anew, as in `enroll`.

        Raises:
            DataError: a sample is not this subject's, or these are all of theirs.
        """
        return self.forget_samples_of({who: list(samples)}, threshold=threshold, progress=progress)

    def forget_samples_of(
        self,
        samples: Mapping[str | int, Sequence[int]] | Mapping[int, Sequence[int]],
        *,
        threshold: float | None = None,
        progress: Progress | None = None,
    ) -> Forgotten:
        """`forget_samples` of several subjects, all or none."""
        with self._writing() as db:
            every: list[int] = []
            subjects = []
            for who, numbers in samples.items():
                subject = self._find(db, who)
                chosen, left = self._chosen(db, subject, numbers)
                if not left:
                    raise DataError(
                        f"{self.path}: these are all samples of {subject.name!r}; erase the subject instead: "
                        f"visavis forget {self.path} --id {subject.id}"
                    )
                every += chosen
                subjects.append(subject.id)
            traces = self._delete(db, [], every, [])
            for number in subjects:
                self._regroup(db, number, threshold)
                self._changed(db, number)
        return self._finish(traces, progress)

    def split(
        self, who: str | int, samples: Iterable[int], name: str, *, threshold: float | None = None
    ) -> tuple[Subject, Subject]:
        """Give some samples of a subject to a new one called `name`; what was agreed holds for both.

        With the model's `threshold` the templates of both are made anew, as in `enroll`.

        Returns:
            The subject and the new one, who has the same consent note and end.

        Raises:
            DataError: the name is taken, a sample is not this subject's, or none would be left.
        """
        tidy = clean_name(name)
        with self._writing() as db:
            subject = self._find(db, who)
            chosen, left = self._chosen(db, subject, samples)
            if not left:
                raise DataError(f"{self.path}: these are all samples of {subject.name!r}; rename the subject instead")
            fresh = self._make(db, tidy, subject.consent, subject.expires)
            self._move(db, chosen, fresh)
            for one in (fresh, subject.id):
                self._regroup(db, one, threshold)
                self._changed(db, one)
            return self._find(db, subject.id), self._find(db, fresh)

    def undo_merge(self, merge: Merge, *, threshold: float | None = None) -> list[Subject]:
        """Part again what `merge` joined: names, notes and ends as they were; the others get new numbers.

        Samples that were erased since stay erased. With the model's `threshold` templates are made anew.

        Returns:
            The subject who was merged into, and the others.

        Raises:
            DataError: the subject was changed since (then `split` by samples), or a name is taken.
        """
        with self._writing() as db:
            subject = self._find(db, merge.subject.id)
            if (subject.name, subject.consent, subject.expires) != (
                merge.subject.name,
                merge.subject.consent,
                merge.subject.expires,
            ):
                raise DataError(f"{self.path}: {subject.name!r} was changed since the merge; split it by its samples")
            there = {row[0] for row in db.execute("SELECT id FROM samples WHERE subject = ?", (subject.id,)).fetchall()}
            parted = []
            for other, samples in merge.absorbed:
                moved = [sample for sample in samples if sample in there]
                if moved:
                    parted.append(self._make(db, other.name, other.consent, other.expires))
                    self._move(db, moved, parted[-1])
            values = self._stored(None, merge.before.consent, subject.id) | {"expires": merge.before.expires}
            parts = ", ".join(f"{column} = ?" for column in values)
            db.execute(f"UPDATE subjects SET {parts} WHERE id = ?", (*values.values(), subject.id))
            if not there - {sample for _, samples in merge.absorbed for sample in samples}:
                raise DataError(f"{self.path}: {subject.name!r} would have no sample left; split it by its samples")
            for one in (subject.id, *parted):
                self._regroup(db, one, threshold)
                self._changed(db, one)
            return [self._find(db, one, expired=True) for one in (subject.id, *parted)]

    def _make(self, db: Any, name: str, consent: str, expires: float | None) -> int:
        """A new subject without samples."""
        taken = db.execute("SELECT id FROM subjects WHERE key = ?", (self._label(name),)).fetchone()
        if taken:
            raise DataError(f"{self.path}: the name {name!r} is taken by subject {taken[0]}")
        return touch_subject(
            db, self._rows, name, consent,
            now=time.time(), expires=expires, generation=self._store.next_generation(db), renew=True,
        )  # fmt: skip

    def _chosen(self, db: Any, subject: Subject, samples: Iterable[int]) -> tuple[list[int], int]:
        """The samples asked for, each once, and how many others the subject has."""
        chosen = list(dict.fromkeys(samples))
        query = "SELECT id FROM samples WHERE subject = ?"
        there = {row[0] for row in db.execute(query, (subject.id,)).fetchall()}
        missing = [sample for sample in chosen if isinstance(sample, bool) or sample not in there]
        if missing or not chosen:
            raise DataError(
                f"{self.path}: {subject.name!r} has the samples {', '.join(map(str, sorted(there)))}, got "
                f"{', '.join(map(str, missing)) or 'none'}; see: visavis gallery {self.path} samples {subject.name!r}"
            )
        return chosen, len(there) - len(chosen)
