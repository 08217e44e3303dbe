"""What can be done with subjects: find, list, rename, keep for longer or shorter, merge."""

from __future__ import annotations

import time

from visavis.deploy.gallery.names import clean_name, clean_note
from visavis.deploy.gallery.records import Merge, Subject
from visavis.deploy.gallery.retention import DAY, checked_days, earliest, joined_notes
from visavis.deploy.gallery.sample_methods import SampleMethods
from visavis.deploy.gallery.subject_rows import shift_templates
from visavis.deploy.gallery.table_access import LIVE
from visavis.errors import DataError


class SubjectMethods(SampleMethods):
    """The part of a gallery that knows subjects."""

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
