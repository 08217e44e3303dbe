"""Rows of all ranks on every rank, with their gradient: mining is global (row M10), whatever each rank holds."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from visavis.distributed.collectives import RankGroup


def world_size() -> int:
    """How many processes train together; 1 outside torchrun."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Stack the rows (n, ...) of all ranks, in rank order, and say where this rank's begin.

    The ranks may hold different numbers of rows. See `RankGroup.gather_with_gradient`.
    """
    ranks = RankGroup()
    counts = ranks.counts(len(rows), rows.device)
    whole = ranks.gather_with_gradient(rows, counts) if rows.requires_grad else ranks.gather(rows, counts)
    return whole, sum(counts[: ranks.rank])


def total(count: int, device: torch.device) -> int:
    """Sum of a whole number over all ranks."""
    if world_size() == 1:
        return count
    number = torch.tensor(count, device=device)
    distributed.all_reduce(number)
    return int(number)
