"""Which pictures form which batch: a pure function of (seed, step, rank, world), so that resuming needs no state.

Every rank computes the same order from the seed and takes its own part of each global batch. The parts are disjoint
and, put together in rank order, are the batch one process with the global batch size would take: how many ranks share
the work does not change what is learned from when.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from visavis import seeding
from visavis.errors import DataError, RecipeError
from visavis.types import IntArray


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise RecipeError(f"{name} must be at least 1, got {value}")
    return value


@dataclass(frozen=True)
class Place:
    """Pictures `first`, `first` + 1 … of the `total` of global batch `step`."""

    step: int
    first: int
    total: int


class Sampler(ABC):
    """Batches of picture indices without end: batch b belongs to epoch b // batches_per_epoch.

    `accumulate` batches of each rank make up one global batch: batch b of a rank is part b % accumulate of its share of
    global batch b // accumulate. RankGroup × accumulate parts, put together, are the same whatever the two factors.
    """

    def __init__(self, labels: npt.ArrayLike, *, seed: int, rank: int, world: int, accumulate: int = 1) -> None:
        self.labels: IntArray = np.asarray(labels)
        if self.labels.ndim != 1 or not np.issubdtype(self.labels.dtype, np.integer) or not len(self.labels):
            raise DataError(
                f"a sampler wants a non-empty vector of whole-number labels, got shape {self.labels.shape} "
                f"of {self.labels.dtype}"
            )
        if not 0 <= rank < _positive("world", world):
            raise RecipeError(f"rank must lie in [0, {world}) for a world of {world}, got {rank}")
        if seed < 0:
            raise RecipeError(f"seed must be 0 or more, got {seed}")
        self.seed, self.rank, self.world = seed, rank, world
        self.accumulate = _positive("accumulate", accumulate)
        self._order: tuple[int, IntArray] = (-1, np.empty(0, np.int64))
        self._drawing = threading.Lock()

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Batches of a rank that one pass takes; the same on every rank."""

    @abstractmethod
    def _batch(self, epoch: int, index: int) -> IntArray:
        """The part this rank takes of batch `index` of `epoch`."""

    def __len__(self) -> int:
        return self.batches_per_epoch

    def batch(self, step: int) -> IntArray:
        """Picture indices (B,) int64 of batch `step` of this rank (0, 1, 2 ... across epochs)."""
        if step < 0:
            raise RecipeError(f"step must be 0 or more, got {step}")
        return self._batch(*divmod(step, self.batches_per_epoch))

    def place(self, step: int) -> Place:
        """Where the pictures of batch `step` of this rank stand in the global batch they are part of."""
        epoch, index = divmod(step, self.batches_per_epoch)
        sizes = self._sizes(epoch, index)
        part = self._place(index)[1]
        return Place(step // self.accumulate, int(sizes[:part].sum()), int(sizes.sum()))

    @abstractmethod
    def _sizes(self, epoch: int, index: int) -> IntArray:
        """Pictures in each part of the global batch that batch `index` of `epoch` belongs to."""

    def epoch(self, number: int, *, start: int = 0) -> Iterator[IntArray]:
        """Yield the batches of epoch `number`, from its batch `start` on; indices (B,)."""
        for index in range(start, self.batches_per_epoch):
            yield self._batch(number, index)

    def _place(self, index: int) -> tuple[int, int]:
        """Which global batch of the epoch, and which of its world · accumulate parts."""
        step, part = divmod(index, self.accumulate)
        return step, self.rank * self.accumulate + part

    def _permutation(self, epoch: int, length: int) -> IntArray:
        """The epoch's order of `length` things, kept until another epoch is asked for."""
        with self._drawing:  # the loader's threads all ask for a new epoch at once
            cached, order = self._order
            if cached != epoch:
                order = seeding.generator(self.seed, "order", epoch).permutation(length)
                self._order = (epoch, order)
        return order


@final
class Shuffled(Sampler):
    """Every picture once per epoch, in an order drawn anew for each epoch.

    Args:
        labels: (N,) whole numbers; only their count matters here.
        batch_size: pictures per rank and batch; the global batch is `batch_size * world * accumulate`.
        seed: 0 or more; with it the order of every epoch is fixed.
        drop_last: leave out the pictures that do not fill a global batch (others every epoch). Without it the last
            batch is shared out as evenly as can be: ranks may get unequal parts, even none.
        rank: number of this process, 0 ... world - 1.
        world: number of processes.
        accumulate: batches of a rank that make up its part of one global batch.

    Raises:
        DataError: fewer pictures than one global batch while `drop_last`.
        RecipeError: a size below 1, or a rank outside the world.
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        *,
        batch_size: int,
        seed: int,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__(labels, seed=seed, rank=rank, world=world, accumulate=accumulate)
        self.batch_size = _positive("batch_size", batch_size)
        self.drop_last = drop_last
        self._global = batch_size * world * accumulate
        if drop_last and len(self.labels) < self._global:
            raise DataError(
                f"expected at least one batch of {self._global} pictures, got {len(self.labels)}: lower the batch size "
                f"to {len(self.labels) // (world * accumulate) * world * accumulate} or add pictures"
            )

    @property
    def batches_per_epoch(self) -> int:
        """`accumulate` times ⌊N / global batch⌋ with `drop_last`, ⌈N / global batch⌉ without."""
        n = len(self.labels)
        return self.accumulate * (n // self._global if self.drop_last else -(-n // self._global))

    def _batch(self, epoch: int, index: int) -> IntArray:
        order = self._permutation(epoch, len(self.labels))
        step, place = self._place(index)
        whole = order[step * self._global : (step + 1) * self._global]
        begin, end = self._cuts(len(whole))[place : place + 2]
        return whole[begin:end].copy()

    def _sizes(self, epoch: int, index: int) -> IntArray:
        step = self._place(index)[0]
        return np.diff(self._cuts(min(self._global, len(self.labels) - step * self._global)))

    def _cuts(self, images: int) -> IntArray:
        """Where the parts of a global batch begin and end, as even as can be."""
        parts = self.world * self.accumulate
        return np.arange(parts + 1) * images // parts


@final
class PxK(Sampler):
    """P identities with K pictures each per rank and step: what mining triplets in a batch needs (row M2).

    Identities are shuffled per pass and all are visited; each visit draws K of its pictures without putting back.
    Differs from the reference: the last batch of a pass is filled up from the start of the same pass instead of the
    next one, so that no batch ever holds an identity twice (there, a picture could become its own positive).

    Args:
        labels: (N,) identity of each picture, any whole numbers.
        classes_per_batch: P, identities per rank and batch; the global batch has P * world * accumulate.
        images_per_class: K.
        seed: 0 or more.
        repeat: draw again from an identity with fewer than K pictures until it has K; else it gives what it has.
        min_images: identities with fewer pictures are left out; `left_out` counts them. 2 leaves out those that can
            form no genuine pair.
        rank: number of this process, 0 ... world - 1.
        world: number of processes.
        accumulate: batches of a rank that make up its part of one global batch.

    Raises:
        DataError: fewer identities (with `min_images` pictures) than a global batch has.
        RecipeError: a size below 1, or a rank outside the world.
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        *,
        classes_per_batch: int,
        images_per_class: int,
        seed: int,
        repeat: bool = False,
        min_images: int = 1,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__(labels, seed=seed, rank=rank, world=world, accumulate=accumulate)
        self.classes_per_batch = _positive("classes_per_batch", classes_per_batch)
        self.images_per_class = _positive("images_per_class", images_per_class)
        self.repeat = repeat
        _, counts = np.unique(self.labels, return_counts=True)
        ends = np.cumsum(counts)
        keep = counts >= _positive("min_images", min_images)
        self._by_class: IntArray = np.argsort(self.labels, kind="stable")
        self._begin, self._end = (ends - counts)[keep], ends[keep]
        self.num_classes = int(keep.sum())
        self.left_out = len(keep) - self.num_classes
        self._global = classes_per_batch * world * accumulate
        if self.num_classes < self._global:
            left = f" ({self.left_out} more have fewer than {min_images} pictures)" if self.left_out else ""
            raise DataError(
                f"expected at least {self._global} identities for a batch, got {self.num_classes}{left}: lower the "
                f"batch size to {self.num_classes // (world * accumulate) * world * accumulate} identities"
            )

    @property
    def batches_per_epoch(self) -> int:
        """`accumulate` times ⌈identities / global batch⌉: every identity at least once."""
        return self.accumulate * -(-self.num_classes // self._global)

    def _batch(self, epoch: int, index: int) -> IntArray:
        step, place = self._place(index)
        classes = self._classes(epoch, step)
        # One stream per global batch, drawn by every rank from its start: the same pictures however it is shared.
        rng = seeding.generator(self.seed, "images of identities", epoch, step)
        last = (place + 1) * self.classes_per_batch
        drawn = [self._draw(rng, chosen) for chosen in classes[:last]]
        return np.concatenate(drawn[place * self.classes_per_batch :])

    def _classes(self, epoch: int, step: int) -> IntArray:
        """The identities of a global batch."""
        places = np.arange(step * self._global, (step + 1) * self._global) % self.num_classes
        return self._permutation(epoch, self.num_classes)[places]

    def _sizes(self, epoch: int, index: int) -> IntArray:
        classes = self._classes(epoch, self._place(index)[0])
        have = self._end[classes] - self._begin[classes]
        given = np.full(len(classes), self.images_per_class) if self.repeat else np.minimum(have, self.images_per_class)
        return given.reshape(-1, self.classes_per_batch).sum(1)

    def _draw(self, rng: np.random.Generator, chosen: int) -> IntArray:
        begin, end = int(self._begin[chosen]), int(self._end[chosen])
        k, n = self.images_per_class, end - begin
        picked = rng.choice(n, min(k, n), replace=False)
        if self.repeat and n < k:
            # Whole rounds first, so that no picture comes more than once oftener than another.
            picked = np.concatenate([picked, *(rng.permutation(n) for _ in range(-(-k // n) - 1))])[:k]
        return self._by_class[begin + picked]
