"""Many generated faces at once, in worker processes; the same pictures whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.machine import usable_cores
from visavis.processes import process_pool
from visavis.synthetic.render import check_request, face
from visavis.types import ByteArray, IntArray, Pairs

_BELOW_MAIN = "a script must start them below `if __name__ == '__main__':`, or draw in its own process with workers=0"
Advance = Callable[[int, int], None]  # (pictures done, pictures in all)
PersonPictures = tuple[ByteArray, npt.NDArray[np.float64]]  # (K, size, size, 3) and landmarks (K, 5, 2)


def person(seed: int, identity: int, pictures: int, *, size: int = 112, difficulty: float = 1.0) -> PersonPictures:
    """All pictures 0 … `pictures` − 1 of one person."""
    drawn = [face(seed, identity, k, size=size, difficulty=difficulty) for k in range(pictures)]
    return np.stack([image for image, _ in drawn]), np.stack([points for _, points in drawn])


def people(
    seed: int, identities: Sequence[int], pictures: int, *, size: int = 112, difficulty: float = 1.0, workers: int = 0
) -> Iterator[PersonPictures]:
    """Draw people in the order of `identities`, with `workers` processes (0 or 1: in this one).

    Raises:
        DataError: a number out of range.
    """
    check_request(seed, min(identities, default=0), 0, size, difficulty)
    if pictures < 1 or not len(identities):
        raise DataError(f"at least 1 identity and 1 picture each, got {len(identities)} and {pictures}")
    tasks = [(seed, int(i), pictures, size, difficulty) for i in identities]
    with process_pool(_drawing, workers=min(workers, len(tasks)), advice=_BELOW_MAIN) as pool:
        yield from pool.map(tasks, chunk=max(1, min(8, len(tasks) // (4 * max(1, workers)))))


def generate(
    seed: int,
    identities: Sequence[int],
    pictures: int,
    *,
    size: int = 112,
    difficulty: float = 1.0,
    workers: int | None = None,
    progress: Advance | None = None,
) -> tuple[ByteArray, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw `pictures` pictures of each of `identities` into memory.

    Picture k of the i-th identity has index i · `pictures` + k, as in `pairs`. `workers` None means one process per
    processor this process may use.

    Returns:
        uint8 (N, size, size, 3) RGB, labels int64 (N,) counting the identities given from 0, landmarks (N, 5, 2).
    """
    total = len(identities) * pictures
    count = usable_cores() if workers is None else workers
    images = np.empty((total, size, size, 3), np.uint8)
    landmarks = np.empty((total, 5, 2))
    done = 0
    for drawn, points in people(seed, identities, pictures, size=size, difficulty=difficulty, workers=count):
        images[done : done + pictures], landmarks[done : done + pictures] = drawn, points
        done += pictures
        if progress is not None:
            progress(done, total)
    return images, np.repeat(np.arange(len(identities), dtype=np.int64), pictures), landmarks


def picture_name(identity: int, picture: int) -> str:
    """The path of a picture below the picture folder, as `visavis synth` writes it."""
    return f"id_{identity:06d}/{picture:03d}.jpg"


def pairs(
    num_identities: int, pictures: int, n_pairs: int, folds: int = 10, seed: int = 0, *, first_identity: int = 0
) -> Pairs:
    """Draw a balanced 1:1 protocol over generated pictures; no identity is in two folds, no pair drawn twice.

    Args:
        num_identities: people, numbered from `first_identity`.
        pictures: of each of them.
        n_pairs: half of them genuine; a multiple of 2 · `folds`.
        folds: parts of equal size.
        seed: of the draw.
        first_identity: number of the first person, for the names.

    Returns:
        Pairs whose images are all pictures in the order of `generate`, so that indices are rows of its arrays.

    Raises:
        DataError: a fold cannot hold that many different pairs.
    """
    if folds < 1 or n_pairs < 1 or n_pairs % (2 * folds):
        nearest = max(1, round(n_pairs / max(1, 2 * folds))) * 2 * max(1, folds)
        raise DataError(f"the number of pairs must be a multiple of 2 × {folds} folds, got {n_pairs}; say {nearest}")
    size = n_pairs // (2 * folds)
    rng = np.random.default_rng(np.random.SeedSequence([seed, num_identities, pictures, n_pairs, folds]))
    rows: list[IntArray] = []
    for group in np.array_split(rng.permutation(num_identities), folds):
        count = len(group)
        genuine, impostor = count * pictures * (pictures - 1) // 2, count * (count - 1) // 2 * pictures * pictures
        if size > genuine or size > impostor:
            raise DataError(
                f"{n_pairs} pairs in {folds} folds want {size} genuine and {size} impostor pairs in each, but "
                f"{count} people with {pictures} pictures give {genuine} and {impostor}; ask for fewer or add people"
            )
        rows += [_draw_genuine(rng, group, pictures, size), _draw_impostor(rng, group, pictures, size)]
    ends = np.concatenate(rows)
    names = tuple(picture_name(first_identity + i, k) for i in range(num_identities) for k in range(pictures))
    return Pairs(
        images=names,
        reference=ends[:, 0],
        probe=ends[:, 1],
        genuine=np.tile(np.repeat([True, False], size), folds),
        fold=np.repeat(np.arange(folds), 2 * size),
    )


def _draw_genuine(rng: np.random.Generator, group: IntArray, pictures: int, size: int) -> IntArray:
    """`size` different pairs of pictures (size, 2), each of one person, people used as evenly as possible."""
    first, second = np.triu_indices(pictures, 1)
    # Every person's pairs in an order of its own; the k-th pairs of all people come before the (k+1)-th.
    order = np.argsort(rng.random((len(group), len(first))), axis=1)
    people = np.stack([rng.permutation(len(group)) for _ in range(-(-size // len(group)))]).ravel()[:size]
    which = order[people, np.arange(size) // len(group)]
    base = group[people] * pictures
    return np.stack([base + first[which], base + second[which]], axis=1)


def _draw_impostor(rng: np.random.Generator, group: IntArray, pictures: int, size: int) -> IntArray:
    """`size` different pairs of pictures (size, 2), each of two people."""
    drawn: dict[tuple[int, int], None] = {}
    while len(drawn) < size:
        a, b = rng.choice(group, 2, replace=False) * pictures + rng.integers(pictures, size=2)
        drawn[(int(min(a, b)), int(max(a, b)))] = None
    return np.array(list(drawn), np.int64)


def _drawing() -> Callable[[tuple[int, int, int, int, float]], PersonPictures]:
    return _person


def _person(task: tuple[int, int, int, int, float]) -> PersonPictures:
    seed, identity, pictures, size, difficulty = task
    return person(seed, identity, pictures, size=size, difficulty=difficulty)
