"""Distances against their definition."""

from __future__ import annotations

import torch

from visavis.losses.triplets.distances import l2, squared_l2, unit_rows


def rows(seed: int = 0, n: int = 8, dim: int = 5) -> torch.Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_distances_are_those_of_the_definition_in_float64() -> None:
    x, y = unit_rows(rows(0)), unit_rows(rows(1, n=6))
    plain = torch.tensor([[float(((a - b) ** 2).sum()) for b in y] for a in x], dtype=torch.float64)
    torch.testing.assert_close(squared_l2(x, y), plain, atol=1e-14, rtol=0)
    assert float(squared_l2(x, x).min()) == 0.0
    torch.testing.assert_close(l2(squared_l2(x, y)), plain.sqrt(), atol=1e-13, rtol=0)


def test_equal_rows_and_zero_rows_have_finite_gradients() -> None:
    x = torch.stack([torch.ones(4), torch.ones(4), torch.zeros(4), torch.tensor([1.0, 0, 0, 0])]).requires_grad_()
    l2(squared_l2(unit_rows(x), unit_rows(x))).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0
