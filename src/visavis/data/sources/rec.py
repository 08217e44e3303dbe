"""A .rec/.idx training set as a source: index records, identity ranges, several labels, files without .idx."""

from __future__ import annotations

import logging
import re
from functools import cached_property
from pathlib import Path

import numpy as np

from visavis.data.sources.base import Labels, Source
from visavis.data.sources.recordio import MAGIC, Offsets, RecordFile, read_index, unpack
from visavis.data.text import read_lines
from visavis.errors import DataError

log = logging.getLogger(__name__)
_FLOAT_EXACT = 1 << 24  # beyond it a float32 label no longer holds every whole number


class RecordSource(Source):
    """The pictures of a .rec, in the order of their keys; index and identity records are not pictures.

    A picture's identity is the first label of its header. Names are `LABEL/KEY.jpg`, or what a .lst beside says.
    """

    def __init__(
        self, file: RecordFile, keys: Offsets, offsets: Offsets, labels: Labels, skipped: list[tuple[str, str]]
    ) -> None:
        self.file, self.path, self.skipped = file, file.path, tuple(skipped)
        self.keys, self.offsets = keys, offsets
        values, self.labels = np.unique(labels, return_inverse=True)
        self._listed = _read_lst(file.path.with_suffix(".lst"), keys, labels)
        if self._listed is None:
            self.identities = tuple(str(value) for value in values.tolist())
        else:
            first = np.unique(self.labels, return_index=True)[1]
            self.identities = tuple(self._listed[i].split("/")[0] for i in first)

    @cached_property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Built on first use: training on millions of pictures never asks."""
        if self._listed is not None:
            return self._listed
        return tuple(
            f"{self.identities[label]}/{key}.jpg"
            for label, key in zip(self.labels.tolist(), self.keys.tolist(), strict=True)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The picture's bytes, without the record's header."""
        name = f"{self.path}: record {self.keys[index]} at byte {self.offsets[index]:,}"
        return unpack(self.file.read(int(self.offsets[index]), span=self._span(index)), name=name).data

    def _span(self, index: int) -> int:
        """Bytes up to the next record of the index, which in a file written in the order of its keys is this one's."""
        following = self.offsets[index + 1] if index + 1 < len(self.offsets) else self.file.size
        span = int(following - self.offsets[index])
        return span if span > 0 else 1 << 14


def open_records(path: Path, *, skip_damaged: bool = False) -> RecordSource:
    """Open a .rec (or its .idx, or the folder of train.rec).

    Without an .idx the file is scanned. With InsightFace's index record 0 (labels `[images + 1, records]`) the pictures
    are the keys 1 … images (reference-systems row A15: the header is no picture and the last picture is one).

    Raises:
        DataError: a damaged or truncated file, with the byte offset, unless `skip_damaged`: then `skipped` lists them.
    """
    path = _record_file(path) if path.is_dir() else path.with_suffix(".rec")
    file = RecordFile(path)
    skipped: list[tuple[str, str]] = []
    index = path.with_suffix(".idx")
    if index.is_file():
        keys, offsets = read_index(index)
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        if (np.diff(keys) == 0).any():
            raise DataError(f"{index}: the key {keys[np.flatnonzero(np.diff(keys) == 0)[0]]} occurs twice")
        keys, offsets = _check_heads(file, keys, offsets, skipped, skip_damaged=skip_damaged)
        keys, offsets, ranges, promised = _drop_index_records(file, keys, offsets)
        if promised > len(keys) and not skip_damaged:
            raise DataError(f"{index}: the header record promises {promised:,} pictures, the index has {len(keys):,}")
    else:
        offsets, damaged = file.scan(skip_damaged=skip_damaged)
        skipped += [(f"byte {offset}", problem) for offset, problem in damaged]
        offsets, ranges = _by_structure(file, offsets)
        keys = _ids(file, offsets)
    if not len(keys):
        raise DataError(f"{path}: expected image records, got none ({len(skipped)} damaged)")
    labels = _labels_from_ranges(file, keys, offsets, ranges)
    return RecordSource(file, keys, offsets, _labels(file, offsets) if labels is None else labels, skipped)


