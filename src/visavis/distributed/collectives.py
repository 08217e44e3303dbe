"""The few collectives of a head whose classes are split over ranks.

Every rank computes the same function of the gathered batch; only what involves its own classes is partial, and is
summed at once. So every gradient above that point is complete and the same on all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class RankGroup:
    """A process group, or one process alone (the collectives then do nothing).

    Args:
        group: the group to use; the default group if torch.distributed is initialized and `alone` is False.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, *, alone: bool = False) -> None:
        self.group = group
        together = not alone and dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size(group) if together else 1
        self.rank = dist.get_rank(group) if together else 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the ranks, in place; of any shape (N, ...)."""
        if self.size > 1:
            dist.all_reduce(value, group=self.group)
        return value

    def max(self, value: Tensor) -> Tensor:
        """The largest over the ranks, in place; of any shape (N, ...)."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return value

    def first(self, number: int, device: torch.device | None = None) -> int:
        """A whole number of the first rank, on every rank."""
        if self.size == 1:
            return number
        value = torch.tensor([number], dtype=torch.int64, device=device)
        dist.broadcast(value, dist.get_global_rank(self.group, 0) if self.group else 0, group=self.group)
        return int(value.item())

    def counts(self, number: int, device: torch.device) -> list[int]:
        """A whole number of every rank."""
        if self.size == 1:
            return [number]
        values = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(values, torch.tensor([number], dtype=torch.int64, device=device), group=self.group)
        return [int(value.item()) for value in values]

    def gather(self, value: Tensor, counts: list[int]) -> Tensor:
        """The rows of all ranks, in their order; ranks may have different numbers of them. No gradient.

        Shapes: (n, ...) -> (N, ...), N the sum of the ranks' n.
        """
        if self.size == 1:
            return value
        most = max(counts)
        padded = torch.cat([value, value.new_zeros(most - len(value), *value.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather_with_gradient(self, value: Tensor, counts: list[int], *, complete: bool = False) -> Tensor:
        """As `gather`; the gradient of this rank's rows is the sum over the ranks of what each wants of them.

        Shapes: (n, ...) -> (N, ...).

        DistributedDataParallel averages what the ranks give it: then that is the gradient of the mean of the ranks'
        losses, whether each computes the loss of its own anchors or all the same loss of the whole batch.

        Args:
            value: rows of this rank (n, ...).
            counts: how many rows each rank has.
            complete: the same gradient arrives on every rank already (the sharded softmax summed it), so the sum is
                `size` times this rank's and nothing is sent.
        """
        if self.size == 1:
            return value
        return _Gather.apply(value, self, counts, complete)  # pyright: ignore[reportReturnType]

    def log_sum_exp(self, value: Tensor) -> Tensor:
        """log Σ exp over the ranks, with gradient towards this rank's part; (B,) -> (B,)."""
        return value if self.size == 1 else _LogSumExp.apply(value, self)  # pyright: ignore[reportReturnType]

    def total(self, value: Tensor) -> Tensor:
        """The sum over the ranks, with gradient towards this rank's part; of any shape (N, ...)."""
        return value if self.size == 1 else value + (self.sum(value.detach().clone()) - value.detach())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: RankGroup, counts: list[int], complete: bool) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        start = sum(counts[: ranks.rank])
        ctx.rows, ctx.ranks, ctx.complete = slice(start, start + len(value)), ranks, complete
        return ranks.gather(value, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.complete:
            return gradient[ctx.rows] * ctx.ranks.size, None, None, None
        return ctx.ranks.sum(gradient.contiguous().clone())[ctx.rows], None, None, None


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: RankGroup) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        highest = ranks.max(value.clone())
        low = torch.finfo(value.dtype).min
        shift = highest.clamp_min(low)  # nobody has a negative: −∞ − −∞
        whole = shift + ranks.sum((value - shift).exp()).log()
        ctx.save_for_backward(value, whole)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        value, whole = ctx.saved_tensors
        return gradient * (value - whole.clamp_min(torch.finfo(whole.dtype).min)).exp(), None
