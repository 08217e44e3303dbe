"""Whose the faces of a library are: grouped anew by every run, around what somebody said, under numbers that stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.clustering import average_linkage, neighbor_graph
from visavis.deploy.photo_library.store import LibraryStore

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grouping:
    """How many people there are, the faces that are theirs, those too few to be a person's, and the poor ones."""

    people: int
    faces: int
    alone: int
    poor: int


def group_faces(store: LibraryStore, threshold: float, *, min_size: int = 2) -> Grouping:
    """Group all faces at a similarity (see `clustering.cluster`) and keep whose each one is.

    Faces that somebody said are one person's are together, those said to be two people's apart. A group goes on as the
    person most of whose faces it holds, so that numbers and names stay when pictures are added. Poor faces (too small,
    blurred, cut off ...; see `quality`) are not grouped: they are all alike. Of LFW's photographs 104 of 156 faces in
    the background are poor, and 64 of them made the largest group.

    Args:
        store: holds the faces.
        threshold: the model's calibrated similarity.
        min_size: a group of fewer faces is nobody's, unless somebody said it is a person.
    """
    found = store.vectors()
    numbers, before, told, vectors = found.numbers, found.people, found.told, found.rows
    known = np.where(told, before, -1)
    labels = average_linkage(vectors, neighbor_graph(vectors, threshold), threshold, known=known)
    groups, sizes = np.unique(labels, return_counts=True)
    said = np.zeros(len(groups), bool)
    said[labels[told]] = True
    kept = said | (sizes >= min_size)
    with store.transaction() as db:
        person = _continued(labels, before, told, kept)
        fresh = np.flatnonzero(kept & (person < 0))
        for group in fresh[np.argsort(-sizes[fresh], kind="stable")].tolist():  # the largest gets the lowest number
            person[group] = store.new_person()
        now = person[labels]
        changed = np.flatnonzero(now != before)
        db.executemany(
            "UPDATE faces SET person = ? WHERE id = ?",
            [(None if now[i] < 0 else int(now[i]), int(numbers[i])) for i in changed.tolist()],
        )
        db.execute("DELETE FROM people WHERE id NOT IN (SELECT person FROM faces WHERE person IS NOT NULL)")
    faces = int(sizes[kept].sum())
    return Grouping(int(kept.sum()), faces, len(numbers) - faces, store.poor())


def _continued(labels: Numbers, before: Numbers, told: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]) -> Numbers:
    """The person each group goes on as, −1 for none: those told first, then by the number of faces in common."""
    person = np.full(len(kept), -1, np.int64)
    person[labels[told]] = before[told]
    taken = set(before[told].tolist())
    shared = Counter(zip(labels[before >= 0].tolist(), before[before >= 0].tolist(), strict=True))
    for (group, old), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0][1], item[0][0])):
        if kept[group] and person[group] < 0 and old not in taken:
            person[group] = old
            taken.add(old)
    return person
