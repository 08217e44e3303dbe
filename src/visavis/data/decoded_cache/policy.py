"""When decoded pictures are kept, where, and for how long; cache.py knows how."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from visavis.data.decoded_cache.cache import CachedSource, build_cache, decode_all, decoded_bytes, open_cache, shape_of
from visavis.data.sources.base import Source

log = logging.getLogger(__name__)


def cached(
    source: Source,
    folder: Path | None,
    *,
    size: tuple[int, int] | None = None,
    budget: float = 8e9,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """A source with its pictures decoded: opened from `folder`, or built there; the source itself beyond the budget.

    Without a folder, or where it cannot take the cache (no permission, a full disk), the pictures are in memory.

    Args:
        source: pictures of one shape, or of one aspect ratio when `size` is given.
        folder: where caches are kept; older ones go when together they exceed four budgets.
        size: (height, width) to which pictures are brought; None keeps theirs.
        budget: bytes the decoded pictures may take at most.
        workers: threads that decode.
        progress: called with (done, total).

    Raises:
        DataError: a picture cannot be read or has another shape.
    """
    needed = decoded_bytes(source, size)
    if needed > budget:
        log.info("%d pictures need %.2f GB decoded, the budget is %.2f GB: decoding as they are needed",
                 len(source), needed / 1e9, budget / 1e9)  # fmt: skip
        return source
    if folder is not None and (known := open_cache(source, folder, size=size)) is not None:
        log.info("decoded pictures from %s", known.file)
        if known.file is not None:
            known.file.touch()
        return known
    if folder is not None and has_room(folder, needed):
        prune(folder, keep=4 * budget - needed)
        for done in build_cache(source, folder, size=size, budget=budget, workers=workers):
            if progress is not None:
                progress(done, len(source))
        built = open_cache(source, folder, size=size)
        if built is not None:
            log.info("decoded pictures kept in %s", built.file)
            return built
    shape = size or shape_of(source)
    crops = np.empty((len(source), *shape, 3), np.uint8)
    for done in decode_all(source, crops, shape, resized=size is not None, workers=workers):
        if progress is not None:
            progress(done, len(source))
    return CachedSource(source, None, crops)


def has_room(folder: Path, needed: int) -> bool:
    """Whether a folder can be written and has room; where not, the pictures stay in memory."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        log.warning("%s: cannot keep decoded pictures there (%s): they stay in memory", folder, error.strerror)
        return False
    if os.access(folder, os.W_OK) and free > 1.1 * needed:
        return True
    log.warning(
        "%s: no room or no permission for %.2f GB of decoded pictures: they stay in memory", folder, needed / 1e9
    )
    return False


def prune(folder: Path, *, keep: float) -> None:
    """Remove what was used longest ago until at most `keep` bytes are left, and what a killed run left for a day."""
    found = []
    for path in [*folder.glob("decoded-*.npy"), *folder.glob("decoded-*.part")]:
        with suppress(OSError):
            status = path.stat()
            if path.suffix == ".part" and time.time() - status.st_mtime > 86_400:
                path.unlink()
            elif path.suffix == ".npy":
                found.append((status.st_mtime, status.st_size, path))
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if left <= keep:
            break
        with suppress(OSError):
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
            left -= size
