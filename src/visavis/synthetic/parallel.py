"""Many generated faces at once, in worker processes; the same pictures whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from visavis._moved import former_arguments
from visavis.errors import DataError
from visavis.machine import usable_cores
from visavis.processes import process_pool
from visavis.synthetic.render import check_request, face
from visavis.types import ByteArray, IntArray, Pairs

_BELOW_MAIN = "a script must start them below `if __name__ == '__main__':`, or draw in its own process with workers=0"
Advance = Callable[[int, int], None]  # (pictures done, pictures in all)
PersonImages = tuple[ByteArray, npt.NDArray[np.float64]]  # (K, size, size, 3) and landmarks (K, 5, 2)


@former_arguments(pictures="images_per_identity")
def person(
    seed: int, identity: int, images_per_identity: int, *, size: int = 112, difficulty: float = 1.0
) -> PersonImages:
    """All pictures 0 … `images_per_identity` − 1 of one person."""
    drawn = [face(seed, identity, k, size=size, difficulty=difficulty) for k in range(images_per_identity)]
    return np.stack([image for image, _ in drawn]), np.stack([points for _, points in drawn])


@former_arguments(pictures="images_per_identity")
def people(
    seed: int,
    identities: Sequence[int],
    images_per_identity: int,
    *,
    size: int = 112,
    difficulty: float = 1.0,
    workers: int = 0,
) -> Iterator[PersonImages]:
    """Draw people in the order of `identities`, with `workers` processes (0 or 1: in this one).

    Raises:
        DataError: a number out of range.
    """
    check_request(seed, min(identities, default=0), 0, size, difficulty)
    if images_per_identity < 1 or not len(identities):
        raise DataError(f"at least 1 identity and 1 picture each, got {len(identities)} and {images_per_identity}")
    tasks = [(seed, int(i), images_per_identity, size, difficulty) for i in identities]
    with process_pool(_drawing, workers=min(workers, len(tasks)), advice=_BELOW_MAIN) as pool:
        yield from pool.map(tasks, chunk=max(1, min(8, len(tasks) // (4 * max(1, workers)))))


@former_arguments(pictures="images_per_identity")
def generate(
    seed: int,
    identities: Sequence[int],
    images_per_identity: int,
    *,
    size: int = 112,
    difficulty: float = 1.0,
    workers: int | None = None,
    progress: Advance | None = None,
) -> tuple[ByteArray, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw `images_per_identity` pictures of each of `identities` into memory.

    Picture k of the i-th identity has index i · `images_per_identity` + k, as in `pairs`. `workers` None means one
    process per processor this process may use.

    Returns:
        uint8 (N, size, size, 3) RGB, labels int64 (N,) counting the identities given from 0, landmarks (N, 5, 2).
    """
    total = len(identities) * images_per_identity
    count = usable_cores() if workers is None else workers
    images = np.empty((total, size, size, 3), np.uint8)
    landmarks = np.empty((total, 5, 2))
    done = 0
    for drawn, points in people(seed, identities, images_per_identity, size=size, difficulty=difficulty, workers=count):
        images[done : done + images_per_identity], landmarks[done : done + images_per_identity] = drawn, points
        done += images_per_identity
        if progress is not None:
            progress(done, total)
    return images, np.repeat(np.arange(len(identities), dtype=np.int64), images_per_identity), landmarks


def image_name(identity: int, image: int) -> str:
    """The path of a picture below the picture folder, as `visavis synth` writes it."""
    return f"id_{identity:06d}/{image:03d}.jpg"


@former_arguments(pictures="images_per_identity")
def pairs(
    num_identities: int,
    images_per_identity: int,
    n_pairs: int,
    folds: int = 10,
    seed: int = 0,
    *,
    first_identity: int = 0,
) -> Pairs:
    """Draw a balanced 1:1 protocol over generated pictures; no identity is in two folds, no pair drawn twice.

    Args:
        num_identities: people, numbered from `first_identity`.
        images_per_identity: of each of them.
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
    rng = np.random.default_rng(np.random.SeedSequence([seed, num_identities, images_per_identity, n_pairs, folds]))
    rows: list[IntArray] = []
    for group in np.array_split(rng.permutation(num_identities), folds):
        count = len(group)
        genuine = count * images_per_identity * (images_per_identity - 1) // 2
        impostor = count * (count - 1) // 2 * images_per_identity * images_per_identity
        if size > genuine or size > impostor:
            raise DataError(
                f"{n_pairs} pairs in {folds} folds want {size} genuine and {size} impostor pairs in each, but "
                f"{count} people with {images_per_identity} pictures give {genuine} and {impostor}; ask for "
                "fewer or add people"
            )
        rows += [
            _draw_genuine(rng, group, images_per_identity, size),
            _draw_impostor(rng, group, images_per_identity, size),
        ]
    ends = np.concatenate(rows)
    names = tuple(image_name(first_identity + i, k) for i in range(num_identities) for k in range(images_per_identity))
    return Pairs(
        images=names,
        reference=ends[:, 0],
        probe=ends[:, 1],
        genuine=np.tile(np.repeat([True, False], size), folds),
        fold=np.repeat(np.arange(folds), 2 * size),
    )


def _draw_genuine(rng: np.random.Generator, group: IntArray, images_per_identity: int, size: int) -> IntArray:
    """`size` different pairs of pictures (size, 2), each of one person, people used as evenly as possible."""
    first, second = np.triu_indices(images_per_identity, 1)
    # Every person's pairs in an order of its own; the k-th pairs of all people come before the (k+1)-th.
    order = np.argsort(rng.random((len(group), len(first))), axis=1)
    people = np.stack([rng.permutation(len(group)) for _ in range(-(-size // len(group)))]).ravel()[:size]
    which = order[people, np.arange(size) // len(group)]
    base = group[people] * images_per_identity
    return np.stack([base + first[which], base + second[which]], axis=1)


def _draw_impostor(rng: np.random.Generator, group: IntArray, images_per_identity: int, size: int) -> IntArray:
    """`size` different pairs of pictures (size, 2), each of two people."""
    drawn: dict[tuple[int, int], None] = {}
    while len(drawn) < size:
        a, b = rng.choice(group, 2, replace=False) * images_per_identity + rng.integers(images_per_identity, size=2)
        drawn[(int(min(a, b)), int(max(a, b)))] = None
    return np.array(list(drawn), np.int64)


def _drawing() -> Callable[[tuple[int, int, int, int, float]], PersonImages]:
    return _person


def _person(task: tuple[int, int, int, int, float]) -> PersonImages:
    seed, identity, images_per_identity, size, difficulty = task
    return person(seed, identity, images_per_identity, size=size, difficulty=difficulty)
