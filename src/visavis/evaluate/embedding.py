"""Every picture of a protocol embedded once, in batches; what cannot be read is a failure to acquire, listed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError, VisavisError
from visavis.evaluate.cache import EmbeddingCache
from visavis.metrics.similarity import unit_rows
from visavis.types import ByteArray, Embedder

Images = Mapping[str, ByteArray] | Callable[[str], ByteArray]
Progress = Callable[[int, int], None]
_NO_NORMS = (
    "weighting by feature norm needs an embedder with `measure(crops)`, which this one lacks; leave --feature-norms out"
)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings (N, D) of `names`, unit rows; a row of NaN could not be acquired, `failed` says why.

    `norms` (N,): length of the raw feature of each picture, mirrored view fused in, NaN where it is not known;
    `view_norms` (N,): mean length of the raw features of its views, before they are fused.
    """

    names: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cached: int = 0
    norms: npt.NDArray[np.float32] | None = None
    view_norms: npt.NDArray[np.float32] | None = None

    def require_norms(self) -> npt.NDArray[np.float32]:
        """Lengths (N,) of the raw features.

        Raises:
            ProtocolError: the embedder gave unit vectors only.
        """
        if self.norms is None:
            raise ProtocolError(_NO_NORMS)
        return self.norms

    def __len__(self) -> int:
        return len(self.names)


def embed_images(
    embedder: Embedder,
    names: Sequence[str],
    images: Images,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    cache: EmbeddingCache | None = None,
    norms: bool = False,
) -> Embeddings:
    """Embed each of `names` once; memory holds one batch of pictures per picture shape.

    Args:
        images: maps a name to its aligned crop, uint8 (H, W, 3) RGB: a mapping or a function.
        progress: called with (pictures done, pictures in all).
        cache: embeddings by content digest; what it holds is not computed again.
        norms: keep the lengths of the raw features, which needs an embedder with `measure(crops)`.

    Raises:
        ProtocolError: not one picture could be embedded, the model gave embeddings
            that are not finite, or norms are wanted of an embedder that has none.
    """
    started = time.perf_counter()
    if norms and not hasattr(embedder, "measure"):
        raise ProtocolError(_NO_NORMS)
    run = _Run(embedder, names, cache, norms=norms)
    waiting: dict[tuple[int, ...], list[tuple[int, ByteArray, bytes]]] = {}
    try:
        for index, (crop, reason) in enumerate(_read(names, images)):
            if crop is None:
                run.failed[index] = reason
            elif not run.recall(index, crop):
                batch = waiting.setdefault(crop.shape, [])
                batch.append((index, crop, run.key))
                if len(batch) == batch_size:
                    run.embed(waiting.pop(crop.shape))
            if progress is not None:
                progress(index + 1, len(names))
        for batch in waiting.values():
            run.embed(batch)
    finally:
        if cache is not None:  # what a stopped run has embedded is not lost
            cache.flush()
    if len(run.failed) == len(names):
        first = next(iter(run.failed.items()), (0, "the list is empty"))
        where = f"; the first, {names[first[0]]}: {first[1]}" if names else ""
        raise ProtocolError(f"expected pictures to embed, could not use any of {len(names)}{where}")
    failed = {names[i]: reason for i, reason in sorted(run.failed.items())}
    lengths = (None, None) if run.norms is None else (run.norms[:, 0], run.norms[:, 1])
    return Embeddings(tuple(names), run.vectors, failed, time.perf_counter() - started, run.cached, *lengths)


def check_finite(vectors: npt.NDArray[np.floating], names: Sequence[str]) -> None:
    """Refuse embeddings (N, D) that are not finite: the model is broken, and no figure may be made of them.

    Raises:
        ProtocolError: says of how many of `names`, and of which first.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ProtocolError(
            f"the model gave embeddings that are not finite (NaN or infinity) for {len(bad)} of {len(vectors)} "
            f"pictures, the first {names[bad[0]]!r}: its weights or its precision are broken; use an earlier checkpoint"
        )


def _read(names: Sequence[str], images: Images) -> Iterator[tuple[ByteArray | None, str]]:
    """Each picture, or why it cannot be had."""
    get = images.__getitem__ if isinstance(images, Mapping) else images
    for name in names:
        try:
            crop = np.asarray(get(name))
        except KeyError:
            yield None, "not among the pictures given"
        except (VisavisError, OSError) as error:
            yield None, str(error) or type(error).__name__
        else:
            if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3:
                yield None, f"expected a uint8 (H, W, 3) RGB crop, got {crop.dtype} {crop.shape}"
            else:
                yield crop, ""


class _Run:
    """The state of one pass over the pictures."""

    def __init__(
        self,
        embedder: Embedder,
        names: Sequence[str],
        cache: EmbeddingCache | None,
        *,
        norms: bool,
    ) -> None:
        self.embedder, self.names, self.cache = embedder, names, cache
        self.vectors = np.full((len(names), embedder.dim), np.nan, np.float32)
        self.norms = np.full((len(names), 2), np.nan, np.float32) if norms else None
        self.failed: dict[int, str] = {}
        self.key = b""
        self.cached = 0
        self.embedded = 0

    def recall(self, index: int, crop: ByteArray) -> bool:
        """Fill in a cached embedding."""
        if self.cache is None:
            return False
        self.key = self.cache.key(crop)
        known = self.cache.get(self.key)
        if known is None:
            return False
        if self.norms is not None:
            lengths = self.cache.norms(self.key)
            if lengths is None:  # embedded when nobody asked for norms
                return False
            self.norms[index] = lengths
        self.vectors[index] = known
        self.cached += 1
        return True

    def _vectors(self, crops: ByteArray, rows: list[int]) -> npt.NDArray[np.floating]:
        """Unit rows of a batch; notes the lengths of the raw features if they are wanted."""
        if self.norms is None:
            return np.asarray(self.embedder.embed(crops))
        features, view_norms = getattr(self.embedder, "measure")(crops)  # noqa: B009 (not part of the contract)
        self.norms[rows] = np.stack([np.linalg.norm(features, axis=1), view_norms], axis=1)
        return unit_rows(features)

    def embed(self, batch: list[tuple[int, ByteArray, bytes]]) -> None:
        """Embed pictures of one shape."""
        rows = [index for index, _, _ in batch]
        try:
            found = self._vectors(np.stack([crop for _, crop, _ in batch]), rows)
        except VisavisError as error:
            if not self.embedded + self.cached:
                raise  # the first batch: the whole set does not fit the model, not one odd picture
            self.failed.update(dict.fromkeys(rows, str(error)))
            return
        if found.shape != (len(rows), self.embedder.dim):
            raise ProtocolError(f"expected embeddings {(len(rows), self.embedder.dim)} of the model, got {found.shape}")
        check_finite(found, [self.names[row] for row in rows])
        self.embedded += len(rows)
        for row, vector, (_, _, key) in zip(rows, found, batch, strict=True):
            self.vectors[row] = vector
            if self.cache is not None:
                self.cache.put(key, vector, norms=None if self.norms is None else self.norms[row])
