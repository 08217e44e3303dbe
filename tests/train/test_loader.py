"""Batches: the pictures and their changes are those of one process, however many ranks and parts share them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from visavis.data.augment.augmentation import Augmentation
from visavis.data.samplers import PxK, Shuffled
from visavis.train.loader import Loader
from visavis.vision.preprocessing import PreprocessSpec

EVERYTHING = Augmentation(
    shift=0.1, scale=0.1, rotate=10, brightness=0.3, contrast=0.3, saturation=0.3, grayscale=0.2, random_erasing=0.6,
    low_resolution=0.4, blur=0.4, yaw=20, pitch=10, relight=0.3, warp=1,
)  # fmt: skip
LABELS = np.repeat(np.arange(12), [5, 1, 7, 2, 4, 6, 3, 8, 2, 5, 4, 1])


@dataclass
class Noise:
    """Pictures made of their number."""

    labels: np.ndarray

    def take(self, indices):
        return np.stack([np.random.default_rng(int(i)).integers(0, 256, (32, 32, 3), np.uint8) for i in indices])


def shuffled(parts, **share):
    return Shuffled(LABELS, batch_size=12 // parts, seed=3, **share)


def identities(parts, **share):
    return PxK(LABELS, classes_per_batch=6 // parts, images_per_class=3, seed=3, **share)


def repeated(parts, **share):
    return PxK(LABELS, classes_per_batch=6 // parts, images_per_class=3, seed=3, repeat=True, **share)


def uneven(parts, **share):
    return Shuffled(LABELS, batch_size=6 // parts, seed=3, drop_last=False, **share)


def batch(sampler, number):
    spec = PreprocessSpec(size=(28, 28))
    return Loader(Noise(LABELS), sampler, EVERYTHING, spec, seed=9, workers=0).batch(number)


@pytest.mark.parametrize("make", [shuffled, identities, repeated, uneven])
@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (3, 1), (1, 3), (3, 2), (2, 3)])
def test_how_many_share_a_batch_changes_no_pixel(make, world, accumulate):
    for step in (0, 1, 5):
        whole = batch(make(1), step)
        parts = [
            batch(make(world * accumulate, rank=rank, world=world, accumulate=accumulate), step * accumulate + part)
            for rank in range(world)
            for part in range(accumulate)
        ]
        assert torch.equal(torch.cat([p.labels for p in parts]), whole.labels)
        assert torch.equal(torch.cat([p.pixels for p in parts]), whole.pixels)


def test_batches_and_pictures_change_differently():
    pixels = [batch(shuffled(1), number).pixels for number in (0, 100)]
    assert not torch.equal(*pixels)
    source = Noise(np.zeros(4, int))
    source.take = lambda indices: np.full((len(indices), 32, 32, 3), 90, np.uint8)
    same = Shuffled(source.labels, batch_size=4, seed=0)
    changed = Loader(source, same, EVERYTHING, PreprocessSpec(size=(28, 28)), seed=0, workers=0).batch(0).pixels
    assert len({row.numpy().tobytes() for row in changed}) == 4
