"""Enrolling: samples are added to subjects, who are made when new."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visavis._moved import former_arguments
from visavis.deploy.gallery.forget_methods import ForgetMethods
from visavis.deploy.gallery.names import clean_name, clean_note
from visavis.deploy.gallery.records import Enrollment, SourceFile, Subject
from visavis.deploy.gallery.retention import DAY, checked_days
from visavis.deploy.gallery.samples import Samples
from visavis.deploy.gallery.subject_rows import add_samples, touch_subject, touch_subjects
from visavis.errors import DataError


class EnrollMethods(ForgetMethods):
    """The part of a gallery that takes samples in."""

    @former_arguments(pictures="images")
    def enroll(
        self,
        name: str,
        embeddings: npt.ArrayLike,
        *,
        weights: npt.ArrayLike | None = None,
        images: Sequence[bytes | None] | None = None,
        crops: Sequence[bytes | None] | None = None,
        sources: Sequence[SourceFile | None] | None = None,
        consent: str = "",
        retention_days: float | None = None,
        threshold: float | None = None,
        same: float | None = None,
    ) -> Enrollment:
        """Add samples to a subject, who is made when new; all or none, on the disk when this returns.

        The subject is then found by the template Σ wᵢ·vᵢ / ‖Σ wᵢ·vᵢ‖ over all samples, and, where these fall apart at
        `threshold` into groups, by one more template for each group but the largest.

        Args:
            name: the subject; Unicode, 1 to 200 characters.
            embeddings: (n, D), or (D,) for one; any length but 0, stored as unit vectors.
            weights: quality of each sample, positive; 1 when None.
            images: digests by which a sample that is already there is recognized and left out.
            crops: encoded pictures to keep; nothing is kept when None.
            sources: the file of each sample.
            consent: why this person may be enrolled; replaces the note of an earlier enrollment when not empty.
            retention_days: erase after so many days from now. None leaves the end of a subject who is there as it is;
                a new one gets the gallery's default. Where every sample is there already, nothing at all changes.
            threshold: the model's calibrated similarity; without it the new samples join the first template.
            same: similarity from which two samples count as one picture, however they were encoded and cut out; None
                tells them apart by `images` and `sources` alone.

        Raises:
            DataError: wrong shape or length, not finite, no valid name; full disk; read-only.
        """
        marks = None if images is None else [self._rows.digest(image) for image in images]
        samples = Samples.checked(self.model.dim, embeddings, weights, marks, crops, sources)
        tidy, note, now = clean_name(name), clean_note(consent), time.time()
        expires = self._expires(now, retention_days)
        self.sweep(threshold=threshold)  # or the samples of a subject whose time is over would come back with the name
        with self._store.write() as db:
            earlier = [self._rows.earlier_digest(image) for image in images or [None] * len(samples.marks)]
            new = self._new(db, tidy, samples, earlier, same)
            if not new:
                return Enrollment(self._find(db, tidy, expired=True), added=0, already=len(samples.marks))
            generation = self._store.next_generation(db)
            subject = touch_subject(
                db, self._rows, tidy, note,
                now=now, expires=expires, generation=generation, renew=retention_days is not None,
            )  # fmt: skip
            add_samples(db, self._rows, [subject] * len(samples.marks), samples, new, now=now)
            self._regroup(db, subject, threshold)
            self._fused(db, [subject])
            row = db.execute(f"{self._columns} WHERE id = ?", (subject,)).fetchone()
        return Enrollment(Subject(*row), added=len(new), already=len(samples.marks) - len(new))

    def enroll_many(
        self, names: Sequence[str], embeddings: npt.NDArray[np.float32], *, consent: str = "", batch: int = 10_000
    ) -> int:
        """Add one sample to each of many subjects, `batch` per transaction; returns how many were added.

        Shapes: embeddings (N, D).

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

    def _expires(self, now: float, days: float | None) -> float | None:
        """When a new subject's time ends."""
        kept = self.retention_days if days is None else checked_days(days)
        return None if kept is None else now + kept * DAY
