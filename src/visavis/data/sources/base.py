"""What a source of labeled pictures is, whatever format it is kept in."""

from __future__ import annotations

import difflib
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.types import ByteArray
from visavis.vision import images

Labels = npt.NDArray[np.int64]


class Source(ABC):
    """Labeled pictures: `names[i]` (relative, `Name/file.jpg`) shows `identities[labels[i]]`.

    Labels are int64 (N,), contiguous 0..C-1. `skipped` lists what lies in the source and is not one of its pictures,
    as (name, reason). A source can be pickled and read from worker processes at the same time.
    """

    path: Path
    names: tuple[str, ...]
    identities: tuple[str, ...]
    labels: Labels
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of a picture, as they are stored.

        Raises:
            DataError: the picture cannot be read.
        """

    def image(self, index: int) -> ByteArray:
        """A picture as uint8 (H, W, 3) RGB.

        Raises:
            DataError: the picture cannot be read or decoded.
        """
        return images.decode(self.read(index), name=f"{self.path}: {self.names[index]}")

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def _by_composed(self) -> dict[str, int]:
        """Names in Unicode's composed form (NFC): macOS wrote é as e and an accent, lists mostly hold one character."""
        return {unicodedata.normalize("NFC", name): index for index, name in enumerate(self.names)}

    @cached_property
    def _by_stem(self) -> dict[str, int]:
        return {os.path.splitext(name)[0]: index for index, name in enumerate(self.names)}

    @cached_property
    def _by_base(self) -> dict[str, int]:
        """File names that occur once, without folder and extension: CALFW's and CPLFW's lists name no folder."""
        index: dict[str, int] = {}
        for i, name in enumerate(self.names):
            base = os.path.splitext(name.rsplit("/", 1)[-1])[0]
            index[base] = -1 if base in index else i
        return {base: i for base, i in index.items() if i >= 0}

    @cached_property
    def _by_tail(self) -> dict[str, int]:
        """Names without their first folder and extension, where that is unique: `A/A_1` of `aligned_112/A/A_1.jpg`."""
        index: dict[str, int] = {}
        for i, name in enumerate(self.names):
            tail = os.path.splitext(name.partition("/")[2])[0]
            index[tail] = -1 if tail in index else i
        return {tail: i for tail, i in index.items() if i >= 0 and tail}

    def position(self, name: str) -> int | None:
        """The index of a picture by name, None where there is none.

        A list that says .jpg finds a .png of the same name; a name without folder, or in the folder it begins with
        (`Ann/Ann_0001.jpg`), the one picture called so; and `a/1.jpg` the one `…/a/1.jpg` a folder deeper.
        """
        found = self._by_name.get(name)
        if found is None and not name.isascii():
            found = self._by_composed.get(unicodedata.normalize("NFC", name))
        if found is None and os.path.splitext(name)[1].lower() in images.EXTENSIONS:
            stem = os.path.splitext(name)[0]
            found = self._by_stem.get(stem)
            folder, _, base = stem.rpartition("/")
            if found is None and (not folder or base.startswith(folder)):  # the file's own name says whose it is
                found = self._by_base.get(base)
            if found is None and folder:
                found = self._by_tail.get(stem)
        return found

    def index_of(self, name: str) -> int:
        """The index of a picture by name, as `position` finds it.

        Raises:
            DataError: there is no such picture; the nearest name is given.
        """
        found = self.position(name)
        if found is None:
            folder = name.split("/")[0]
            near = [n for n in self.names if n.startswith(folder + "/")] or self.names[:20_000]
            nearest = difflib.get_close_matches(name, near, n=1, cutoff=0.3)
            hint = f"; nearest is {nearest[0]!r}" if nearest else ""
            raise DataError(f"{self.path} holds no picture {name!r}{hint}")
        return found

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Source:
        """Only the pictures at `indices`, in that order; labels are renumbered, identities keep their order.

        Shapes: `indices` (N,).
        """
        return _Subset(self, np.asarray(indices, np.int64))

    def only(self, wanted: Iterable[str]) -> Source:
        """Only the named identities (see `read_identities`).

        Raises:
            DataError: a name is no identity of this source.
        """
        rows = self._rows_of(wanted)
        return self.subset(np.flatnonzero(np.isin(self.labels, rows)))

    def without(self, unwanted: Iterable[str]) -> Source:
        """All but the named identities; a name that is no identity of this source is an error."""
        rows = self._rows_of(unwanted)
        return self.subset(np.flatnonzero(~np.isin(self.labels, rows)))

    def _rows_of(self, wanted: Iterable[str]) -> Labels:
        row = {unicodedata.normalize("NFC", name): label for label, name in enumerate(self.identities)}
        row |= {name: label for label, name in enumerate(self.identities)}
        wanted = [name if name in row else unicodedata.normalize("NFC", name) for name in wanted]
        unknown = [name for name in wanted if name not in row]
        if unknown:
            nearest = difflib.get_close_matches(unknown[0], self.identities, n=1, cutoff=0.5)
            hint = f" (nearest is {nearest[0]!r})" if nearest else ""
            raise DataError(
                f"{self.path}: {len(unknown)} of {len(wanted)} listed identities are not among its "
                f"{len(self.identities)}; the first is {unknown[0]!r}{hint}"
            )
        return np.array([row[name] for name in wanted], np.int64)


class _Subset(Source):
    """Some pictures of another source."""

    def __init__(self, base: Source, indices: Labels) -> None:
        if not len(indices):
            raise DataError(f"{base.path}: expected at least one picture, the selection is empty")
        if indices.min() < 0 or indices.max() >= len(base):
            raise DataError(f"{base.path}: a selected index lies outside its {len(base)} pictures")
        self.base, self.indices, self.path = base, indices, base.path
        kept, self.labels = np.unique(base.labels[indices], return_inverse=True)
        self.identities = tuple(base.identities[k] for k in kept)
        self.names = tuple(base.names[i] for i in indices)
        self.skipped = base.skipped

    def read(self, index: int) -> bytes:
        return self.base.read(int(self.indices[index]))

    def image(self, index: int) -> ByteArray:
        return self.base.image(int(self.indices[index]))
