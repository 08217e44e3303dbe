"""What the words behind a verb mean: pictures, folders, lists, standard input, videos, cameras and streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HELP = (
    "pictures; folders of them; lists (.txt, .tsv, .csv, .lst) of paths; - for a list on standard input;\n"
    "video files; a camera's number; an rtsp:// or http:// address"
)
_LISTS = frozenset({".txt", ".tsv", ".csv", ".lst"})


@dataclass(frozen=True)
class Input:
    """One picture, one video file, one live stream, or (`left out`) what is none of them, with the reason."""

    kind: Literal["picture", "video", "stream", "left out"]
    name: str
    reason: str = ""


def expand(words: Sequence[str]) -> Iterator[Input]:
    """What the words name, one at a time, so that a list on standard input is answered while it is written.

    Raises:
        DataError: a folder or list that cannot be read.
    """
    for word in words:
        if word == "-":
            for line in sys.stdin:
                if line.strip():
                    yield from _named(line.rstrip("\r\n"))
        else:
            yield from _named(word)


def is_endless(words: Sequence[str]) -> bool:
    """Whether one of the words names what does not end by itself."""
    return any(kind.kind == "stream" for word in words if word != "-" for kind in _plain(word))


def _plain(word: str) -> Iterator[Input]:
    """A word that is no folder and no list."""
    from visavis.vision.video import is_stream, is_video_path

    there = Path(word).exists()
    if not there and is_stream(word):
        yield Input("stream", word)
    elif is_video_path(word):
        yield Input("video", word)
    elif not (there and (Path(word).is_dir() or Path(word).suffix.lower() in _LISTS)):
        yield Input("picture", word)


def _named(word: str) -> Iterator[Input]:
    from visavis.data.sources.folder import find_images
    from visavis.data.sources.lists import read_list
    from visavis.vision.video import is_video_path

    if word[:5].lower() == "data:":
        yield Input("picture", word)
    elif Path(word).is_dir():
        names, skipped = find_images(Path(word))
        yield from (Input("picture", str(Path(word) / name)) for name in names)
        for name, reason in skipped:
            if is_video_path(name):
                yield Input("video", str(Path(word) / name))
            else:
                yield Input("left out", str(Path(word) / name), reason)
    elif Path(word).is_file() and Path(word).suffix.lower() in _LISTS:
        yield from (Input("picture", str(Path(word).parent / name)) for name in read_list(word).names)
    else:
        yield from _plain(word)


def tell_left_out(left_out: Sequence[Input]) -> None:
    """Say on standard error how many entries of folders are nothing to look at, and what the first of them is."""
    if left_out:
        first = left_out[0]
        print(f"{len(left_out):,} entries are no pictures, first: {first.name} ({first.reason})", file=sys.stderr)
