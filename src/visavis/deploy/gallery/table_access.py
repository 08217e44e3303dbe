"""A gallery's tables as its methods see them, wherever the rows are kept; SQL here marks its values with `?`."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.names import MAX_NAME, name_key
from visavis.deploy.gallery.records import Forgotten, Subject, UnknownSubject
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.subject_rows import change_subject, check_samples, check_subjects, move_samples
from visavis.errors import DataError

LIVE = "(expires IS NULL OR expires > ?)"
Progress = Callable[[str], None]


class TableAccess(ABC):
    """Finding and changing rows; a gallery of a kind opens the store and says how it deletes."""

    path: str | os.PathLike[str]
    model: ModelIdentity
    _store: Any  # `Store` or `PostgresStore`
    _rows: Rows
    # How the tables give a subject's name and consent note, whether a name contains a text, and the order of names.
    _name = "name"
    _consent = "consent"
    _contains = "instr(fold(name), fold(?))"
    _order = "name"

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

    @property
    def store(self) -> Any:
        """The file or schema underneath, for the modules that export, cluster and measure."""
        return self._store

    @property
    def rows(self) -> Rows:
        """How the rows are encrypted and summed, for the modules that write some."""
        return self._rows

    def everybody(self, db: Any) -> list[Subject]:
        """All subjects by id, also those whose time is over, for a reader that holds `store.read()`."""
        return [Subject(*row) for row in db.execute(f"{self._columns} ORDER BY id")]

    def _label(self, name: str) -> str:
        """What the column `key`, by which a subject is found, holds for a name."""
        return self._rows.label(name_key(name))

    def _stored(self, name: str | None, consent: str | None, subject: int) -> dict[str, Any]:
        """Columns and values that hold a name and a consent note of a subject."""
        values: dict[str, Any] = {} if name is None else {"key": self._label(name)}
        for column, text in (("name", name), ("consent", consent)):
            if text is not None:
                values[column] = self._rows.encrypt_text(text, "subjects", column, subject)
        return values

    def _whole(self, db: Any, subjects: Sequence[int]) -> None:
        """Raise StorageError when the row of one of the subjects is damaged."""
        check_subjects(db, self._rows, subjects)

    def _move(self, db: Any, samples: Sequence[int], subject: int) -> None:
        """Give samples to another subject; call `_changed` for both after it."""
        move_samples(db, self._rows, samples, subject)

    def _unsealed(self, db: Any, crop: bytes, sample: int) -> bytes:
        check_samples(db, self._rows, [sample])
        return self._rows.decrypt(crop, "samples", "crop", sample)

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

    def _fused(self, db: Any, subjects: Sequence[int]) -> None:  # noqa: B027
        """Renew what the store itself keeps of subjects' templates."""

    @property
    def _columns(self) -> str:
        count = "(SELECT count(*) FROM samples WHERE subject = subjects.id)"
        return f"SELECT id, {self._name}, {count}, {self._consent}, created, expires FROM subjects"

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

    def _names(self, db: Any, ids: set[int]) -> dict[int, str]:
        """Names of those of the subjects that exist."""
        wanted, names = sorted(ids), {}
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            self._whole(db, part)
            names |= dict(db.execute(f"SELECT id, {self._name} FROM subjects WHERE id IN ({marks})", part).fetchall())
        return names
