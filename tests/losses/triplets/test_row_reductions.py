"""The row operations against their definitions, with ties, zeros and masked entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.losses.triplets import row_reductions as rows


def numbers(q: int, r: int, seed: int, dtype: Any = np.float32) -> Any:
    """Distances with ties, zeros and masked entries."""
    rng = np.random.default_rng(seed)
    values = (rng.random((q, r)) * 20).round() / 5
    return np.where(rng.random((q, r)) < 0.3, np.inf, values).astype(dtype)


SIZES = {"q": st.integers(1, 9), "r": st.integers(1, 12), "seed": st.integers(0, 9999)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_row_minima(dtype: Any, q: int, r: int, seed: int) -> None:
    values = numbers(q, r, seed, dtype)
    smallest, column = rows.row_min(values)
    assert smallest.tolist() == [min(row) for row in values.tolist()]
    assert column.tolist() == [row.index(min(row)) for row in values.tolist()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_row_minima_above_a_floor(dtype: Any, q: int, r: int, seed: int) -> None:
    values, floor = numbers(q, r, seed, dtype), np.nan_to_num(numbers(q, 1, seed + 1, dtype)[:, 0], posinf=0.0)
    found, column = rows.row_min_above(values, floor)
    for row, low, value, at in zip(values.tolist(), floor.tolist(), found.tolist(), column.tolist(), strict=True):
        wanted = min((v for v in row if v > low), default=np.inf)
        assert value == wanted
        assert value == np.inf or row.index(wanted) == at


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 5), **SIZES)
def test_columns_below_limits(q: int, r: int, k: int, seed: int) -> None:
    values, limit = numbers(q, r, seed), 3 - numbers(q, k, seed + 1)
    counts, columns = rows.below(values, limit)
    wanted = [[[n for n in range(r) if values[i, n] < limit[i, j]] for j in range(k)] for i in range(q)]
    assert counts.tolist() == [[len(slot) for slot in row] for row in wanted]
    assert columns.tolist() == [n for row in wanted for slot in row for n in slot]


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    values, limit = numbers(30, 12, 0), np.nan_to_num(numbers(30, 4, 1), posinf=0.0)
    whole = rows.below(values, limit)
    monkeypatch.setattr(rows, "_MOST", 100)
    assert all(np.array_equal(a, b) for a, b in zip(rows.below(values, limit), whole, strict=True))
    assert len(whole[1]) > 50
