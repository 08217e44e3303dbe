"""What a model was trained on, kept beside its weights in 24 bytes a picture: digests of names and pictures, hashes.

It tells whether somebody or something is among the training data, and cannot be turned back into names or pictures.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.data.validate.duplicates import Hashes, HashReference
from visavis.data.validate.fingerprints import FEATURE, feature_of
from visavis.data.validate.safetensors_file import Arrays, from_bytes, read_metadata, to_bytes
from visavis.errors import ModelFormatError
from visavis.files import write_atomically
from visavis.models.card import CARD, read_card
from visavis.models.find import find_model
from visavis.types import ByteArray

FILE = "trained_on.safetensors"
FORMAT = "1"
NOTE = "trained_on"  # in the notes of the card
_CHUNK = 256
_BLANK = 32.0  # length of the feature of a picture whose gray levels deviate by 1: below, there is nothing to see
Digests = npt.NDArray[np.uint64]
_TYPES = {"names": np.uint64, "pixels": np.uint64, "hashes": np.uint64, "reference": np.float32, "images": np.int64}


@dataclass(frozen=True)
class TrainingSet:
    """One set of pictures a model was trained on.

    Attributes:
        names: digests (I,) of the names of identities, sorted; numbers are no names.
        pixels: digests (P,) of pictures, blank ones left out.
        hashes: perceptual hashes (P, 2) of the same pictures, against `reference`.
        reference: mean and median of the features.
        images: how many pictures it has; P is fewer where not all were looked at.
    """

    names: Digests
    pixels: Digests
    hashes: Hashes
    reference: HashReference
    images: int


@dataclass(frozen=True)
class TrainedOn:
    """All sets a model was trained on, those of the model it started from first.

    `key` says what it was made of: a run that goes on knows whether it still holds, and the notes of a model's card
    name it, so that what lies beside other weights is not taken for theirs.
    """

    sets: tuple[TrainingSet, ...]
    key: str

    def without_people(self) -> TrainedOn:
        """The pixels alone, for figures about the very people trained on, whose other pictures may look alike."""
        bare = (replace(part, names=part.names[:0], hashes=part.hashes[:0]) for part in self.sets)
        return TrainedOn(tuple(bare), self.key)

    def save(self, folder: Path) -> None:
        """Write `trained_on.safetensors` into a model folder, unless the same is there.

        Raises:
            DataError: the folder cannot be written.
        """
        if read_metadata(folder / FILE).get("key") == self.key:
            return
        arrays: Arrays = {}
        for number, part in enumerate(self.sets):
            arrays |= {
                f"{number}.names": part.names,
                f"{number}.pixels": part.pixels,
                f"{number}.hashes": part.hashes,
                f"{number}.reference": np.stack([part.reference.mean, part.reference.median]).astype(np.float32),
                f"{number}.images": np.array([part.images], np.int64),
            }
        write_atomically(folder / FILE, to_bytes(arrays, {"format": FORMAT, "key": self.key}))


def read_trained_on(model: str | os.PathLike[str]) -> TrainedOn | None:
    """What a MODEL was trained on; None where that is not known, as of imported weights.

    Raises:
        ModelFormatError: no such model, or the file is damaged or of a later format.
    """
    found = find_model(model)
    folder = found if found.is_dir() else found.parent
    if not (folder / FILE).is_file() or not (folder / CARD).is_file():
        return None
    return read_file(folder / FILE, key=str(read_card(folder).notes.get(NOTE, "")))


def read_file(path: Path, *, key: str) -> TrainedOn | None:
    """What `TrainedOn.save` wrote; None where nothing is there, or what was made of something else than `key` says.

    Raises:
        ModelFormatError: damaged, or of a later format.
    """
    if not path.is_file() or read_metadata(path).get("key", key) != key:
        return None
    try:
        arrays, about = from_bytes(path.read_bytes(), name=str(path))
        if about.get("format") != FORMAT:
            raise ModelFormatError(f"{path}: expected format {FORMAT}, got {about.get('format')!r:.20}")
        sets = tuple(_set_from(arrays, number) for number in range(len(arrays) // len(_TYPES)))
    except (OSError, ValueError, KeyError) as error:
        raise ModelFormatError(f"{path}: damaged ({error}); remove it, and overlaps are not looked for") from error
    return TrainedOn(sets, about.get("key", ""))


def _set_from(arrays: Arrays, number: int) -> TrainingSet:
    parts = {name: arrays[f"{number}.{name}"] for name in _TYPES}
    count = len(parts["pixels"])
    shapes = {"pixels": (count,), "hashes": (count, 2), "reference": (2, FEATURE), "images": (1,)}
    for name, kind in _TYPES.items():
        if parts[name].dtype != kind or parts[name].shape != shapes.get(name, (parts[name].size,)):
            raise ValueError(f"{number}.{name} is {parts[name].dtype} {parts[name].shape}")
    return TrainingSet(
        parts["names"],  # type: ignore[arg-type]
        parts["pixels"],  # type: ignore[arg-type]
        parts["hashes"],  # type: ignore[arg-type]
        HashReference(*parts["reference"].astype(np.float32)),
        int(parts["images"][0]),
    )


def take_training_set(
    identities: Iterable[str],
    image: Callable[[int], ByteArray | None],
    count: int,
    *,
    limit: int = 1_000_000,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """Look at the pictures of a training set.

    Args:
        identities: their names.
        image: the picture (H, W, 3) at an index; called from several threads. None where it cannot be read.
        count: how many pictures there are.
        limit: look at this many at most, evenly spread; 0 keeps the names alone.
        workers: threads.
        progress: called with (done, total).
    """
    chosen = np.linspace(0, count - 1, min(count, limit)).astype(np.int64)
    pixels, features = np.zeros(len(chosen), np.uint64), np.zeros((len(chosen), FEATURE), np.float16)

    def look(start: int) -> int:
        stop = min(start + _CHUNK, len(chosen))
        for row in range(start, stop):
            decoded = image(int(chosen[row]))
            if decoded is not None:
                pixels[row], features[row] = pixel_digest(decoded), feature_of(decoded)
        return stop

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for stop in pool.map(look, range(0, len(chosen), _CHUNK)):
            if progress is not None:
                progress(stop, len(chosen))
    seen = ~is_blank(features)
    pixels, features = pixels[seen], features[seen]
    zero = np.zeros(FEATURE, np.float32)
    reference = HashReference.of(features) if len(features) else HashReference(zero, zero)
    names = np.unique(np.array([name_digest(name) for name in identities if is_name(name)], np.uint64))
    return TrainingSet(names, pixels, reference.hashes(features), reference, count)


def is_name(text: str) -> bool:
    """Whether it names a person: the numbers that stand for people in .rec and .bin files mean others in each."""
    return bool(text) and not text.isdecimal()


def name_digest(name: str) -> int:
    """64 bits of BLAKE2b of a name in Unicode's composed form."""
    return _digest(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape"))


def pixel_digest(image: ByteArray) -> int:
    """64 bits of BLAKE2b of a picture's size and pixels; (H, W, 3)."""
    return _digest(repr(image.shape).encode() + image.tobytes())


def is_blank(features: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which features (N, 128) are those of pictures that show nothing."""
    return np.linalg.norm(features.astype(np.float32), axis=-1) < _BLANK


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
