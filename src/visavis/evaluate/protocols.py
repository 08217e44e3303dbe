"""PROTOCOLS: name -> loader. A new protocol is one file and one line here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visavis.data.pairs import check_pairs, read_pairs
from visavis.data.sources import Source, open_source
from visavis.errors import ProtocolError, unknown_name
from visavis.evaluate.pairs import PairProtocol
from visavis.evaluate.protocol import EvaluationProtocol
from visavis.types import ByteArray


@dataclass(frozen=True)
class Request:
    """What a user asked for: the data, perhaps a list of its own, and further `options` by name."""

    data: Path
    pairs: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A protocol and where its pictures come from; `digest_files` are the lists that define it."""

    protocol: EvaluationProtocol
    images: Callable[[str], ByteArray]
    digest_files: tuple[Path, ...] = ()


Loader = Callable[[Request], Task]


class SourceImages:
    """Pictures of a source by name."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, name: str) -> ByteArray:
        """Decode the picture of that name."""
        return self.source.image(self.source.index_of(name))


def load_pairs(request: Request) -> Task:
    """Pictures by folder and a pair list: SRC/pairs.txt unless another is named; or a .bin that holds both."""
    source = open_source(request.data)
    listed = request.pairs or Path(request.data) / "pairs.txt"
    if not listed.is_file():
        raise ProtocolError(f"{listed}: expected a pair list; name one with --pairs FILE")
    pairs = read_pairs(listed)
    check_pairs(pairs, source)
    return Task(PairProtocol.of(pairs), SourceImages(source), (listed,))


PROTOCOLS: dict[str, Loader] = {
    "pairs": load_pairs,
}


def load_protocol(
    name: str, data: str | os.PathLike[str], *, pairs: str | os.PathLike[str] | None = None, **options: Any
) -> Task:
    """Open a protocol's data.

    Raises:
        ProtocolError: unknown name, or the data lacks what the protocol needs.
        DataError: the data cannot be read.
    """
    if name not in PROTOCOLS:
        raise ProtocolError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name](Request(Path(data), Path(pairs) if pairs is not None else None, options))
