"""Lists of pictures: `path label` and the landmark lists of SphereFace (reference-systems rows S1, D4)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.data.sources.base import Source
from visavis.data.sources.folder import FileSource
from visavis.data.text import bad_line, listable, read_lines, relative
from visavis.errors import DataError
from visavis.vision.images import is_image_path

Landmarks = npt.NDArray[np.float64]
_EXPECTED = "`path`, `path label`, `path label x1 y1 … x5 y5` or `path x1 y1 … x5 y5`"


@dataclass(frozen=True)
class Listing:
    """A list's pictures: relative names, labels as written (None where the list has none), landmarks (5, 2) or None."""

    path: Path
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    landmarks: tuple[Landmarks | None, ...]
    lines: tuple[int, ...]


def read_list(path: str | os.PathLike[str]) -> Listing:
    """Read `path label` lines, or landmark lines `path [label] x1 y1 … x5 y5`, separated by TAB, comma or blanks.

    Where blanks separate, the path may itself hold blanks: it ends with a picture's extension. A .lst line of MXNet,
    `key TAB label TAB path`, and InsightFace's `0|1 TAB path TAB label …` are understood too.

    Raises:
        DataError: not such a list, or a picture listed twice; the message names the line.
    """
    names: dict[str, int] = {}
    labels: list[str | None] = []
    landmarks: list[Landmarks | None] = []
    numbers: list[int] = []
    for number, line in read_lines(path):
        name, values = _split(os.fspath(path), number, line)
        if name in names:
            raise DataError(f"{os.fspath(path)}, line {number}: {name!r} is already on line {numbers[names[name]]}")
        if len(values) not in (0, 1, 10, 11):
            raise bad_line(path, number, _EXPECTED, line)
        names[name] = len(names)
        labels.append(values[0] if len(values) in (1, 11) else None)
        landmarks.append(_points(os.fspath(path), number, line, values[-10:]) if len(values) >= 10 else None)
        numbers.append(number)
    if not names:
        raise DataError(f"{os.fspath(path)}: expected {_EXPECTED} lines, got an empty file")
    return Listing(Path(path), tuple(names), tuple(labels), tuple(landmarks), tuple(numbers))


def _split(path: str, number: int, line: str) -> tuple[str, list[str]]:
    if "\t" in line.strip():
        fields = [field.strip() for field in line.strip().split("\t")]
        if len(fields) >= 3 and is_image_path(fields[-1]) and not is_image_path(fields[0]):
            fields = [fields[-1], fields[1]]  # MXNet's .lst
        elif len(fields) >= 3 and fields[0] in ("0", "1") and is_image_path(fields[1]):
            fields = fields[1:3]  # InsightFace's own .lst: aligned or not, path, label, and perhaps a box
    else:
        head, ending, tail = _after_extension(line.strip())
        fields = [head + ending, *tail.replace(",", " ").split()] if ending else line.split()
    if not fields or not is_image_path(fields[0]):
        raise bad_line(path, number, _EXPECTED, line)
    return relative(path, number, fields[0]), fields[1:]


def _after_extension(line: str) -> tuple[str, str, str]:
    """Cut behind the last `.jpg` (or its like) that a blank, a comma or the end follows."""
    lower = line.lower()
    for end in range(len(line), 0, -1):
        if end == len(line) or line[end] in " ,":
            dot = lower.rfind(".", 0, end)
            if dot >= 0 and is_image_path("x" + lower[dot:end]):
                return line[:dot], line[dot:end], line[end:]
    return line, "", ""


def _points(path: str, number: int, line: str, values: list[str]) -> Landmarks:
    try:
        points = np.array([float(value) for value in values]).reshape(5, 2)
    except ValueError:
        points = np.full((5, 2), np.nan)
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise bad_line(path, number, "ten finite coordinates", line)
    return points


def open_list(path: Path) -> FileSource:
    """Open the pictures of a list; its paths are relative to its folder, or to `images/` in it.

    The identity is the list's label, or the picture's folder where the list gives none. Pictures that are listed and
    not there are counted among `skipped`.

    Raises:
        DataError: not a list of pictures, or the first of them is not where the list lies.
    """
    listing = read_list(path)
    for root in (path.parent, path.parent / "images"):
        if (root / listing.names[0]).is_file():
            owners = [
                name.split("/", 1)[0] if label is None else label
                for name, label in zip(listing.names, listing.labels, strict=True)
            ]
            found = [(root / name).is_file() for name in listing.names]
            rows = list(zip(listing.names, owners, found, strict=True))
            return FileSource(
                root,
                [name for name, _, there in rows if there],
                owners=[owner for _, owner, there in rows if there],
                skipped=[(name, "listed, but there is no such file") for name, _, there in rows if not there],
            )
    raise DataError(
        f"{path}, line {listing.lines[0]}: {listing.names[0]!r} is neither in {path.parent} nor in its images/; "
        "paths in a list are relative to its folder"
    )


def write_list(
    source: Source, path: Path, *, landmarks: Iterable[Landmarks] | None = None, below: Path | None = None
) -> None:
    """Write `path TAB label` lines (and ten coordinates each, when `landmarks` are given).

    Paths are the source's names, or relative to the folder `below`, which must hold the source.
    """
    listable(source.names, str(path))
    prefix = "" if below is None else source.path.absolute().relative_to(below.absolute()).as_posix() + "/"
    prefix = "" if prefix == "./" else prefix
    points = landmarks if landmarks is not None else [None] * len(source)
    with path.open("w", encoding="utf-8") as file:
        for name, label, five in zip(source.names, source.labels.tolist(), points, strict=True):
            extra = "" if five is None else "\t" + "\t".join(f"{value:.6g}" for value in np.ravel(five))
            file.write(f"{prefix}{name}\t{label}{extra}\n")
