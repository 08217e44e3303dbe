"""Rows of all ranks on every rank, with their gradient: mining is global (row M10), whatever each rank holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """How many processes train together; 1 outside torchrun."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Stack the rows (n_r, ...) of all ranks, in rank order, and say where this rank's begin.

    RankGroup may hold different numbers of rows. The gradient of a row is the sum of what all ranks ask of it.
    """
    if world_size() == 1:
        return rows, 0
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(c) for c in counts]
    begin = sum(sizes[: distributed.get_rank()])
    if rows.requires_grad:
        return _Gather.apply(rows, sizes, begin), begin  # pyright: ignore[reportReturnType]
    return _gather(rows, sizes), begin


def total(count: int, device: torch.device) -> int:
    """Sum of a whole number over all ranks."""
    if world_size() == 1:
        return count
    number = torch.tensor(count, device=device)
    distributed.all_reduce(number)
    return int(number)


def _gather(rows: Tensor, sizes: list[int]) -> Tensor:
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], begin: int) -> Tensor:
        ctx.own = slice(begin, begin + len(rows))
        return _gather(rows, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0].contiguous()
        distributed.all_reduce(grad)
        return grad[ctx.own], None, None
