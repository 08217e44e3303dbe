"""Pairs that know where they stand in a list: built from rows, cut into folds, found in a source, written."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.data.pair_lists.dialect import Row
from visavis.data.sources.base import Source
from visavis.data.text import listable
from visavis.errors import DataError
from visavis.types import IntArray, Pairs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedPairs(Pairs):
    """Pairs that know the file and line each was read from, so that a later error can name them."""

    path: str = ""
    lines: tuple[int, ...] = ()

    def where(self, pair: int) -> str:
        """`path, line n` of a pair."""
        return f"{self.path}, line {self.lines[pair]}"


def build_pairs(rows: Sequence[Row], fold: IntArray, *, path: str = "", lines: Sequence[int] = ()) -> ListedPairs:
    """Pairs from (reference, probe, genuine) rows; every picture gets one index, in order of first mention.

    Shapes: `fold` (N,).
    """
    index: dict[str, int] = {}
    ends = np.array([[index.setdefault(name, len(index)) for name in row[:2]] for row in rows], np.int64).reshape(-1, 2)
    genuine = np.array([row[2] for row in rows], bool)
    _note_contradictions(rows, path)
    return ListedPairs(tuple(index), ends[:, 0], ends[:, 1], genuine, fold, path=path, lines=tuple(lines))


def _note_contradictions(rows: Sequence[Row], path: str) -> None:
    """Say it where one pair of pictures is listed both as genuine and as impostor."""
    said: dict[frozenset[str], bool] = {}
    both = [row for row in rows if said.setdefault(frozenset(row[:2]), row[2]) != row[2]]
    if both:
        log.warning(
            "%s: %d pairs are listed as genuine and as impostor, first %s and %s", path, len(both), *both[0][:2]
        )


def even_folds(genuine: np.ndarray, folds: int) -> IntArray:
    """Cut genuine and impostor pairs alike into `folds` contiguous parts, so that every fold has both; (N,) -> (N,)."""
    if folds < 1:
        raise DataError(f"the number of folds must be at least 1, got {folds}")
    fold = np.zeros(len(genuine), np.int64)
    for kind in (True, False):
        where = np.flatnonzero(genuine == kind)
        fold[where] = np.arange(len(where)) * folds // max(1, len(where))
    return fold


def find_images(pairs: Pairs, source: Source) -> IntArray:
    """Where each picture of a list is in a source: indices (len(pairs.images),) into it, −1 where it is missing."""
    places = (source.position(name) for name in pairs.images)
    return np.array([-1 if place is None else place for place in places], np.int64)


def check_pairs(pairs: Pairs, source: Source) -> IntArray:
    """Find every picture of a pair list in a source: indices (len(pairs.images),) into it.

    Raises:
        DataError: pictures are missing; says how many, and the line of the first pair that names one.
    """
    found = find_images(pairs, source)
    missing = found < 0
    if missing.any():
        bad = np.flatnonzero(missing[pairs.reference] | missing[pairs.probe])
        first = int(bad[0])
        where = pairs.where(first) if isinstance(pairs, ListedPairs) and pairs.lines else f"pair {first + 1}"
        image = next(int(i) for i in (pairs.reference[first], pairs.probe[first]) if missing[i])
        try:
            source.index_of(pairs.images[image])
        except DataError as error:
            raise DataError(
                f"{where}: {error} ({np.count_nonzero(missing)} of {len(pairs.images)} pictures are missing, in "
                f"{len(bad)} of {len(pairs)} pairs)"
            ) from error
    return found


def write_pairs(pairs: Pairs, path: str | os.PathLike[str]) -> None:
    """Write `path TAB path TAB 0|1` lines, after a header `folds size` where the folds are equal and contiguous."""
    listable(pairs.images, os.fspath(path))
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
