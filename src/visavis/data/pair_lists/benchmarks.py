"""The pair lists that benchmarks come with: .bin, CFP, CALFW and CPLFW, MassFace's pair folders, YouTube Faces."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from visavis.data.pair_lists.base import ListedPairs, build_pairs, even_folds
from visavis.data.pair_lists.dialect import Row, is_number
from visavis.data.sources.bin import BinSource, open_bin
from visavis.data.text import bad_line, natural_key, read_lines, relative
from visavis.errors import DataError
from visavis.metrics.kfold import contiguous_folds
from visavis.vision.images import is_image_path


def read_pair_set(path: str | os.PathLike[str], *, folds: int = 10) -> ListedPairs:
    """Read the comparisons of a .bin, of CFP's Protocol folder, or of a list of CALFW, CPLFW or MassFace.

    Raises:
        DataError: none of these; the message names the line.
    """
    path = Path(path)
    if path.is_dir():
        return read_cfp(path)
    if path.suffix.lower() == ".bin":
        return bin_pairs(open_bin(path), folds=folds)
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: expected a pair list, got an empty file")
    first = lines[0][1].rsplit(None, 1)[0].strip()
    return read_two_lines(path) if is_image_path(first) else read_pair_folders(path, folds=folds)


def bin_pairs(source: BinSource, *, folds: int = 10) -> ListedPairs:
    """The comparisons of a .bin, cut into contiguous folds as InsightFace does (the first ones longer by a pair)."""
    if folds < 1:
        raise DataError(f"the number of folds must be at least 1, got {folds}")
    names = source.names
    rows = [(names[2 * k], names[2 * k + 1], bool(same)) for k, same in enumerate(source.genuine)]
    return build_pairs(rows, contiguous_folds(len(rows), folds), path=str(source.path))


def read_two_lines(path: str | os.PathLike[str]) -> ListedPairs:
    """Read CALFW's and CPLFW's lists: two lines a pair, `image fold`, where 0 instead of a fold means impostor.

    A picture without folder is named by its person's: `Name_0001.jpg` becomes `Name/Name_0001.jpg`.
    Where every genuine pair says 1 (CPLFW), or impostor pairs do not follow in equal numbers, the pairs are cut into
    ten folds, genuine and impostor alike; otherwise the impostor pairs are dealt to the folds in order, as the genuine
    ones are.

    Raises:
        DataError: a line is no `image number`, the two lines of a pair disagree, or one is missing.
    """
    name = os.fspath(path)
    halves: list[tuple[int, str, int]] = []
    for number, line in read_lines(path):
        fields = line.strip().rsplit(None, 1)
        if len(fields) != 2 or not is_image_path(fields[0]) or not re.fullmatch("[0-9]{1,4}", fields[1]):
            raise bad_line(path, number, "`picture fold` (0: impostor)", line)
        image = relative(name, number, fields[0].strip())
        person = image.rpartition("_")[0]
        halves.append((number, f"{person}/{image}" if person and "/" not in image else image, int(fields[1])))
    if len(halves) % 2:
        raise DataError(f"{name}, line {halves[-1][0]}: expected two lines a pair, the last one stands alone")
    rows: list[Row] = []
    said: list[int] = []
    for (_, a, x), (number, b, y) in zip(halves[::2], halves[1::2], strict=True):
        if x != y:
            raise DataError(f"{name}, line {number}: the two lines of a pair must say the same number, got {x} and {y}")
        rows.append((a, b, x > 0))
        said.append(x)
    lines = [number for number, _, _ in halves[::2]]
    genuine = np.array(said) > 0
    folds = np.array(said)[genuine]
    fold = even_folds(genuine, 10)
    if folds.size and folds.max() > 1 and sorted(set(folds.tolist())) == list(range(1, int(folds.max()) + 1)):
        fold[genuine] = folds - 1
        count = int((~genuine).sum())
        fold[~genuine] = np.arange(count) * int(folds.max()) // max(1, count)
    return build_pairs(rows, fold, path=name, lines=lines)


def read_pair_folders(path: str | os.PathLike[str], *, folds: int = 10) -> ListedPairs:
    """Read MassFace's list (row M1), `PAIR 0|1` lines: folder PAIR, beside it or one level down, has two pictures.

    The two are taken in natural order (row M20: the original's order is the file system's).

    Raises:
        DataError: a line is no `PAIR 0|1`, or a pair's folder is missing or does not hold two pictures.
    """
    path = Path(path)
    rows: list[Row] = []
    numbers: list[int] = []
    root: Path | None = None
    for number, line in read_lines(path):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1") or "/" in fields[0] or fields[0] in (".", ".."):
            raise bad_line(path, number, "`PAIR 0|1`", line)
        if root is None:
            places = [path.parent, *sorted(p for p in path.parent.iterdir() if p.is_dir())]
            root = next((place for place in places if (place / fields[0]).is_dir()), path.parent)
        folder = root / fields[0]
        found = (
            sorted((p.name for p in folder.iterdir() if is_image_path(p)), key=natural_key) if folder.is_dir() else []
        )
        if len(found) != 2:
            what = f"{len(found)} pictures" if folder.is_dir() else "no such folder"
            raise DataError(f"{path}, line {number}: expected two pictures in {folder}, got {what}")
        rows.append((f"{fields[0]}/{found[0]}", f"{fields[0]}/{found[1]}", fields[1] == "1"))
        numbers.append(number)
    genuine = np.array([row[2] for row in rows])
    return build_pairs(rows, even_folds(genuine, folds), path=str(path), lines=numbers)


def read_cfp(protocol: str | os.PathLike[str], *, kind: str = "FP") -> ListedPairs:
    """Read CFP's protocol: Pair_list_F.txt and Pair_list_P.txt number the pictures, Split/KIND/NN the pairs of a fold.

    Args:
        protocol: the folder `Protocol` (or the one above it, or Split/FF or Split/FP in it, which sets `kind`).
        kind: FP (frontal against profile) or FF.

    Raises:
        DataError: a file is missing, or a line is not what it should be.
    """
    folder = Path(protocol)
    if folder.name in ("FF", "FP") and folder.parent.name == "Split":
        folder, kind = folder.parent.parent, folder.name
    if (folder / "Protocol").is_dir():
        folder = folder / "Protocol"
    if kind not in ("FF", "FP"):
        raise DataError(f"CFP has the protocols FF and FP, got {kind!r}")
    frontal = _numbered(folder / "Pair_list_F.txt")
    other = frontal if kind == "FF" else _numbered(folder / "Pair_list_P.txt")
    parts = sorted((p for p in (folder / "Split" / kind).glob("*") if p.is_dir()), key=lambda p: natural_key(p.name))
    if not parts:
        raise DataError(
            f"{folder / 'Split' / kind}: expected a folder for each fold with same.txt and diff.txt, got none"
        )
    rows: list[Row] = []
    fold: list[int] = []
    lines: list[int] = []
    for k, part in enumerate(parts):
        for file, same in (("same.txt", True), ("diff.txt", False)):
            for number, line in read_lines(part / file):
                fields = [field.strip() for field in line.split(",")]
                if len(fields) != 2 or fields[0] not in frontal or fields[1] not in other:
                    raise bad_line(part / file, number, "`number,number` of pictures in the pair lists", line)
                rows.append((frontal[fields[0]], other[fields[1]], same))
                fold.append(k)
                lines.append(number)
    return build_pairs(rows, np.array(fold, np.int64), path=str(folder / "Split" / kind), lines=lines)


def _numbered(path: Path) -> dict[str, str]:
    """The pictures of a `number path` list, named from the folder Images on."""
    names: dict[str, str] = {}
    for number, line in read_lines(path):
        fields = line.split(None, 1)
        if len(fields) != 2 or not is_number(fields[0]) or not is_image_path(fields[1].strip()):
            raise bad_line(path, number, "`number path`", line)
        name = fields[1].strip().replace("\\", "/")
        name = name.split("Images/", 1)[-1]
        names[fields[0]] = relative(str(path), number, name)
    return names


def read_video_pairs(path: str | os.PathLike[str]) -> ListedPairs:
    """Read YouTube Faces' `splits.txt`: a header, then `split, first, second, similarity, is same`; names are videos'.

    Raises:
        DataError: a line has another form.
    """
    rows: list[Row] = []
    folds: list[int] = []
    lines: list[int] = []
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 5 or not is_number(fields[0]) or fields[4] not in ("0", "1"):
            if number == 1:
                continue  # the header
            raise bad_line(path, number, "`split, video, video, similarity, 0|1`", line)
        rows.append((relative(str(path), number, fields[1]), relative(str(path), number, fields[2]), fields[4] == "1"))
        folds.append(int(fields[0]))
        lines.append(number)
    if not rows:
        raise DataError(f"{path}: expected video pairs, got none")
    return build_pairs(rows, np.array(folds, np.int64), path=str(path), lines=lines)
