"""What a dry run trains on: the recipe's pictures where they are there, looked over as training would, else noise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from visavis.distributed.launch import World
from visavis.errors import DataError, RecipeError
from visavis.train.batch import BatchPlan
from visavis.train.build import build_sampler, check_crops
from visavis.train.closed_set import open_closed_set
from visavis.train.dataset import ImageDataset, advised, open_dataset
from visavis.train.finetune.init_head import known_identities
from visavis.train.learning import check_can_learn
from visavis.train.loader import Loader
from visavis.train.recipe import DataRecipe, Recipe
from visavis.train.time_limit import TimeLimit
from visavis.train.validation import find_pairs
from visavis.types import ByteArray, IntArray
from visavis.vision.preprocessing import PreprocessSpec

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # what is done, and how much of how much
_NOISE = 64  # different pictures of noise
_AT_ONCE = 64


@dataclass(frozen=True)
class Extent:
    """How much data there is, and how that is known."""

    identities: int
    images: int
    known_from: str


@dataclass(frozen=True)
class TrialData:
    """Pictures to measure with, the extent of the whole set, its steps an epoch, and what was not looked at."""

    images: ImageDataset
    extent: Extent
    per_epoch: int
    remarks: tuple[str, ...] = ()


@final
class Noise(ImageDataset):
    """`count` pictures of noise that take no memory, `each` of a class in a row."""

    def __init__(self, count: int, size: tuple[int, int], *, classes: int, each: int, seed: int) -> None:
        self.labels = np.arange(count) // each % classes
        self.num_classes, self.size = classes, size
        self.identities = [str(label) for label in range(classes)]
        self._some = np.random.default_rng(seed).integers(0, 256, (_NOISE, *size, 3), np.uint8)

    def take(self, indices: IntArray) -> ByteArray:
        """Pictures (B, H, W, 3)."""
        return self._some[indices % _NOISE]


@final
class Part(ImageDataset):
    """Some pictures of a set with at most `classes` labels; with `keep` decoded once, as a decoded cache would."""

    def __init__(self, base: ImageDataset, chosen: IntArray, *, classes: int, keep: bool) -> None:
        self.base, self.chosen, self.size = base, chosen, base.size
        self.num_classes = classes
        self.labels = np.unique(base.labels[chosen], return_inverse=True)[1].astype(np.int64) % classes
        self.identities = [str(label) for label in range(classes)]
        self._kept: dict[int, ByteArray] | None = {} if keep else None

    def take(self, indices: IntArray) -> ByteArray:
        """Pictures (B, H, W, 3)."""
        if self._kept is None:
            return self.base.take(self.chosen[indices])
        missing = [int(i) for i in np.unique(indices) if int(i) not in self._kept]
        if missing:
            self._kept.update(zip(missing, self.base.take(self.chosen[missing]), strict=True))
        return np.stack([self._kept[int(i)] for i in indices])


def open_trial_data(
    recipe: Recipe, spec: PreprocessSpec, plan: BatchPlan, *, limit: TimeLimit, progress: Progress
) -> TrialData:
    """Open what a run of the recipe would train on, and refuse what it would refuse.

    Where the pictures are there they are decoded as training decodes them, all or as many as a third of the time
    allows, and the pairs to judge by are looked up. Generated faces are not drawn: noise stands for them.

    Raises:
        RecipeError, DataError: as training raises them; or the data is absent and the recipe does not say how much
            there is.
    """
    if recipe.data.source and not Path(recipe.data.source).exists():
        extent = expected_extent(recipe.data)
        unit = recipe.data.images_per_class if recipe.data.sampler == "pxk" else 1
        few = max(512, 4 * plan.accumulate * plan.device_batch)
        noise = Noise(few, spec.size, classes=min(extent.identities, few), each=unit, seed=recipe.seed)
        noise.num_classes = extent.identities
        return TrialData(noise, extent, _per_epoch(recipe, _labels(recipe.data, extent), plan))
    progress("opening the pictures", 0, 1)
    lazily = replace(recipe.data, cache_gb=0.0)
    images, _ = open_dataset(lazily, spec, draw=_noise_faces)
    known_from = f"counted in {recipe.data.source}" if recipe.data.source else "generated"
    extent = Extent(images.num_classes, len(images), known_from)
    check_crops(recipe, images.size, spec)
    check_can_learn(recipe, images)
    if recipe.finetune.init_head:
        known_identities(recipe.init, images.identities)
    per_epoch = _per_epoch(recipe, images.labels, plan)
    find_pairs(recipe)
    open_closed_set(recipe, spec, images.identities)
    _first_batch(recipe, images, spec)
    try:
        looked_at = _look_over(images, seconds=limit.left / 3, progress=progress, seed=recipe.seed)
    except DataError as error:
        raise advised(error, recipe.data) from error
    few = looked_at < len(images)
    remark = f"{looked_at:,} of {len(images):,} pictures were decoded; the others: visavis validate SRC"
    return TrialData(images, extent, per_epoch, (remark,) if few else ())


def expected_extent(data: DataRecipe) -> Extent:
    """How many pictures and identities a recipe says its absent data has.

    Raises:
        RecipeError: it says nothing.
    """
    if data.expected_identities < 2 or data.expected_images < 2:
        raise RecipeError(
            f"{data.source} is not there, and the recipe does not say how much it holds; give "
            "--data.expected_identities N --data.expected_images N, or the pictures with --data SRC"
        )
    made = data.synthetic.identities
    return Extent(
        data.expected_identities + made,
        data.expected_images + made * data.synthetic.images_per_identity,
        f"as the recipe says; {data.source} is not there",
    )


def _labels(data: DataRecipe, extent: Extent) -> IntArray:
    """Labels of the absent pictures, as even as can be; of the shuffled sampler only their number matters."""
    if data.sampler == "pxk":
        return np.arange(extent.images) % extent.identities
    return np.broadcast_to(np.int64(0), extent.images)


def _per_epoch(recipe: Recipe, labels: IntArray, plan: BatchPlan) -> int:
    world = World(0, plan.devices, 0, torch.device("cpu"))
    return max(1, build_sampler(recipe, labels, world=world).batches_per_epoch // plan.accumulate)


def _first_batch(recipe: Recipe, images: ImageDataset, spec: PreprocessSpec) -> None:
    """Cut and change the first pictures as the loader does."""
    sampler = build_sampler(recipe, images.labels)
    Loader(images, sampler, recipe.augment, spec, seed=recipe.seed, workers=0).prepare(np.arange(2), 0)


def _look_over(images: ImageDataset, *, seconds: float, progress: Progress, seed: int) -> int:
    """Decode the pictures, in random order, until all are or the time is over; returns how many were."""
    limit, count = TimeLimit(seconds), len(images)
    order = np.random.default_rng(seed).permutation(count)
    for start in range(0, count, _AT_ONCE):
        images.take(np.sort(order[start : start + _AT_ONCE]))
        progress("decoding the pictures", min(start + _AT_ONCE, count), count)
        if limit.left <= 0:
            return min(start + _AT_ONCE, count)
    return count


def _noise_faces(seed: int, people: Sequence[int], images: int, *, size: int, **options: Any) -> tuple[Any, IntArray]:
    """In the place of generated faces: one picture of noise, seen as often as there would be faces."""
    labels = np.repeat(np.arange(len(people), dtype=np.int64), images)
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return np.broadcast_to(noise, (len(labels), size, size, 3)), labels
