"""Writing and reading the rows of subjects and samples in a gallery's file; call inside a transaction of its store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from visavis.deploy.gallery.names import name_key
from visavis.deploy.gallery.records import SourceFile, damaged_sample, damaged_subject
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.samples import Samples
from visavis.deploy.gallery.schema import columns


def touch_subject(
    db: Any,
    rows: Rows,
    name: str,
    consent: str,
    *,
    now: float,
    expires: float | None,
    generation: int,
    renew: bool,
) -> int:
    """Make a subject, or note a change of one who is there; `renew` gives that one the new end too. Returns the id."""
    label = rows.label(name_key(name))
    row = db.execute(f"SELECT {columns('subjects')} FROM subjects WHERE key = ?", (label,)).fetchone()
    if row is None:
        number = rows.next_id(db, "subjects")
        texts = [rows.encrypt_text(t, "subjects", c, number) for c, t in (("name", name), ("consent", consent))]
        rows.insert(db, "subjects", [(number, label, *texts, now, expires, generation)])
        return number
    number, _, stored, note, created, end, _, checksum = row
    if checksum != rows.checksum("subjects", row[:-1]):
        raise damaged_subject(number)
    note = rows.encrypt_text(consent, "subjects", "consent", number) if consent else note
    values = (number, label, stored, note, created, expires if renew else end, generation)
    db.execute(
        "UPDATE subjects SET consent = ?, expires = ?, changed = ?, checksum = ? WHERE id = ?",
        (*values[3:4], *values[5:], rows.checksum("subjects", values), number),
    )
    return number


def touch_subjects(
    db: Any, rows: Rows, names: Sequence[str], consent: str, *, now: float, expires: float | None, generation: int
) -> list[int]:
    """`touch_subject` for many names, those who are new in one statement. Returns the id of each."""
    labels = [rows.label(name_key(name)) for name in names]
    there: dict[str, int] = {}
    for start in range(0, len(labels), 500):
        part = labels[start : start + 500]
        found = db.execute(f"SELECT key, id FROM subjects WHERE key IN ({','.join('?' * len(part))})", part)
        there.update(found.fetchall())
    for name, label in zip(names, labels, strict=True):
        if label in there:
            touch_subject(db, rows, name, consent, now=now, expires=expires, generation=generation, renew=False)
    fresh, number = [], 0
    for name, label in zip(names, labels, strict=True):
        if label in there:
            continue
        number = there[label] = number + 1 if number else rows.next_id(db, "subjects")
        texts = [rows.encrypt_text(t, "subjects", c, number) for c, t in (("name", name), ("consent", consent))]
        fresh.append((number, label, *texts, now, expires, generation))
    if fresh:
        rows.insert(db, "subjects", fresh)
    return [there[label] for label in labels]


def add_samples(
    db: Any, rows: Rows, subjects: Sequence[int], samples: Samples, which: Iterable[int], *, now: float
) -> None:
    """Write the samples at the positions `which`, each for the subject of the same position in `subjects`."""
    first = rows.next_id(db, "samples")
    fresh = []
    for number, i in enumerate(which, first):
        source = samples.sources[i]
        weight = float(samples.weights[i])
        row = (
            number,
            subjects[i],
            0,
            rows.encrypt(samples.vectors[i].tobytes(), "samples", "vector", number),
            weight,
            weight if samples.rated else None,
            samples.marks[i],
            None if source is None else rows.digest(source.digest),
            None if source is None else rows.encrypt_text(source.name, "samples", "source_name", number),
            now,
        )
        fresh.append(rows.with_crop(row, samples.crops[i], "samples"))
    rows.insert(db, "samples", fresh)


def change_subject(db: Any, rows: Rows, subject: int, generation: int) -> None:
    """Note that a subject's row, or the samples it stands for, were changed on purpose."""
    db.execute("UPDATE subjects SET changed = ? WHERE id = ?", (generation, subject))
    rows.resum(db, "subjects", "id = ?", (subject,))


def move_samples(db: Any, rows: Rows, samples: Sequence[int], subject: int) -> None:
    """Give samples to another subject.

    Raises:
        StorageError: one of them is damaged.
    """
    check_samples(db, rows, samples)
    for sample in samples:
        db.execute("UPDATE samples SET subject = ? WHERE id = ?", (subject, sample))
        rows.resum(db, "samples", "id = ?", (sample,))


def set_templates(db: Any, rows: Rows, numbers: Mapping[int, int]) -> None:
    """Say of samples which template of their subject they are part of.

    Raises:
        StorageError: one of them is damaged.
    """
    check_samples(db, rows, list(numbers))
    for sample, number in numbers.items():
        db.execute("UPDATE samples SET template = ? WHERE id = ?", (number, sample))
        rows.resum(db, "samples", "id = ?", (sample,))


def set_source(db: Any, rows: Rows, sample: int, source: SourceFile) -> None:
    """Say which file a sample came from.

    Raises:
        StorageError: it is damaged.
    """
    check_samples(db, rows, [sample])
    name = rows.encrypt_text(source.name, "samples", "source_name", sample)
    db.execute(
        "UPDATE samples SET source = ?, source_name = ? WHERE id = ?", (rows.digest(source.digest), name, sample)
    )
    rows.resum(db, "samples", "id = ?", (sample,))


def shift_templates(db: Any, rows: Rows, subject: int, *, beyond: int) -> None:
    """Number the further templates of a subject so that they stay apart from those of the subject `beyond`."""
    last = db.execute("SELECT max(template) FROM samples WHERE subject = ?", (beyond,)).fetchone()[0] or 0
    query = "SELECT id, template FROM samples WHERE subject = ? AND template > 0"
    set_templates(db, rows, {row[0]: row[1] + last for row in db.execute(query, (subject,)).fetchall() if last})


def check_subjects(db: Any, rows: Rows, subjects: Sequence[int]) -> None:
    """Raise StorageError when the row of one of the subjects is damaged."""
    for number in rows.damaged_of(db, "subjects", subjects):
        raise damaged_subject(number)


def check_samples(db: Any, rows: Rows, samples: Sequence[int]) -> None:
    """Raise StorageError when one of the samples, or its crop, is damaged."""
    for number in rows.damaged_of(db, "samples", samples):
        row = db.execute("SELECT subject FROM samples WHERE id = ?", (number,)).fetchone()
        raise damaged_sample(number, row[0])
