"""Where pictures come from: every format is a `Source`, opened by `open_source`, which tells the kind from the path."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

from visavis.data.sources.base import Source
from visavis.data.text import read_lines
from visavis.errors import DataError, unknown_name

log = logging.getLogger(__name__)
Kind = Literal["folder", "flat", "record", "bin", "list"]


def read_identities(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a list of identities, one name a line: UTF-8 (with or without a mark) or UTF-16 text.

    Blank lines and lines that begin with # are no names; a name that stands twice is counted once, and that is said.

    Raises:
        DataError: the file cannot be read, is not text or names nobody.
    """
    names = [line.strip() for _, line in read_lines(path) if not line.lstrip().startswith("#")]
    if not names:
        raise DataError(f"{os.fspath(path)}: expected one identity a line, got an empty list")
    unique = tuple(dict.fromkeys(names))
    if len(unique) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        log.warning(
            "%s: %d names stand there more than once and count once, first %r", path, len(names) - len(unique), twice
        )
    return unique


# kind: (module, opener). A module is imported when its kind is opened.
SOURCES: dict[str, tuple[str, str]] = {
    "folder": ("visavis.data.sources.folder", "open_folder"),
    "flat": ("visavis.data.sources.folder", "open_flat"),
    "record": ("visavis.data.sources.rec", "open_records"),
    "bin": ("visavis.data.sources.bin", "open_bin"),
    "list": ("visavis.data.sources.lists", "open_list"),
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
    """Open labeled pictures in any format.

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
    if kind not in get_args(Kind) or kind not in SOURCES:
        raise DataError(unknown_name("kind of source", kind, SOURCES))
    module, name = SOURCES[kind]
    opener: Callable[..., Source] = getattr(import_module(module), name)
    source = opener(Path(path), skip_damaged=True) if skip_damaged and kind == "record" else opener(Path(path))
    if len(source.identities) < min_identities:
        raise DataError(
            f"{source.path}: expected at least {min_identities} identities, got {len(source.identities)} "
            f"({', '.join(source.identities[:3])}); each identity is one folder of pictures"
        )
    return source
