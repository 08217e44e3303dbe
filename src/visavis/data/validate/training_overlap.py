"""Whether a model is judged on what it was trained on: by names of people, by pixels, by perceptual hashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.data.validate.duplicates import BITS, Hashes
from visavis.data.validate.fingerprints import feature_of
from visavis.data.validate.trained_on import TrainedOn, TrainingSet, is_blank, is_name, name_digest, pixel_digest
from visavis.types import ByteArray

_SHOWN = 3
_BLOCK = 1 << 20
_NUMBERED = re.compile(r"(.+?)_\d+")  # Name_0001


@dataclass(frozen=True)
class TrainingOverlap:
    """What of a test the model has seen in training.

    Attributes:
        people: how many people are judged, as far as the pictures' names tell.
        shared_people: those of them whose name the training data have.
        images: how many pictures are judged.
        identical: how many of them are training pictures, pixel for pixel.
        similar: how many others are nearly one: another compression, size or brightness, or moved by about a pixel.
        searched: training pictures looked through.
        trained: training pictures there are.
    """

    people: int
    shared_people: tuple[str, ...]
    images: int
    identical: int
    similar: int
    searched: int
    trained: int

    def __bool__(self) -> bool:
        return bool(self.shared_people or self.identical or self.similar)

    def sentence(self) -> str:
        """What stands beside every figure; "" where nothing is shared."""
        said = []
        if self.shared_people:
            said.append(
                f"of {self.people:,} people judged {len(self.shared_people):,} have names it was trained on "
                f"({_few(self.shared_people)})"
            )
        if self.identical or self.similar:
            kinds = [f"{self.identical:,} identical"] if self.identical else []
            kinds += [f"{self.similar:,} nearly identical"] if self.similar else []
            said.append(
                f"of {self.images:,} pictures {self.identical + self.similar:,} are training pictures "
                f"({', '.join(kinds)})"
            )
        if not said:
            return ""
        some = f"; {self.searched:,} of {self.trained:,} looked through" if self.searched < self.trained else ""
        sure = "" if self.identical or self.similar else ", if the names mean the same people"
        return f"inflated figures{sure}: {', '.join(said)}{some}"

    def to_dict(self) -> dict[str, Any]:
        """The counts, for JSON."""
        return {
            "people": self.people,
            "shared_people": list(self.shared_people),
            "images": self.images,
            "identical_images": self.identical,
            "similar_images": self.similar,
            "training_images_searched": self.searched,
            "training_images": self.trained,
        }


class OverlapSearch:
    """Looks at the pictures of a test as they come, and says at the end what of them was trained on."""

    def __init__(self, trained_on: TrainedOn) -> None:
        self.trained_on = trained_on
        self._seen: dict[str, tuple[int, list[Hashes]]] = {}

    def look(self, name: str, image: ByteArray) -> None:
        """Note a picture uint8 (H, W, 3) under its name."""
        feature = feature_of(image)[None]
        if not is_blank(feature)[0]:
            hashes = [part.reference.hashes(feature)[0] for part in self.trained_on.sets]
            self._seen[name] = pixel_digest(image), hashes

    def watching(self, images: Mapping[str, ByteArray] | Callable[[str], ByteArray]) -> Callable[[str], ByteArray]:
        """`images`, each noted when it is taken; images (H, W, 3)."""
        get = images.__getitem__ if isinstance(images, Mapping) else images

        def take(name: str) -> ByteArray:
            image = np.asarray(get(name))
            if name not in self._seen and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
                self.look(name, image)
            return image

        return take

    def result(self, names: Iterable[str]) -> TrainingOverlap:
        """The overlap of the pictures noted, and of the people that the `names` of all pictures tell of."""
        sets, names = self.trained_on.sets, tuple(names)
        pixels = np.array([digest for digest, _ in self._seen.values()], np.uint64)
        identical, similar = np.zeros(len(pixels), bool), np.zeros(len(pixels), bool)
        for number, part in enumerate(sets):
            identical |= np.isin(pixels, part.pixels)
            if len(pixels):
                hashes = np.stack([found[number] for _, found in self._seen.values()])
                similar |= find_near(hashes, part.hashes, radius=radius_between(len(hashes), len(part.hashes)))
        people, shared = _people(names, sets)
        return TrainingOverlap(
            people,
            shared,
            len(names),
            int(identical.sum()),
            int((similar & ~identical).sum()),
            sum(len(part.pixels) for part in sets),
            sum(part.images for part in sets),
        )


def find_overlap(images: Mapping[str, ByteArray], trained_on: TrainedOn) -> TrainingOverlap:
    """What of pictures by name a model trained on that has seen; images (H, W, 3)."""
    search = OverlapSearch(trained_on)
    for name, image in images.items():
        search.look(name, image)
    return search.result(images)


def radius_between(judged: int, known: int) -> int:
    """Within how many of 128 bits a judged picture counts as a training picture, with no second look at the pixels.

    Of `lfw-dev` another compression moves at most 8 bits (quality 20), a size of 96 instead of 112 four, a shift by a
    pixel 10; of 20 million pairs of different pictures none differs in fewer than 18, and two bits fewer are about
    three times rarer. The radius shrinks with the number of pairs so that chance finds about none.
    """
    pairs = judged * known
    return 12 if pairs <= 1e8 else 10 if pairs <= 1e9 else 8 if pairs <= 1e10 else 6


def find_near(hashes: Hashes, known: Hashes, *, radius: int) -> npt.NDArray[np.bool_]:
    """Which of `hashes` (N, 2) differ from one of `known` (T, 2) in at most `radius` of 128 bits.

    Exact: of radius + 1 segments such two agree in one whole (Norouzi, Punjani and Fleet, CVPR 2012), so that only
    pairs that do are compared.
    """
    found = np.zeros(len(hashes), bool)
    if not len(known):
        return found
    edges = np.linspace(0, BITS, radius + 2).astype(int)
    for start, stop in pairwise(edges.tolist()):
        left = np.flatnonzero(~found)
        own, theirs = _segment(hashes[left], start, stop), _segment(known, start, stop)
        order = np.argsort(theirs, kind="stable")
        first, last = (np.searchsorted(theirs[order], own, side) for side in ("left", "right"))
        for rows, places in _ranges(first, last):
            near = np.bitwise_count(hashes[left[rows]] ^ known[order[places]]).sum(1, dtype=np.int64) <= radius
            found[left[rows[near]]] = True
    return found


def _segment(hashes: Hashes, start: int, stop: int) -> npt.NDArray[np.uint64]:
    """The bits [start, stop) of every hash as a number; stop − start is at most 57."""
    data = np.ascontiguousarray(hashes).view(np.uint8)
    key = np.zeros(len(hashes), np.uint64)
    for byte in range(start // 8, -(-stop // 8)):
        key = (key << np.uint64(8)) | data[:, byte].astype(np.uint64)
    return (key >> np.uint64(-stop % 8)) & np.uint64((1 << (stop - start)) - 1)


def _ranges(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Every place of the ranges [first, last) beside the number of its range, in blocks of bounded size."""
    counts = last - first
    ends = np.cumsum(counts)
    for start in range(0, int(ends[-1]) if len(ends) else 0, _BLOCK):
        flat = np.arange(start, min(start + _BLOCK, int(ends[-1])))
        rows = np.searchsorted(ends, flat, "right")
        yield rows, first[rows] + flat - (ends[rows] - counts[rows])


def _people(names: Iterable[str], sets: tuple[TrainingSet, ...]) -> tuple[int, tuple[str, ...]]:
    """How many people the names of pictures tell of, and who of them has a name that was trained on."""
    told = [candidates for name in names if (candidates := _candidates(name))]
    every = list(dict.fromkeys(word for candidates in told for word in candidates))
    digests = np.array([name_digest(word) for word in every], np.uint64)
    trained = np.isin(digests, np.concatenate([part.names for part in sets] or [digests[:0]]))
    known = {word for word, is_known in zip(every, trained.tolist(), strict=True) if is_known}
    people = dict.fromkeys(next((word for word in words if word in known), words[0]) for words in told)
    return len(people), tuple(sorted(person for person in people if person in known))


def _candidates(name: str) -> list[str]:
    """What in a picture's name may name its person, the likeliest first: its folders from within, then `Name_0001`."""
    path = PurePosixPath(name)
    numbered = _NUMBERED.fullmatch(path.stem)
    words = [*reversed(path.parts[:-1]), *([numbered[1]] if numbered else [])]
    return [word for word in words if is_name(word)]


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
