"""Where pictures come from: every format is a `Source`, opened by `open_source`, which tells the kind from the path."""

from __future__ import annotations

import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, unknown_name
from visavis.types import ByteArray
from visavis.vision import images

Labels = npt.NDArray[np.int64]
Kind = Literal["folder", "flat", "record", "bin", "list"]


class Source(ABC):
    """Labelled pictures: `names[i]` (relative, `Name/file.jpg`) shows `identities[labels[i]]`.

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
        """Only the pictures at `indices`, in that order; labels are renumbered, identities keep their order."""
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
        row = {name: label for label, name in enumerate(self.identities)}
        wanted = list(wanted)
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


def read_identities(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a list of identities, one name a line; blank lines are ignored.

    Raises:
        DataError: the file cannot be read, is not UTF-8 text, names nobody or names somebody twice.
    """
    from visavis.data.text import read_lines

    names = [line.strip() for _, line in read_lines(path)]
    if not names:
        raise DataError(f"{os.fspath(path)}: expected one identity a line, got an empty list")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{os.fspath(path)}: the identity {twice!r} is listed twice")
    return tuple(names)


# kind: (module, opener). A module is imported when its kind is opened.
_OPENERS: dict[str, tuple[str, str]] = {
    "folder": ("visavis.data.folder", "open_folder"),
    "flat": ("visavis.data.folder", "open_flat"),
    "record": ("visavis.data.record_source", "open_records"),
    "bin": ("visavis.data.bin_sets", "open_bin"),
    "list": ("visavis.data.lists", "open_list"),
}
_SUFFIXES = {".rec": "record", ".idx": "record", ".bin": "bin", ".txt": "list", ".csv": "list", ".lst": "list"}


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """Tell the kind of a source from its path.

    Raises:
        DataError: nothing is there, or it is of no known kind.
    """
    path = Path(path)
    if path.is_dir():
        return "record" if any(path.glob("*.rec")) else "folder"
    if not path.exists():
        raise DataError(f"{path}: expected a folder per identity or a data file, there is no such file or folder")
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            f"{path}: expected a folder per identity, .rec/.idx, .bin or a list (.txt, .csv, .lst), got "
            f"a {path.suffix or 'nameless'} file"
        )
    return kind  # type: ignore[return-value]


def open_source(
    path: str | os.PathLike[str], *, kind: Kind | None = None, min_identities: int = 1, skip_damaged: bool = False
) -> Source:
    """Open labelled pictures in any format.

    Args:
        path: a folder per identity (or a folder that holds `images/` with one), train.rec or its folder, a .bin
            verification set, or a list of `path label` or landmark lines.
        kind: one of `Kind` when the path does not tell it.
        min_identities: training needs 2; a source with fewer is refused.
        skip_damaged: leave damaged records of a .rec out (listed in `skipped`) instead of refusing the file.

    Raises:
        DataError: nothing readable is there, or too few identities.
    """
    kind = kind or kind_of(path)
    if kind not in get_args(Kind) or kind not in _OPENERS:
        raise DataError(unknown_name("kind of source", kind, _OPENERS))
    module, name = _OPENERS[kind]
    opener: Callable[..., Source] = getattr(import_module(module), name)
    source = opener(Path(path), skip_damaged=True) if skip_damaged and kind == "record" else opener(Path(path))
    if len(source.identities) < min_identities:
        raise DataError(
            f"{source.path}: expected at least {min_identities} identities, got {len(source.identities)} "
            f"({', '.join(source.identities[:3])}); each identity is one folder of pictures"
        )
    return source
