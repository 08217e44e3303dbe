"""The published pair sets: LFW, CFP, AgeDB, CALFW, CPLFW, XQLFW from pictures or `.bin`; YouTube Faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.data.bin_sets import BinSource
from visavis.data.pairs import ListedPairs, build_pairs, check_pairs, even_folds, read_pairs
from visavis.data.sources import Source, open_source
from visavis.data.text import read_lines
from visavis.errors import DataError, ProtocolError
from visavis.evaluate.loading import Request, SourceImages, Task
from visavis.evaluate.pairs import PairProtocol
from visavis.evaluate.template_pairs import video_protocol

_LISTS = ("pairs.txt", "pairs_CALFW.txt", "pairs_CPLFW.txt", "xqlfw_pairs.txt")
_CFP_PAIRS = {"cfp-ff": "FF", "cfp-fp": "FP"}


def load_pairs(request: Request, *, name: str = "pairs") -> Task:
    """Pictures and a pair list (SRC/pairs.txt unless another is named), or a `.bin`, which holds both.

    Raises:
        ProtocolError: no pair list.
        DataError: the list or the pictures cannot be read, or a pair names a picture that is missing.
    """
    if request.data.suffix == ".bin":
        source = open_source(request.data, kind="bin")
        assert isinstance(source, BinSource)
        return Task(PairProtocol.of(source.pairs(), name=name), SourceImages(source), (request.data,))
    candidates = [request.pairs] if request.pairs else [request.data / listed for listed in _LISTS]
    listed = next((path for path in candidates if path.is_file()), None)
    if listed is None:
        raise ProtocolError(f"{candidates[0]}: expected a pair list, there is no such file; name one with --pairs FILE")
    pairs = read_two_line_pairs(listed) if _has_two_line_pairs(listed) else read_pairs(listed)
    source = open_source(request.data)
    check_pairs(pairs, source)
    return Task(PairProtocol.of(pairs, name=name), SourceImages(source), (listed,))


def load_cfp(request: Request, *, name: str) -> Task:
    """CFP from a `.bin`, from pictures with a pair list, or in its own layout: `Protocol/Split/FP/01/same.txt` ..."""
    protocol = request.data / "Protocol"
    if request.pairs or not protocol.is_dir():
        return load_pairs(request, name=name)
    pairs = read_cfp(protocol, _CFP_PAIRS[name])
    source = open_source(request.data / "Data" / "Images")
    check_pairs(pairs, source)
    return Task(PairProtocol.of(pairs, name=name), SourceImages(source), (protocol / "Pair_list_F.txt",))


def read_cfp(protocol: Path, kind: str) -> ListedPairs:
    """CFP's lists: `Pair_list_F.txt` and `_P.txt` number the pictures, `Split/FP/NN/{same,diff}.txt` pair them.

    Raises:
        DataError: a list is missing or names a number that is not listed.
    """
    listed = [_cfp_pictures(protocol / f"Pair_list_{side}.txt") for side in kind]
    rows, folds, lines = [], [], []
    splits = sorted(p for p in (protocol / "Split" / kind).glob("*") if p.is_dir())
    if not splits:
        raise DataError(f"{protocol / 'Split' / kind}: expected the folders 01 to 10, got none")
    for fold, split in enumerate(splits):
        for file, genuine in (("same.txt", True), ("diff.txt", False)):
            for number, line in read_lines(split / file):
                fields = line.strip().split(",")
                if len(fields) != 2 or any(f not in side for f, side in zip(fields, listed, strict=True)):
                    raise DataError(
                        f"{split / file}, line {number}: expected two numbers of the pair lists, got {line!r}"
                    )
                rows.append((listed[0][fields[0]], listed[1][fields[1]], genuine))
                folds.append(fold)
                lines.append(number)
    return build_pairs(rows, np.array(folds), path=str(protocol), lines=lines)


def _cfp_pictures(path: Path) -> dict[str, str]:
    """`17 ../Data/Images/002/frontal/07.jpg` as "17" -> "002/frontal/07.jpg"."""
    found = {}
    for number, line in read_lines(path):
        fields = line.split()
        if len(fields) != 2 or "/Images/" not in fields[1]:
            raise DataError(f"{path}, line {number}: expected a number and a path with /Images/, got {line.strip()!r}")
        found[fields[0]] = fields[1].split("/Images/", 1)[1]
    return found


def _has_two_line_pairs(path: Path) -> bool:
    """Whether a list is CALFW's or CPLFW's kind: `Name_0001.jpg 3`, two lines a pair."""
    lines = read_lines(path)
    fields = lines[0][1].split() if lines else []
    return len(fields) == 2 and not fields[0].isdigit() and fields[1].isdigit()


def read_two_line_pairs(path: Path) -> ListedPairs:
    """CALFW's and CPLFW's lists: a picture and a number a line, two lines a pair, the number 0 where they differ.

    Folds: as many as the largest number, genuine and impostor pairs alike, in order.

    Raises:
        DataError: an odd number of lines, or the two lines of a pair disagree.
    """
    lines = read_lines(path)
    if len(lines) % 2:
        raise DataError(f"{path}: expected two lines a pair, got {len(lines)} lines")
    rows: list[tuple[str, str, bool]] = []
    largest = 0
    for (number, a), (_, b) in zip(lines[::2], lines[1::2], strict=True):
        fields = [*a.split(), *b.split()]
        if len(fields) != 4 or not fields[1].isdigit() or fields[1] != fields[3]:
            raise DataError(f"{path}, line {number}: expected `picture number` twice with one number, got {a!r}, {b!r}")
        rows.append((_in_folder(fields[0]), _in_folder(fields[2]), fields[1] != "0"))
        largest = max(largest, int(fields[1]))
    fold = even_folds(np.array([row[2] for row in rows]), max(largest, 10) if largest <= 10 else 10)
    return build_pairs(rows, fold, path=str(path), lines=[number for number, _ in lines[::2]])


def _in_folder(name: str) -> str:
    """`Name_0001.jpg` as `Name/Name_0001.jpg`; a name with a folder stays."""
    return name if "/" in name else f"{name.rpartition('_')[0]}/{name}"


def load_youtube_faces(request: Request) -> Task:
    """YouTube Faces: 5,000 video pairs of `splits.txt`, each video the pooled frames of `PERSON/VIDEO/`.

    The option `frames` keeps so many frames of a video, spread evenly (all of them without).
    """
    source = open_source(request.data)
    videos = _videos(source)
    listed = request.pairs or _first(request.data, ("splits.txt", "pairs.txt"))
    pairs = read_video_pairs(listed)
    missing = [v for v in pairs.images if v not in videos]
    if missing:
        raise DataError(
            f"{listed}: {len(missing)} of {len(pairs.images)} videos have no frames, the first is {missing[0]}"
        )
    limit = request.options.get("frames")
    chosen = {v: _spread(videos[v], int(limit) if limit else len(videos[v])) for v in pairs.images}
    return Task(video_protocol(chosen, pairs, name="youtube-faces"), SourceImages(source), (listed,))


def read_video_pairs(path: Path) -> ListedPairs:
    """YouTube Faces' `splits.txt`: a header, then `split, first, second, similarity, is same` separated by commas.

    Raises:
        DataError: a line has another form.
    """
    rows, folds, lines = [], [], []
    for number, line in read_lines(path):
        fields = [f.strip() for f in line.split(",")]
        if len(fields) < 5 or not fields[0].isdigit() or fields[4] not in ("0", "1"):
            if number == 1:
                continue  # the header
            raise DataError(
                f"{path}, line {number}: expected `split, video, video, similarity, 0|1`, got {line[:80]!r}"
            )
        rows.append((fields[1], fields[2], fields[4] == "1"))
        folds.append(int(fields[0]))
        lines.append(number)
    if not rows:
        raise DataError(f"{path}: expected video pairs, got none")
    return build_pairs(rows, np.array(folds), path=str(path), lines=lines)


def _videos(source: Source) -> dict[str, list[str]]:
    """Frames by video, `PERSON/VIDEO`."""
    videos: dict[str, list[str]] = {}
    for name in source.names:
        videos.setdefault(name.rpartition("/")[0], []).append(name)
    return videos


def _spread(frames: list[str], count: int) -> list[str]:
    if len(frames) <= count:
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ProtocolError(f"{folder}: expected {' or '.join(names)}; name the list with --pairs FILE")
