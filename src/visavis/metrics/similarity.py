"""Rows of length 1, between which the dot product is the cosine."""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt

EPSILON = 1e-12  # smallest length divided by, as in torch.nn.functional.normalize


@overload
def unit_rows(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...
@overload
def unit_rows(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
@overload
def unit_rows(features: npt.ArrayLike) -> npt.NDArray[np.floating]: ...


def unit_rows(features: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Features (N, D), or (D,), scaled to length 1: x / max(‖x‖, 10⁻¹²); a row of zeros stays zero, NaN stays NaN.

    float64 stays float64, everything else becomes float32.
    """
    rows = np.asarray(features)
    rows = rows.astype(np.float64 if rows.dtype == np.float64 else np.float32, copy=False)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), EPSILON)


def matches(similarities: npt.ArrayLike, threshold: float) -> npt.NDArray[np.bool_]:
    """Which similarities reach the threshold; NaN never does.

    Shapes: any shape (N, ...) -> the same.

    Compared in double precision: NumPy would round a Python float to the single precision of the scores, and let pass
    what lies below a threshold between two of them.
    """
    return np.asarray(np.greater_equal(similarities, np.float64(threshold)))
