"""What a protocol's loader is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visavis.data.sources import Source
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
    """A protocol and where its pictures come from; `lists` are the files that define it."""

    protocol: EvaluationProtocol
    images: Callable[[str], ByteArray]
    lists: tuple[Path, ...] = ()


Loader = Callable[[Request], Task]


class SourceImages:
    """Pictures of a source by name."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, name: str) -> ByteArray:
        """Decode the picture of that name."""
        return self.source.image(self.source.index_of(name))


class ManySources:
    """Pictures of several sources, named `KEY/name`."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = {key: SourceImages(source) for key, source in sources.items()}

    def __call__(self, name: str) -> ByteArray:
        """Decode the picture of that name."""
        key, _, rest = name.partition("/")
        return self.sources[key](rest)
