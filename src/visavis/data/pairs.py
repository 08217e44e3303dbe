"""Pair lists: LFW's `pairs.txt` with any number of folds, and `path path 0|1` lines; other layouts by pair_sets.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.data.sources import Source
from visavis.data.text import bad_line, read_lines
from visavis.errors import DataError
from visavis.types import IntArray, Pairs
from visavis.vision.images import is_image_path

_EXPECTED = "`name n1 n2`, `name1 n1 name2 n2` or `path1 path2 0|1`"
Row = tuple[str, str, bool]


@dataclass(frozen=True)
class ListedPairs(Pairs):
    """Pairs that know the file and line each was read from, so that a later error can name them."""

    path: str = ""
    lines: tuple[int, ...] = ()

    def where(self, pair: int) -> str:
        """`path, line n` of a pair."""
        return f"{self.path}, line {self.lines[pair]}"


def build_pairs(rows: Sequence[Row], fold: IntArray, *, path: str = "", lines: Sequence[int] = ()) -> ListedPairs:
    """Pairs from (reference, probe, genuine) rows; every picture gets one index, in order of first mention."""
    index: dict[str, int] = {}
    ends = np.array([[index.setdefault(name, len(index)) for name in row[:2]] for row in rows], np.int64).reshape(-1, 2)
    genuine = np.array([row[2] for row in rows], bool)
    return ListedPairs(tuple(index), ends[:, 0], ends[:, 1], genuine, fold, path=path, lines=tuple(lines))


def read_pairs(
    path: str | os.PathLike[str], *, extension: str = ".jpg", digits: int = 4, folds: int = 10
) -> ListedPairs:
    """Read a pair list.

    The first line may be `folds size` (each fold: `size` genuine pairs, then `size` impostor pairs) or `size` (one
    fold, LFW's view 1). Then a genuine pair is `name n1 n2`, an impostor pair `name1 n1 name2 n2`, meaning the pictures
    `name/name_%04d.jpg`; or a line is `path1 path2 0|1` (reference-systems row D4). Fields are separated by TAB, or by
    blanks; with TABs names may hold blanks, without them they may where only one reading is possible. A .bin
    verification set, CALFW's, CPLFW's and MassFace's lists and CFP's protocol folder are read by `read_pair_set`.

    Args:
        path: the list.
        extension: of the pictures that `name n` means.
        digits: width of their zero-padded number.
        folds: into how many folds to cut a list without header, genuine and impostor pairs alike.

    Raises:
        DataError: not such a list; the message names the line.
    """
    name = os.fspath(path)
    if os.path.isdir(name) or name.lower().endswith(".bin"):
        return _elsewhere(path, folds)
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{name}: expected a pair list, got an empty file")
    if _header(lines[0][1]) is None and _has_two_fields(lines[0][1]):
        return _elsewhere(path, folds)
    header = _header(lines[0][1])
    body = lines[1:] if header else lines
    rows = [_parse(name, number, line, extension, digits) for number, line in body]
    if not rows:
        raise DataError(f"{name}: expected pairs after the header {lines[0][1].strip()!r}, got none")
    if header:
        count, size = header
        if len(rows) != count * 2 * size:
            raise DataError(
                f"{name}: the header {lines[0][1].strip()!r} promises {count} × 2 × {size} = {count * 2 * size} pairs, "
                f"got {len(rows)}"
            )
        fold = np.arange(len(rows)) // (2 * size)
    else:
        fold = even_folds(np.array([row[2] for row in rows]), folds)
    return build_pairs(rows, fold.astype(np.int64), path=name, lines=[number for number, _ in body])


def _elsewhere(path: str | os.PathLike[str], folds: int) -> ListedPairs:
    from visavis.data.pair_sets import read_pair_set

    return read_pair_set(path, folds=folds)


def _has_two_fields(line: str) -> bool:
    """`name.jpg 1` or `00017 0`: a line of CALFW, CPLFW or MassFace."""
    fields = line.strip().split("\t") if "\t" in line.strip() else line.split()
    return len(fields) == 2 and _is_number(fields[1].strip()) and (is_image_path(fields[0]) or _is_number(fields[0]))


def even_folds(genuine: np.ndarray, folds: int) -> IntArray:
    """Cut genuine and impostor pairs alike into `folds` contiguous parts, so that every fold has both."""
    if folds < 1:
        raise DataError(f"the number of folds must be at least 1, got {folds}")
    fold = np.zeros(len(genuine), np.int64)
    for kind in (True, False):
        where = np.flatnonzero(genuine == kind)
        fold[where] = np.arange(len(where)) * folds // max(1, len(where))
    return fold


def _header(line: str) -> tuple[int, int] | None:
    fields = line.split()
    if not all(_is_number(field) for field in fields) or len(fields) > 2:
        return None
    count, size = (1, int(fields[0])) if len(fields) == 1 else (int(fields[0]), int(fields[1]))
    return (count, size) if count and size else None


def _is_number(field: str) -> bool:
    return field.isascii() and field.isdigit() and len(field) <= 9


def _parse(path: str, number: int, line: str, extension: str, digits: int) -> Row:
    fields = [field.strip() for field in line.strip("\r\n").split("\t")] if "\t" in line.strip() else line.split()

    def picture(name: str, which: str) -> str:
        if not name or name in (".", "..") or "/" in name or "\\" in name:
            raise bad_line(path, number, "a name that is a folder's", line)
        return f"{name}/{name}_{int(which):0{digits}d}{extension}"

    if len(fields) == 3 and fields[2] in ("0", "1", "-1") and is_image_path(fields[0]) and is_image_path(fields[1]):
        return relative(path, number, fields[0]), relative(path, number, fields[1]), fields[2] == "1"
    readings = list(_readings(fields, joined="\t" not in line.strip()))
    if len(readings) != 1:
        what = (
            _EXPECTED if not readings else f"{_EXPECTED} (several readings are possible: separate the fields by TABs)"
        )
        raise bad_line(path, number, what, line)
    name1, n1, name2, n2 = readings[0]
    return picture(name1, n1), picture(name2, n2), name1 == name2


def _readings(fields: list[str], *, joined: bool) -> list[tuple[str, str, str, str]]:
    """Every way to read a line's fields; blanks inside names are only joined where blanks separate."""
    if len(fields) == 3 and _is_number(fields[1]) and _is_number(fields[2]):
        return [(fields[0], fields[1], fields[0], fields[2])]
    if len(fields) == 4 and _is_number(fields[1]) and _is_number(fields[3]):
        return [(fields[0], fields[1], fields[2], fields[3])]
    found: list[tuple[str, str, str, str]] = []
    if not joined or len(fields) < 4 or not _is_number(fields[-1]):
        return found
    if _is_number(fields[-2]):
        name = " ".join(fields[:-2])
        found.append((name, fields[-2], name, fields[-1]))
    cuts = [cut for cut in range(1, len(fields) - 2) if _is_number(fields[cut])]
    found += [(" ".join(fields[:cut]), fields[cut], " ".join(fields[cut + 1 : -1]), fields[-1]) for cut in cuts]
    return found
    if _is_number(fields[-2]):
        name = " ".join(fields[:-2])
        found.append((name, fields[-2], name, fields[-1]))
    for cut in range(1, len(fields) - 2):
        if _is_number(fields[cut]):
            found.append((" ".join(fields[:cut]), fields[cut], " ".join(fields[cut + 1 : -1]), fields[-1]))
    return found


def relative(path: str, number: int, name: str) -> str:
    """A listed picture's name with forward slashes; one that leaves the picture folder is refused."""
    name = name.replace("\\", "/").removeprefix("./")
    if name.startswith("/") or ".." in name.split("/"):
        raise bad_line(path, number, "a path inside the picture folder", name)
    return name


def check_pairs(pairs: Pairs, source: Source) -> IntArray:
    """Find every picture of a pair list in a source: indices (len(pairs.images),) into it.

    Raises:
        DataError: pictures are missing; says how many, and the line of the first pair that names one.
    """
    found = np.full(len(pairs.images), -1, np.int64)
    reasons: dict[int, str] = {}
    for i, name in enumerate(pairs.images):
        try:
            found[i] = source.index_of(name)
        except DataError as error:
            reasons[i] = reasons.get(i, str(error)) if len(reasons) < 20 else ""
    if reasons:
        bad = np.flatnonzero((found[pairs.reference] < 0) | (found[pairs.probe] < 0))
        first = int(bad[0])
        where = pairs.where(first) if isinstance(pairs, ListedPairs) and pairs.lines else f"pair {first + 1}"
        image = next(int(i) for i in (pairs.reference[first], pairs.probe[first]) if found[i] < 0)
        raise DataError(
            f"{where}: {reasons[image] or pairs.images[image]} ({len(reasons)} of {len(pairs.images)} pictures are "
            f"missing, in {len(bad)} of {len(pairs)} pairs)"
        )
    return found


def write_pairs(pairs: Pairs, path: str | os.PathLike[str]) -> None:
    """Write `path TAB path TAB 0|1` lines, after a header `folds size` where the folds are equal and contiguous."""
    sizes = np.bincount(pairs.fold) if len(pairs) else np.zeros(0, int)
    equal = len(sizes) > 0 and (sizes == sizes[0]).all() and sizes[0] % 2 == 0 and (np.diff(pairs.fold) >= 0).all()
    try:
        with open(path, "w", encoding="utf-8") as file:
            if equal:
                file.write(f"{len(sizes)}\t{sizes[0] // 2}\n")
            for a, b, same in zip(pairs.reference, pairs.probe, pairs.genuine, strict=True):
                file.write(f"{pairs.images[a]}\t{pairs.images[b]}\t{int(same)}\n")
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot write the pair list ({error.strerror})") from error
