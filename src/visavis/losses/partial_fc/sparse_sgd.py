"""Rows of a parameter with a sparse gradient, and SGD that walks only the rows a step has looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float, Integer


def gather_rows(weight: Float[Tensor, "R D"], rows: Integer[Tensor, " K"]) -> Float[Tensor, "K D"]:
    """weight[rows] for different rows in rising order; the gradient of `weight` is sparse and holds those rows alone.

    Unlike torch.nn.functional.embedding's, it is known to be coalesced: nothing is sorted or added up again.
    """
    return _GatherRows.apply(weight, rows)  # pyright: ignore[reportReturnType]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape
        return weight.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(rows[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False), None


class SparseSGD(torch.optim.SGD):
    """torch.optim.SGD, and for parameters with a sparse gradient the same rule on the rows of that gradient alone.

    v ← μ v + (g + λ w),  w ← w − η v   (Nesterov: w ← w − η (g + λ w + μ v)), for the rows present.

    Rows that were not sampled keep weight and momentum as they are: no decay, no coasting. So a center's momentum
    counts the steps it was looked at, as in the published Partial FC (which carries the sampled rows' momentum in and
    out of a small optimizer). Dense parameters, and rows in the gradient at every step, follow torch.optim.SGD.

    Arguments, state (`momentum_buffer` of the parameter's shape) and errors are those of torch.optim.SGD.

    Source: Partial FC, arXiv:2010.05222 and its published code.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; the sparse parameters first, the others as torch.optim.SGD does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden: list[tuple[Tensor, Tensor]] = []
        try:
            for group in self.param_groups:
                for parameter in group["params"]:
                    gradient = parameter.grad
                    if gradient is not None and gradient.is_sparse:
                        self._step_rows(parameter, gradient, group)
                        hidden.append((parameter, gradient))
                        parameter.grad = None
            super().step()
        finally:
            for parameter, gradient in hidden:
                parameter.grad = gradient
        return loss

    def _step_rows(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        gradient = gradient.coalesce()
        rows, move = gradient.indices()[0], gradient.values()
        here = parameter.index_select(0, rows)
        if group["maximize"]:
            move = -move
        if group["weight_decay"]:
            move = torch.add(move, here, alpha=group["weight_decay"])
        if group["momentum"]:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            speed = (
                state["momentum_buffer"]
                .index_select(0, rows)
                .mul_(group["momentum"])
                .add_(move, alpha=1 - group["dampening"])
            )
            state["momentum_buffer"].index_copy_(0, rows, speed)
            move = torch.add(move, speed, alpha=group["momentum"]) if group["nesterov"] else speed
        parameter.index_copy_(0, rows, here.add_(move, alpha=-float(group["lr"])))
