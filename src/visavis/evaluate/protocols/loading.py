"""What a protocol's loader is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visavis.data.pair_lists.base import check_pairs, find_images
from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.evaluate.protocols.base import EvaluationProtocol
from visavis.types import ByteArray, Pairs


@dataclass(frozen=True)
class ProtocolArgs:
    """What a user asked for: the data, perhaps a list of its own, and further `options` by name."""

    data: Path
    pairs: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedProtocol:
    """A protocol and where its pictures come from; `lists` are the files that define it."""

    protocol: EvaluationProtocol
    images: Callable[[str], ByteArray]
    lists: tuple[Path, ...] = ()


ProtocolLoader = Callable[[ProtocolArgs], LoadedProtocol]


class SourceImages:
    """Pictures of a source by name."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, name: str) -> ByteArray:
        """Decode the picture of that name."""
        place = self.source.position(name)
        if place is None:
            raise DataError("missing from the data")
        return self.source.image(place)


class ManySources:
    """Pictures of several sources, named `KEY/name`."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = {key: SourceImages(source) for key, source in sources.items()}

    def __call__(self, name: str) -> ByteArray:
        """Decode the picture of that name."""
        key, _, rest = name.partition("/")
        return self.sources[key](rest)


def require_images(pairs: Pairs, source: Source, request: ProtocolArgs) -> None:
    """Refuse a list that names missing pictures, unless `allow_missing` makes them failures to acquire.

    Raises:
        DataError: pictures are missing and that is not allowed; or all of them are.
    """
    if request.options.get("allow_missing") and np.any(find_images(pairs, source) >= 0):
        return
    try:
        check_pairs(pairs, source)
    except DataError as error:
        raise DataError(f"{error}; --allow-missing counts missing pictures as failures to acquire") from error