def _record_file(folder: Path) -> Path:
    """A folder's train.rec, or its only .rec."""
    found = sorted(folder.glob("*.rec"))
    if folder / "train.rec" in found or not found:
        return folder / "train.rec"
    if len(found) > 1:
        raise DataError(f"{folder}: expected train.rec or a single .rec, got {', '.join(p.name for p in found[:5])}")
    return found[0]


def _check_heads(
    file: RecordFile, keys: Offsets, offsets: Offsets, skipped: list[tuple[str, str]], *, skip_damaged: bool
) -> tuple[Offsets, Offsets]:
    """Offsets must lie in the file; when damage is to be skipped, every record's head and extent is checked too."""
    word = offsets // 4
    good = (offsets >= 0) & (offsets % 4 == 0) & (offsets + 32 <= file.size)
    if skip_damaged:
        inside = np.where(good, word, 0)
        length = (file.words[inside + 1] & ((1 << 29) - 1)).astype(np.int64)
        flag = file.words[inside + 1] >> 29
        good &= (file.words[inside] == MAGIC) & (flag <= 1) & (offsets + 8 + length <= file.size) & (length >= 24)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        if not skip_damaged:
            raise DataError(
                f"{file.path}: truncated: {int((~good).sum()):,} of {len(good):,} records of the index lie past the "
                f"end ({file.size:,} bytes), first key {keys[first]} at byte {offsets[first]:,}; --skip-damaged leaves "
                "such records out"
            )
        skipped += [(f"record {k}", f"damaged at byte {o:,}") for k, o in zip(keys[~good], offsets[~good], strict=True)]
    return keys[good], offsets[good]


def _is_index(file: RecordFile, offsets: Offsets) -> bool:
    """Whether the first record is an index record: several labels and no picture."""
    if not len(offsets):
        return False
    head = unpack(file.read(int(offsets[0])), name=str(file.path))
    return head.flag >= 2 and not head.data


def _drop_index_records(file: RecordFile, keys: Offsets, offsets: Offsets) -> tuple[Offsets, Offsets, Offsets, int]:
    """Split pictures from identity records by record 0; also the latter's offsets and the pictures promised."""
    if not len(keys) or keys[0] != 0 or not _is_index(file, offsets):
        return keys, offsets, np.zeros(0, np.int64), 0
    first, last = (int(v) for v in np.nan_to_num(unpack(file.read(int(offsets[0]))).labels[:2], posinf=0, neginf=0))
    if last >= _FLOAT_EXACT:  # the header's numbers are rounded: look at the records themselves
        images, ranges = _by_structure(file, offsets)
        return keys[np.isin(offsets, images)], images, ranges, 0
    image = (keys >= 1) & (keys < first)
    return keys[image], offsets[image], offsets[(keys >= first) & (keys < last)], first - 1


