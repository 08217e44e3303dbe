"""The published pair sets: LFW, CFP, AgeDB, CALFW, CPLFW, XQLFW from pictures or `.bin`; YouTube Faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.data.pair_lists.benchmarks import bin_pairs, read_cfp, read_video_pairs
from visavis.data.pair_lists.reader import PLAIN, read_pairs
from visavis.data.sources import open_source
from visavis.data.sources.base import Source
from visavis.data.sources.bin import BinSource
from visavis.data.sources.folder import holds_only_images
from visavis.errors import DataError, ProtocolError
from visavis.evaluate.protocols.loading import LoadedProtocol, ProtocolArgs, SourceImages, require_images
from visavis.evaluate.protocols.pairs import PairProtocol
from visavis.evaluate.protocols.template_verification import video_protocol

_LISTS = ("pairs.txt", "*pair*.txt", "*_ann.txt")  # AgeDB-30 and others circulate with NAME_ann.txt
_CFP_PAIRS = {"cfp-ff": "FF", "cfp-fp": "FP"}


def load_pairs(request: ProtocolArgs, *, name: str = "pairs") -> LoadedProtocol:
    """Pictures and a pair list (SRC/pairs.txt unless another is named), or a `.bin`, which holds both.

    The option `dialect` says how the list is written.

    Raises:
        ProtocolError: no pair list, or several.
        DataError: the list or the pictures cannot be read, or a pair names a picture that is missing.
    """
    if request.data.suffix == ".bin":
        source = open_source(request.data, kind="bin")
        assert isinstance(source, BinSource)
        return LoadedProtocol(PairProtocol.of(bin_pairs(source), name=name), SourceImages(source), (request.data,))
    listed = request.pairs or _find_list(request.data)
    if not listed.exists():
        raise ProtocolError(f"{listed}: expected a pair list, there is no such file; name one with --pairs FILE")
    pairs = read_pairs(listed, request.options.get("dialect") or PLAIN)
    source = _images(request.data)
    require_images(pairs, source, request)
    return LoadedProtocol(
        PairProtocol.of(pairs, name=name), SourceImages(source), (listed,) if listed.is_file() else ()
    )


def _find_list(data: Path) -> Path:
    """SRC/pairs.txt, else the only file that is called like a list."""
    found: list[Path] = []
    for pattern in _LISTS:
        found = sorted(data.glob(pattern))
        if found:
            break
    if len(found) > 1:
        raise ProtocolError(
            f"{data}: expected one pair list, got {', '.join(p.name for p in found[:4])}; choose with --pairs FILE"
        )
    return found[0] if found else data / "pairs.txt"


def _images(data: Path) -> Source:
    """The pictures of a set: a folder a person, or all side by side, as CALFW and CPLFW come."""
    for folder in (data, data / "images", data / "aligned images"):
        if folder.is_dir() and holds_only_images(folder):
            return open_source(folder, kind="flat")
    return open_source(data)


def load_cfp(request: ProtocolArgs, *, name: str) -> LoadedProtocol:
    """CFP from a `.bin`, from pictures with a pair list, or in its own layout: `Protocol/Split/FP/01/same.txt` ..."""
    protocol = request.data / "Protocol"
    if request.pairs or not protocol.is_dir():
        return load_pairs(request, name=name)
    pairs = read_cfp(protocol, kind=_CFP_PAIRS[name])
    source = open_source(request.data / "Data" / "Images")
    require_images(pairs, source, request)
    return LoadedProtocol(PairProtocol.of(pairs, name=name), SourceImages(source), (protocol / "Pair_list_F.txt",))


def load_youtube_faces(request: ProtocolArgs) -> LoadedProtocol:
    """YouTube Faces: 5,000 video pairs of `splits.txt`, each video the pooled frames of `PERSON/VIDEO/`.

    The videos lie in SRC or, as they are shipped, in SRC/aligned_images_DB.

    The option `frames` keeps so many frames of a video, spread evenly (all of them without).
    """
    tree = request.data / "aligned_images_DB"
    source = open_source(tree if tree.is_dir() else request.data)
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
    norms = bool(request.options.get("norms", False))
    return LoadedProtocol(
        video_protocol(chosen, pairs, name="youtube-faces", use_norms=norms), SourceImages(source), (listed,)
    )


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
