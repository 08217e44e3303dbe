"""The best of growing sets of distractors for each probe, in one pass and bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visavis.types import FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

_BLOCK = 8192


def growing_distractors(
    probes: Float[FloatArray, "P D"],
    vectors: Float[FloatArray, "N D"],
    order: Integer[IntArray, " K"],
    sizes: Sequence[int],
    *,
    keep: int,
) -> Float[npt.NDArray[np.float32], "S P {keep}"]:
    """For each of `sizes` (rising) the `keep` highest similarities of each probe to the first so many of `order`.

    Args:
        probes: (P, D), unit rows; a row of NaN was not acquired and is given +inf, so that it finds nobody.
        vectors: (N, D); a row of NaN is no distractor.
        order: places in `vectors`.
        sizes: how many of them, at most len(order).
        keep: how many similarities.

    Returns:
        (sizes, P, keep), each row falling, −inf where there are fewer distractors than `keep`.
    """
    lost = np.isnan(probes).any(axis=1)
    safe = np.nan_to_num(probes).astype(np.float32)
    top = np.full((len(probes), keep), -np.inf, np.float32)
    result = np.empty((len(sizes), len(probes), keep), np.float32)
    done = 0
    for k, size in enumerate(sizes):
        while done < size:
            rows = vectors[order[done : min(size, done + _BLOCK)]]
            good = np.isfinite(rows).all(axis=1)
            scores = np.asarray(safe @ np.nan_to_num(rows).T, np.float32)
            scores[:, ~np.asarray(good)] = -np.inf
            top = _highest(np.concatenate([top, scores], axis=1), keep)
            done += len(rows)
        result[k] = -np.sort(-top, axis=1)
    result[:, lost] = np.inf
    return result


def _highest(scores: npt.NDArray[np.float32], keep: int) -> npt.NDArray[np.float32]:
    return np.partition(scores, scores.shape[1] - keep, axis=1)[:, scores.shape[1] - keep :]
