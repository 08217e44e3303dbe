"""Training pictures by index: decoded once when they fit the budget (decoded_cache/), otherwise as they are needed."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np

from visavis.data.decoded_cache.cache import CachedSource, OtherShape, fitted
from visavis.data.decoded_cache.policy import cached
from visavis.data.photographs import warn_of_photographs
from visavis.data.sources import open_source, read_identities
from visavis.data.sources.base import Source
from visavis.data.sources.tolerant import TolerantSource
from visavis.errors import DataError
from visavis.machine import cache_home
from visavis.train.generated_faces import generated_faces
from visavis.train.held_out import split_identities
from visavis.train.recipe import DataRecipe
from visavis.types import ByteArray, IntArray
from visavis.vision.preprocessing import PreprocessSpec, place_frame

log = logging.getLogger(__name__)
# What helps against a damaged picture, in every message that names one.
WHAT_TO_TYPE = "list what is damaged with: visavis validate SRC; replace up to N images with --data.skip_damaged N"
Advance = Callable[[int, int], None]  # (done, total) of a long preparation


class ImageDataset(ABC):
    """Aligned uint8 pictures of one size with labels 0..C−1."""

    labels: IntArray
    num_classes: int
    size: tuple[int, int]
    identities: Sequence[str]  # names of the classes, in the order of the labels

    @property
    def damaged(self) -> Mapping[str, str]:
        """Names of pictures found damaged and replaced so far, with the reasons."""
        return {}

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def take(self, indices: IntArray) -> ByteArray:
        """The pictures (B, H, W, 3) at `indices`; safe to call from several threads."""


@final
class InMemory(ImageDataset):
    """ImageDataset held as one uint8 array (N, H, W, 3)."""

    def __init__(self, array: ByteArray, labels: IntArray, identities: Sequence[str] | None = None) -> None:
        self.array, self.labels = array, labels
        self.num_classes = int(labels.max()) + 1
        self.identities = identities or [str(label) for label in range(self.num_classes)]
        self.size = (array.shape[1], array.shape[2])

    def take(self, indices: IntArray) -> ByteArray:
        """The pictures (B, H, W, 3) at `indices`."""
        return self.array[indices]


@final
class FromSource(ImageDataset):
    """ImageDataset of a source, brought to one size; decoded each time unless the source is a cache."""

    def __init__(self, source: Source, size: tuple[int, int]) -> None:
        self.source, self.size = source, size
        self.labels = source.labels
        self.identities = source.identities
        self.num_classes = len(source.identities)

    @property
    def damaged(self) -> Mapping[str, str]:
        """Names of pictures found damaged and replaced so far, with the reasons."""
        base = self.source.base if isinstance(self.source, CachedSource) else self.source
        return base.damaged if isinstance(base, TolerantSource) else {}

    def take(self, indices: IntArray) -> ByteArray:
        """The pictures (B, H, W, 3) at `indices`."""
        if isinstance(self.source, CachedSource):
            return self.source.take(indices)
        return np.stack([fitted(self.source, int(i), self.size) for i in indices])


def open_dataset(
    recipe: DataRecipe,
    spec: PreprocessSpec,
    *,
    advance: Advance | None = None,
    draw: Callable[..., tuple[ByteArray, IntArray]] = generated_faces,
) -> tuple[ImageDataset, dict[str, object]]:
    """The training pictures of a recipe and a description of them for the model card and the log.

    Shapes: what `draw` gives: images (N, H, W, 3), labels (N,).

    Generated faces, which `draw` gives, are moved to where crops of the spec's template have theirs.

    Raises:
        DataError: nothing there, a single identity, or a damaged picture (named).
    """
    parts: list[ImageDataset] = []
    about: dict[str, object] = {}
    if recipe.source:
        source, dropped = kept_images(recipe)
        about = {
            "source": str(recipe.source),
            "identities": len(source.identities),
            "pictures": len(source),
            "dropped_identities": dropped,
            "skipped_files": len(source.skipped),
        }
        if recipe.held_out:
            about["held_out_identities"] = len(held_out_images(recipe).identities)
        for name, reason in source.skipped[:20]:
            log.warning("skipped %s: %s", name, reason)
        if not len(source):
            raise DataError(f"{recipe.source}: no identity has {recipe.min_images} pictures; lower data.min_images")
        warn_of_photographs(lambda name: source.image(source.index_of(name)), source.names, spec)
        if recipe.skip_damaged:
            source = TolerantSource(source, recipe.skip_damaged)
        parts.append(_load(source, recipe, advance))
    synthetic = recipe.synthetic
    if synthetic.identities:
        people = range(synthetic.first_identity, synthetic.first_identity + synthetic.identities)
        images, labels = draw(
            synthetic.seed,
            people,
            synthetic.images_per_identity,
            size=parts[0].size[0] if parts else synthetic.size,
            difficulty=synthetic.difficulty,
            folder=decoded_folder(recipe),
            budget=recipe.cache_gb * 1e9,
            workers=recipe.workers,
            progress=advance,
        )
        names = [f"generated {synthetic.seed}:{person}" for person in people]
        parts.append(InMemory(place_frame(images, spec), labels, names))
        about["synthetic_identities"], about["synthetic_pictures"] = synthetic.identities, len(labels)
    together = parts[0] if len(parts) == 1 else _join(parts)
    if together.num_classes < 2:
        raise DataError(f"{recipe.source}: training wants pictures of at least 2 identities, got 1")
    return together, about


def beside(path: str, source: str) -> Path:
    """A list's path: as it is, or inside the data's folder (beside the data's list) where it is not found as it is."""
    inside = (Path(source).parent if Path(source).is_file() else Path(source)) / path
    return inside if not Path(path).exists() and inside.exists() else Path(path)


def decoded_folder(recipe: DataRecipe) -> Path | None:
    """Where decoded pictures are kept; None in memory."""
    if recipe.cache == "memory":
        return None
    return cache_home() / "decoded" if recipe.cache == "auto" else Path(recipe.cache)


def kept_images(recipe: DataRecipe) -> tuple[Source, int]:
    """The pictures of `data.source` that `identities`, `min_images` and `held_out` leave to train on.

    Also how many identities are too rare.
    """
    source, dropped = _listed_images(recipe)
    return (source.only(split_identities(source, recipe.held_out)[0]) if recipe.held_out else source), dropped


def held_out_images(recipe: DataRecipe) -> Source:
    """The pictures of the identities that `data.held_out` keeps out of training."""
    source, _ = _listed_images(recipe)
    return source.only(split_identities(source, recipe.held_out)[1])


def _listed_images(recipe: DataRecipe) -> tuple[Source, int]:
    source = open_source(recipe.source)
    if recipe.identities:
        source = source.only(read_identities(beside(recipe.identities, recipe.source)))
    return _frequent(source, recipe.min_images)


def _frequent(source: Source, least: int) -> tuple[Source, int]:
    counts = np.bincount(source.labels, minlength=len(source.identities))
    kept = [name for name, count in zip(source.identities, counts, strict=True) if count >= least]
    dropped = len(source.identities) - len(kept)
    if dropped and kept:
        log.info("%d identities with fewer than %d pictures are left out", dropped, least)
    if not kept:
        raise DataError(f"{source.path}: no identity has {least} pictures; lower data.min_images")
    return (source.only(kept) if dropped else source), dropped


def _load(source: Source, recipe: DataRecipe, advance: Advance | None) -> ImageDataset:
    try:
        height, width = source.image(0).shape[:2]
        size = (int(height), int(width))
        found = cached(
            source,
            None if recipe.skip_damaged else decoded_folder(recipe),  # kept on disk, replacements would go uncounted
            size=size,
            budget=recipe.cache_gb * 1e9,
            workers=max(1, recipe.workers),
            progress=advance,
        )
    except DataError as error:
        raise advised(error, recipe) from error
    return FromSource(found, size)


def advised(error: DataError, recipe: DataRecipe) -> DataError:
    """What cannot be read, with what helps, unless it says so itself."""
    if recipe.skip_damaged or isinstance(error, OtherShape):
        return error
    return DataError(f"{error}; {WHAT_TO_TYPE}")


@final
class _Joined(ImageDataset):
    """Several sets one after the other, with classes of their own each."""

    def __init__(self, parts: list[ImageDataset]) -> None:
        self.parts, self.size = parts, parts[0].size
        firsts = np.cumsum([0, *(part.num_classes for part in parts)])
        self.labels = np.concatenate([part.labels + first for part, first in zip(parts, firsts[:-1], strict=True)])
        self.num_classes = int(firsts[-1])
        self.identities = [name for part in parts for name in part.identities]
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    @property
    def damaged(self) -> Mapping[str, str]:
        """Names of pictures found damaged and replaced so far, with the reasons."""
        return {name: reason for part in self.parts for name, reason in part.damaged.items()}

    def take(self, indices: IntArray) -> ByteArray:
        """The pictures (B, H, W, 3) at `indices`, each from its part."""
        out = np.empty((len(indices), *self.size, 3), np.uint8)
        of = np.searchsorted(self.starts, indices, side="right") - 1
        for number, part in enumerate(self.parts):
            chosen = of == number
            out[chosen] = part.take(indices[chosen] - self.starts[number])
        return out


def _join(parts: list[ImageDataset]) -> ImageDataset:
    if len({part.size for part in parts}) > 1:
        raise DataError(f"training sets must have pictures of one size, got {[part.size for part in parts]}")
    return _Joined(parts)
