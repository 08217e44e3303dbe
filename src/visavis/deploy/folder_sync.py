"""What of a gallery has left the folder it was enrolled from: reported, and erased when asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from visavis.deploy.enrollment import source_file
from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.names import name_key
from visavis.deploy.gallery.records import Forgotten, Sample, Subject, UnknownSubject
from visavis.deploy.gallery.table_access import Progress


@dataclass(frozen=True)
class Departed:
    """Samples of a subject whose files are not there any more; `all` when the subject has no others."""

    subject: Subject
    samples: tuple[Sample, ...]

    @property
    def all(self) -> bool:
        """Whether nothing of the subject would be left."""
        return len(self.samples) == self.subject.samples


def departed(
    gallery: GalleryBase, people: Mapping[str, Sequence[str | os.PathLike[str]]], *, everybody: bool
) -> Iterator[Departed]:
    """Samples that came from files which are in nobody's list any more, by subject; one subject at a time in memory.

    A sample that did not come from a file has not left. A file counts by its digest, so that one of another name, or
    moved to another place of the list, is still there.

    Args:
        gallery: what was enrolled.
        people: subject -> files that are there.
        everybody: also look at subjects who are not in `people`: all of theirs have left.

    Raises:
        OSError: a file cannot be read.
    """
    seen: set[str] = set()
    for name, files in people.items():
        seen.add(name_key(name))
        try:
            subject = gallery.subject(name)
        except UnknownSubject:
            continue
        if gone := gallery.samples_without(subject.id, [source_file(file) for file in files]):
            yield Departed(subject, tuple(gone))
    for number in gallery.subjects_with_files() if everybody else ():
        try:
            subject = gallery.subject(number)
        except UnknownSubject:  # expired, or forgotten meanwhile
            continue
        if name_key(subject.name) not in seen:
            yield Departed(subject, tuple(gallery.samples_without(number, [])))


def erase_departed(
    gallery: GalleryBase,
    gone: Sequence[Departed],
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Erase what has left, subjects of whom nothing would be left altogether; the receipts.

    Args:
        gallery: see `departed`.
        gone: what that found.
        threshold: the model's calibrated similarity, as in `GalleryBase.forget`.
        progress: told what is being done.
    """
    receipts = []
    if whole := [one.subject.id for one in gone if one.all]:
        receipts.append(gallery.forget(*whole, threshold=threshold, progress=progress))
    if some := {one.subject.id: [sample.id for sample in one.samples] for one in gone if not one.all}:
        receipts.append(gallery.forget_samples_of(some, threshold=threshold, progress=progress))
    return receipts
