"""The kernels for the CPU and those for other devices give the same answers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.triplets import rows


def numbers(q: int, r: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Distances with ties, zeros and masked entries."""
    rng = torch.Generator().manual_seed(seed)
    values = (torch.rand(q, r, generator=rng, dtype=dtype) * 20).round() / 5
    return values.masked_fill(torch.rand(q, r, generator=rng) < 0.3, float("inf"))


SIZES = {"q": st.integers(1, 9), "r": st.integers(1, 12), "seed": st.integers(0, 9999)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_row_minimum(dtype: torch.dtype, q: int, r: int, seed: int) -> None:
    values = numbers(q, r, seed, dtype)
    above = numbers(q, 1, seed + 1, dtype)[:, 0].nan_to_num(posinf=0.0)
    for floor in (None, above):
        (a, i), (b, j) = rows._row_min_numpy(values, floor), rows._row_min_torch(values, floor)
        assert torch.equal(a, b)
        finite = torch.isfinite(a)
        assert torch.equal(i[finite], j[finite])


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 5), **SIZES)
def test_where_below(q: int, r: int, k: int, seed: int) -> None:
    values, limit = numbers(q, r, seed, torch.float32), -numbers(q, k, seed + 1, torch.float32) + 3
    names = torch.arange(q * k).view(q, k), torch.arange(q)[:, None].expand(q, k)
    for a, b in zip(
        rows._where_below_numpy(values, limit, *names), rows._where_below_torch(values, limit, *names), strict=True
    ):
        assert torch.equal(a, b)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    values, limit = numbers(30, 12, 0, torch.float32), numbers(30, 4, 1, torch.float32).nan_to_num(posinf=0)
    names = torch.arange(120).view(30, 4)
    whole = rows.where_below(values, limit, names)
    monkeypatch.setattr(rows, "_MOST", 100)
    assert all(torch.equal(a, b) for a, b in zip(rows.where_below(values, limit, names), whole, strict=True))
    assert len(whole[0]) > 50
