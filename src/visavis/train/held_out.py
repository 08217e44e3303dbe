"""Identities kept out of training to be judged by: the same of a folder in every run, whatever its seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis import seeding
from visavis.data.sources.base import Source
from visavis.data.text import listable
from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.types import Pairs

FILE = "held_out.txt"
FEWEST = 4  # two folds of two people: fewer give no folds without a person in common
PAIRS = 3000
_FOLDS = 10


def split_identities(source: Source, share: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the identities to train on, and of those held out: a share of all with two pictures or more.

    Who is held out follows from the names alone, so that runs of other seeds, and a fine-tuning of what a run gave,
    hold the same people out of the same folder; somebody who joins it moves nobody else but at the share's edge.

    Args:
        source: all pictures; its labels are taken to be right.
        share: in (0, 1); at least four identities are held out.

    Raises:
        DataError: fewer than six identities have two pictures: four to judge by and two to train on.
    """
    counts = np.bincount(source.labels, minlength=len(source.identities))
    able = [name for name, count in zip(source.identities, counts, strict=True) if count >= 2]
    if len(able) < FEWEST + 2:
        raise DataError(
            f"{source.path}: data.held_out wants {FEWEST + 2} identities with two pictures or more, got {len(able)}; "
            "train on all of them with --data.held_out 0"
        )
    wanted = min(max(FEWEST, round(share * len(able))), len(able) - 2)
    held = set(sorted(able, key=_place)[:wanted])
    trained = tuple(name for name in source.identities if name not in held)
    return trained, tuple(name for name in source.identities if name in held)


def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def write_held_out(run: Path, people: Sequence[str]) -> None:
    """Name in the run folder who was held out, one a line, as `--identities FILE` takes it.

    Raises:
        DataError: a name that no line can hold.
    """
    listable(people, FILE)
    write_atomically(run / FILE, "".join(f"{name}\n" for name in people).encode())


def draw_pairs(source: Source, *, count: int = PAIRS) -> Pairs:
    """As many genuine as impostor pairs of a source's pictures, `count` at most; nobody is in two folds.

    Genuine pairs are drawn person by person in turn, or whoever has most pictures would have most of them.
    """
    people = [np.flatnonzero(source.labels == label) for label in range(len(source.identities))]
    folds = min(_FOLDS, len(people) // 2)
    rng = seeding.generator(0, "held-out pairs")
    order = rng.permutation(len(people))
    rows: list[tuple[int, int, bool, int]] = []
    for fold in range(folds):
        members = [people[int(i)] for i in order[fold::folds]]
        genuine = _genuine(members, count // (2 * folds), rng)
        impostor = _impostor(members, len(genuine), rng)
        genuine = genuine[: len(impostor)]
        rows += [(a, b, True, fold) for a, b in genuine] + [(a, b, False, fold) for a, b in impostor]
    used = sorted({image for row in rows for image in row[:2]})
    index = {image: i for i, image in enumerate(used)}
    reference, probe = (np.array([index[row[side]] for row in rows], np.int64) for side in (0, 1))
    return Pairs(
        tuple(source.names[image] for image in used),
        reference,
        probe,
        np.array([row[2] for row in rows], bool),
        np.array([row[3] for row in rows], np.int64),
    )


def _genuine(members: list[np.ndarray], most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    waiting = []
    for images in members:
        first, second = np.triu_indices(
            min(len(images), 64), 1
        )  # of a person's pictures 64, or clips would fill memory
        shuffled = rng.permutation(images)
        order = rng.permutation(len(first))
        waiting.append([(int(shuffled[first[i]]), int(shuffled[second[i]])) for i in order])
    drawn: list[tuple[int, int]] = []
    while len(drawn) < most and any(waiting):
        drawn += [pairs.pop() for pairs in waiting if pairs]
    return drawn[:most]


def _impostor(members: list[np.ndarray], most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Distinct pairs of pictures of two people each, every two people alike likely."""
    drawn: dict[tuple[int, int], None] = {}
    for _ in range(20 * most):
        if len(drawn) == most:
            break
        a, b = sorted(rng.choice(len(members), 2, replace=False).tolist())
        drawn[int(rng.choice(members[a])), int(rng.choice(members[b]))] = None
    return list(drawn)
