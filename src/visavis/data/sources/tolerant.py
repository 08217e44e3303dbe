"""A source that puts another picture in the place of a damaged one, up to a number, and keeps account."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.types import ByteArray

log = logging.getLogger(__name__)


class TolerantSource(Source):
    """`base` with at most `limit` damaged pictures replaced, each by the next good one of the same identity.

    Where the identity has no other, the next good picture of anybody takes its place under the damaged one's label.
    The same picture is replaced by the same other in every process and after a resume. `damaged` maps the names found
    so far to the reasons.

    Args:
        base: the pictures.
        limit: how many damaged pictures are put up with.
    """

    def __init__(self, base: Source, limit: int) -> None:
        self.base, self.limit, self.path = base, limit, base.path
        self.names, self.identities, self.labels, self.skipped = base.names, base.identities, base.labels, base.skipped
        self.damaged: dict[str, str] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The bytes as they are stored, damaged or not."""
        return self.base.read(index)

    def image(self, index: int) -> ByteArray:
        """The picture, or the one that takes its place.

        Shapes: (H, W, 3).

        Raises:
            DataError: more than `limit` pictures are damaged.
        """
        for place in self._instead(index):
            try:
                return self.base.image(place)
            except DataError as error:
                self._note(place, error)
        raise DataError(f"{self.path}: no picture of it can be read; list what is wrong with: visavis validate SRC")

    def _instead(self, index: int) -> Iterator[int]:
        yield index
        own = np.flatnonzero(self.labels == self.labels[index])
        after = int(np.searchsorted(own, index, "right"))
        yield from (int(i) for i in np.roll(own, -after) if i != index)
        yield from (i % len(self) for i in range(index + 1, index + len(self)))

    def _note(self, index: int, error: DataError) -> None:
        name = self.names[index]
        with self._lock:
            if name in self.damaged:
                return
            self.damaged[name] = str(error)
            count = len(self.damaged)
        log.warning("damaged picture replaced (%d of at most %d): %s", count, self.limit, error)
        if count > self.limit:
            raise DataError(
                f"{self.path}: more than data.skip_damaged {self.limit} pictures are damaged, the last is {name}; list "
                "them all with: visavis validate SRC"
            ) from error
