"""Pair lists: LFW's `pairs.txt` with any number of folds, `path path 0|1` lines, and the lists benchmarks come with."""

from __future__ import annotations

import os

import numpy as np

from visavis.data.pair_lists.base import ListedPairs, build_pairs, even_folds
from visavis.data.pair_lists.benchmarks import read_pair_set
from visavis.data.pair_lists.dialect import Dialect, is_number
from visavis.data.text import read_lines
from visavis.errors import DataError
from visavis.vision.images import is_image_path

PLAIN = Dialect()


def read_pairs(path: str | os.PathLike[str], dialect: Dialect = PLAIN) -> ListedPairs:
    """Read a pair list.

    The first line may be `folds size` (each fold: `size` genuine pairs, then `size` impostor pairs) or `size` (one
    fold, LFW's view 1). Then a genuine pair is `name n1 n2`, an impostor pair `name1 n1 name2 n2`, meaning the pictures
    `name/name_%04d.jpg` unless the dialect says otherwise; or a line is `path1 path2 0|1` (reference-systems row D4)
    or `0|1 path1 path2` (the lists of AgeDB-30 and others that circulate). Fields are separated by TAB, or by blanks;
    with TABs names may hold blanks, without them they may where only one reading is possible. A .bin verification set,
    CALFW's, CPLFW's and MassFace's lists and CFP's protocol folder are read by `read_pair_set`.

    Raises:
        DataError: not such a list; the message names the line.
    """
    name = os.fspath(path)
    if os.path.isdir(name) or name.lower().endswith(".bin"):
        return read_pair_set(path, folds=dialect.folds)
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{name}: expected a pair list, got an empty file")
    header = dialect.header(lines[0][1])
    if header is None and _has_two_fields(lines[0][1]):
        return read_pair_set(path, folds=dialect.folds)
    body = lines[1:] if header else lines
    rows = [dialect.row(name, number, line) for number, line in body]
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
        fold = even_folds(np.array([row[2] for row in rows]), dialect.folds)
    return build_pairs(rows, fold.astype(np.int64), path=name, lines=[number for number, _ in body])


def _has_two_fields(line: str) -> bool:
    """`name.jpg 1` or `00017 0`: a line of CALFW, CPLFW or MassFace."""
    fields = line.strip().split("\t") if "\t" in line.strip() else line.split()
    return len(fields) == 2 and is_number(fields[1].strip()) and (is_image_path(fields[0]) or is_number(fields[0]))