def _by_structure(file: RecordFile, offsets: Offsets) -> tuple[Offsets, Offsets]:
    """Pictures, and identity records: those that hold two labels and nothing else (the first is the index record)."""
    if not len(offsets):
        return offsets, offsets
    at = np.minimum(offsets // 4, len(file.words) - 3)
    bare = ((file.words[at + 1] & ((1 << 29) - 1)) == 32) & (file.words[at + 2] == 2)
    index = bool(bare[0]) and offsets[0] == 0
    return offsets[~bare], offsets[bare][int(index) :]


def _ids(file: RecordFile, offsets: Offsets) -> Offsets:
    """The records' own ids as keys, or their positions from 1 where the ids are not unique."""
    at = offsets // 4
    if len(at) and at.max() + 8 <= len(file.words):
        ids = file.words[at + 4].astype(np.int64) | (file.words[at + 5].astype(np.int64) & 0x7FFFFFFF) << 32
        if (np.diff(ids) > 0).all():
            return ids
    return np.arange(1, len(offsets) + 1)


def _labels_from_ranges(file: RecordFile, keys: Offsets, offsets: Offsets, ranges: Offsets) -> Labels | None:
    """Labels from the identity records `[first key, last key + 1)`: no need to touch every picture's page.

    The ranges are believed when they cover every picture once and agree with the headers of up to 2,000 pictures;
    otherwise None.
    """
    if not len(ranges):
        return None
    words = file.words
    at = ranges // 4
    if at.max() + 10 > len(words) or (words[at + 2] != 2).any():
        return None
    start = words[at + 8].view("<f4").astype(np.float64)
    stop = words[at + 9].view("<f4").astype(np.float64)
    if not (np.isfinite(start).all() and np.isfinite(stop).all()):
        return None
    order = np.argsort(start, kind="stable")
    covers = start[order][0] == keys[0] and stop[order][-1] == keys[-1] + 1
    if not covers or (start[order][1:] != stop[order][:-1]).any() or (stop <= start).any():
        return None
    owner = np.searchsorted(start[order], keys, side="right") - 1
    sample = np.unique(np.linspace(0, len(keys) - 1, 2000).astype(np.int64))
    head = _labels(file, offsets[sample])
    # One header label per range, and another for another range: then the header of each range's first picture is it.
    firsts = np.unique(owner, return_index=True)[1]
    values = _labels(file, offsets[firsts])
    if len(np.unique(values)) < len(values) or len(values) != len(ranges) or (values[owner[sample]] != head).any():
        return None
    return values[owner]


def _labels(file: RecordFile, offsets: Offsets) -> Labels:
    """The first label in each record's header, gathered for all records at once."""
    at = offsets // 4
    if len(at) and at.max() + 8 > len(file.words):
        raise DataError(f"{file.path}: truncated: the last record's header runs past the end ({file.size:,} bytes)")
    bad = np.flatnonzero(file.words[at] != MAGIC)
    if len(bad):
        file.read(int(offsets[bad[0]]))  # says what is there instead
    several = file.words[at + 2] > 0
    where = np.minimum(at + np.where(several, 8, 3), len(file.words) - 1)
    values = file.words[where].view("<f4").astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)) | (np.abs(values) > 2**31))
    if len(wrong):
        i = int(wrong[0])
        raise DataError(f"{file.path}: expected a whole number as label, got {values[i]} at byte {offsets[i]:,}")
    if len(values) and np.abs(values).max() >= _FLOAT_EXACT:
        log.warning(
            "%s: labels of %d and above are not exact in float32, in which a .rec keeps them; two people may have "
            "become one (the largest is %d)", file.path, _FLOAT_EXACT, int(np.abs(values).max()),
        )  # fmt: skip
    return values.astype(np.int64)


def _read_lst(path: Path, keys: Offsets, labels: Labels) -> tuple[str, ...] | None:
    """The names in a .lst of `key TAB label TAB name`, when it describes exactly these records."""
    if not path.is_file():
        return None
    names: dict[int, str] = {}
    owners: dict[str, int] = {}
    for number, line in read_lines(path):
        fields = line.split("\t")
        name = fields[-1].strip()
        if (
            len(fields) < 3
            or not re.fullmatch("[0-9]{1,18}", fields[0].strip())
            or "/" not in name
            or ".." in name.split("/")
        ):
            raise DataError(f"{path}, line {number}: expected `key TAB label TAB identity/picture`, got {line[:60]!r}")
        names[int(fields[0])] = name
    for key, label in zip(keys.tolist(), labels.tolist(), strict=True):
        # The list must name every picture, and one identity must be one label and the other way round.
        if key not in names or owners.setdefault(names[key].split("/")[0], label) != label:
            return None
    if len(owners) != len(np.unique(labels)) or len(set(names.values())) < len(names):
        return None
    return tuple(names[key] for key in keys.tolist())
