"""Batches for the loop: sampled, augmented and copied ahead of need by threads, the same whatever their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis import seeding
from visavis.data.augment.augmentation import Augmentation
from visavis.data.samplers import Sampler
from visavis.train.dataset import ImageDataset
from visavis.types import ByteArray, IntArray, Triplets
from visavis.vision.preprocessing import PreprocessSpec, cut_frame


@dataclass(frozen=True)
class Batch:
    """Pixels uint8 (B, H, W, 3) in the network's size, still RGB, labels (B,), and the same pictures for a teacher.

    `triplets` index the batch where a pool was mined for them.
    """

    pixels: Tensor
    labels: Tensor
    teacher: Tensor | None = None
    triplets: Triplets | None = None


class Loader:
    """Batch number i is a pure function of (seed, i, rank), and the global batch of (seed, i) alone.

    Resuming at step i needs no state of its own, and how many ranks share a batch changes no pixel of it.

    Args:
        images: what to take from.
        sampler: which indices form batch i.
        augmentation: changes each picture.
        spec: the network's input.
        seed: of the augmentation.
        workers: threads that prepare batches (OpenCV works outside the interpreter's lock); 0 prepares in place.
        teacher_spec: the input of a teacher that is to see the same changed pictures.
    """

    def __init__(
        self,
        images: ImageDataset,
        sampler: Sampler,
        augmentation: Augmentation,
        spec: PreprocessSpec,
        *,
        seed: int,
        workers: int = 2,
        teacher_spec: PreprocessSpec | None = None,
    ) -> None:
        self.images, self.sampler, self.augmentation, self.spec = images, sampler, augmentation, spec
        self.seed, self.workers, self.teacher_spec = seed, workers, teacher_spec

    def batch(self, number: int) -> Batch:
        """Prepare batch `number`."""
        place = self.sampler.place(number)
        # The same draws on every rank, each taking those of its own pictures: how many ranks there are changes nothing.
        return self._prepare(self.sampler.batch(number), (place.step, 0), first=place.first, total=place.total)

    def prepare(self, indices: IntArray, number: int) -> Batch:
        """Read the pictures at `indices`, which no other rank knows of, and change them as those of batch `number`.

        Shapes: `indices` (B,).
        """
        return self._prepare(indices, (number, self.sampler.rank), first=0, total=len(indices))

    def _prepare(self, indices: IntArray, counters: tuple[int, int], *, first: int, total: int) -> Batch:
        images = self.images.take(indices)

        def changed(framed: ByteArray, size: tuple[int, int]) -> Tensor:
            rng = seeding.generator(self.seed, "augmentation", *counters)
            return torch.from_numpy(self.augmentation(framed, rng, size=size, first=first, total=total))

        framed = cut_frame(images, self.spec)
        pixels = changed(framed, self.spec.size)
        teacher = None
        if self.teacher_spec is not None:  # the same draws, in the teacher's size
            wanted, its = self.teacher_spec.size, cut_frame(images, self.teacher_spec)
            same = wanted == self.spec.size and its.shape == framed.shape
            teacher = pixels if same else changed(its, wanted)
        return Batch(pixels, torch.from_numpy(self.images.labels[indices].astype(np.int64)), teacher)

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... without end."""
        number = start
        if not self.workers:
            while True:
                yield self.batch(number)
                number += 1
        pool = ThreadPoolExecutor(self.workers, "loader")
        ahead: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(ahead) < 2 * self.workers:
                    ahead.append(pool.submit(self.batch, number))
                    number += 1
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
            pool.shutdown(wait=True)


class Normalizer:
    """(pixel − mean) / std into one reused channels-last buffer on the device: (B, H, W, 3) uint8 → (B, 3, H, W)."""

    def __init__(self, spec: PreprocessSpec, device: torch.device, *, channels_last: bool = True) -> None:
        self.device = device
        self.reverse = spec.channels == "BGR"
        self.mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self.scale = 1 / torch.tensor(spec.std, device=device).view(1, 3, 1, 1)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.buffer = torch.empty(0)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalize; the result is valid until the next call."""
        planes = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        if self.buffer.shape != planes.shape:
            self.buffer = torch.empty(planes.shape, device=self.device, memory_format=self.format)
        self.buffer.copy_(planes.flip(1) if self.reverse else planes)
        return self.buffer.sub_(self.mean).mul_(self.scale)
