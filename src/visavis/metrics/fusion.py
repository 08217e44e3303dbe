"""Templates: many pictures of one subject as one vector, and the scores of millions of template comparisons.

    t = unit( Σ_m  (1/|m|) Σ_{i ∈ m}  w_i·x_i ),    w_i = detector score^d · feature norm^n

over the media m of a template (frames of one video are one medium): mean within, sum over media (reference systems, row
A7: N1 = norms kept, D1 = detector score as weight). Since all of it is linear until `unit`, it is one weighted sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError
from visavis.types import FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

_ROWS = 2048  # vectors gathered at a time: 4 MB of 512-d
_CELLS = 4_000_000  # scores of one block of the product: 16 MB
_SPARSE = 0.02  # below this share of the product's cells, gathered dot products are cheaper


@dataclass(frozen=True)
class Pooling:
    """Which pictures form which template: row i puts picture `image[i]` into `template[i]` (0..T−1) as `media[i]`."""

    image: IntArray
    template: IntArray
    media: IntArray

    def __post_init__(self) -> None:
        if not self.image.shape == self.template.shape == self.media.shape or self.image.ndim != 1:
            raise ProtocolError(
                f"templates want three vectors of one length, got {self.image.shape}, {self.template.shape}, "
                f"{self.media.shape}"
            )


def pool_templates(
    embeddings: Float[FloatArray, "N D"],
    pooling: Pooling,
    *,
    weights: Float[FloatArray, " N"] | None = None,
    templates: int | None = None,
) -> Float[npt.NDArray[np.float32], "T D"]:
    """Fuse picture embeddings (N, D) into template vectors (T, D), unit rows.

    Args:
        embeddings: a row of NaN was not acquired; the template is made of the others, a medium's mean likewise.
        pooling: rows of (picture, template, medium).
        weights: (N,) by picture: detector scores, feature norms, or their product; 1 if None.
        templates: T, if the last template may be empty.

    Returns:
        Unit rows; NaN for a template none of whose pictures could be acquired.
    """
    count = int(pooling.template.max()) + 1 if templates is None else templates
    acquired = np.isfinite(embeddings[:, 0])[pooling.image]
    image, template, media = pooling.image[acquired], pooling.template[acquired], pooling.media[acquired]
    order = np.lexsort((media, template)) if np.any(_falls(template, media)) else np.arange(len(image))
    image, template, media = image[order], template[order], media[order]
    starts = (
        np.flatnonzero(np.append(True, (template[1:] != template[:-1]) | (media[1:] != media[:-1])))
        if len(image)
        else order
    )
    sizes = np.diff(np.append(starts, len(image)))
    factor = np.repeat(1.0 / np.maximum(sizes, 1), sizes).astype(np.float32)
    if weights is not None:
        factor *= np.asarray(weights, np.float32)[image]
    result = np.zeros((count, embeddings.shape[1]), np.float32)
    in_order = bool(np.all(image[1:] == image[:-1] + 1))  # pictures listed by template, as IJB's are: no copy needed
    begins = np.flatnonzero(np.append(True, template[1:] != template[:-1])) if len(template) else order
    for first, last in zip(begins.tolist(), [*begins[1:].tolist(), len(template)], strict=False):
        rows = embeddings[image[first] : image[first] + last - first] if in_order else embeddings[image[first:last]]
        np.matmul(factor[first:last], rows, out=result[template[first]])
    norms = np.linalg.norm(result, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        result /= norms  # 0/0: the NaN of a template that was not acquired
    return result


def compare_templates(
    vectors: Float[FloatArray, "T D"], reference: Integer[IntArray, " N"], probe: Integer[IntArray, " N"]
) -> Float[npt.NDArray[np.float32], " N"]:
    """Cosines of millions of comparisons (N,) of template vectors (T, D), unit rows, at rows `reference` and `probe`.

    The comparison matrix of IJB is 20 to 40 % full, so the product of the distinct rows and columns is cheapest, a
    block of rows at a time, from which the wanted cells are picked. A matrix emptier than 2 % is computed by cell.
    """
    rows, row_of = _distinct(reference, len(vectors))
    columns, column_of = _distinct(probe, len(vectors))
    if not len(reference):
        return np.empty(0, np.float32)
    if len(reference) < _SPARSE * len(rows) * len(columns):
        return _by_cell(vectors, reference, probe)
    result = np.empty(len(reference), np.float32)
    right = np.ascontiguousarray(vectors[columns].T)
    height = max(1, min(len(rows), _CELLS // len(columns)))
    block = np.empty((height, len(columns)), np.float32)
    flat = block.reshape(-1)
    for first, places in _by_row_block(row_of, reference, height, len(rows)):
        left = vectors[rows[first : first + height]]
        np.matmul(left, right, out=block[: len(left)])
        cell = row_of[reference[places]]
        cell -= first
        cell *= len(columns)
        cell += column_of[probe[places]]
        result[places] = flat[cell]
    return result


def _by_row_block(row_of: IntArray, reference: IntArray, height: int, rows: int) -> Iterator[tuple[int, IntArray]]:
    """For each block of rows, the comparisons in it: places in the list, found by a count of the blocks' sizes."""
    number = (row_of // height).astype(np.uint16 if rows // height < 1 << 16 else np.int32)[reference]
    for k in range(-(-rows // height)):
        places = np.flatnonzero(number == k)
        if len(places):
            yield k * height, places


def _by_cell(vectors: FloatArray, reference: IntArray, probe: IntArray) -> npt.NDArray[np.float32]:
    result = np.empty(len(reference), np.float32)
    for start in range(0, len(reference), _ROWS):
        part = slice(start, start + _ROWS)
        np.vecdot(vectors[reference[part]], vectors[probe[part]], out=result[part])
    return result


def _distinct(values: IntArray, bound: int) -> tuple[IntArray, npt.NDArray[np.int32]]:
    """The distinct values in rising order, and by value its place among them."""
    used = np.zeros(bound, bool)
    used[values] = True
    return np.flatnonzero(used), np.cumsum(used, dtype=np.int32) - 1


def _falls(template: IntArray, media: IntArray) -> npt.NDArray[np.bool_]:
    """Where rows are not yet grouped in rising order."""
    return (template[1:] < template[:-1]) | ((template[1:] == template[:-1]) & (media[1:] < media[:-1]))
