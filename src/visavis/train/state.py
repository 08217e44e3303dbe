"""All that changes while a run trains, saved and loaded as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visavis.distributed.launch import World, from_all
from visavis.losses.partial_fc.sharded_checkpoint import (
    load_module_state,
    load_optimizer_state,
    module_state,
    optimizer_state,
)
from visavis.train.objective import Objective
from visavis.train.optimizers import ExponentialMovingAverage
from visavis.train.triplet_pools import Pool


@dataclass
class TrainState:
    """Network, class centers, optimizer, average, scaler, triplet pool, and how far they have come.

    `in_a_row` counts the steps without a finite loss since the last one that had one; `good_step` is the step of the
    last checkpoint, which holds the last state known to be good (None before the first).
    """

    network: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ExponentialMovingAverage | None = None
    pool: Pool | None = None
    step: int = 0
    skipped: int = 0
    in_a_row: int = 0
    best: float = -1.0
    good_step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; of what is split over ranks, this rank's rows. All ranks must call it."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "best": self.best,
            "network": module_state(self.network),
            "objective": module_state(self.objective),
            "optimizer": optimizer_state(self.optimizer, self._both),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
            "pool": self.pool.state_dict() if self.pool else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, on any number of ranks.

        Raises:
            ModelFormatError: it belongs to another network, head or optimizer.
        """
        self.step, self.skipped, self.best = int(state["step"]), int(state["skipped"]), float(state["best"])
        self.good_step = self.step
        load_module_state(self.network, state["network"])
        load_module_state(self.objective, state["objective"])
        load_optimizer_state(self.optimizer, self._both, state["optimizer"])
        self.scaler.load_state_dict(dict(state["scaler"]))
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        if self.pool:
            self.pool.load_state_dict(state["pool"])

    def find_not_finite(self, world: World) -> str:
        """Name a tensor of any rank that holds NaN or an infinity; "" where all are finite. All ranks must call it."""
        own = next((name for name, value in self._tensors() if not _is_finite(value)), "")
        return next((name for name in from_all(own, world) if name), "")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with its averaged weights, if there are any, for as long as the block lasts."""
        if self.ema is None:
            yield
            return
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema.values)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    @property
    def _both(self) -> nn.Module:
        return nn.ModuleDict({"network": self.network, "objective": self.objective})

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self._both.state_dict().items():
            yield name, value
        for name, entries in optimizer_state(self.optimizer, self._both).items():
            for key, value in entries.items():
                found = getattr(value, "tensor", value)
                if isinstance(found, Tensor):
                    yield f"the optimizer's {key} of {name}", found
        if self.ema:
            for name, value in self.ema.values.items():
                yield f"the average of {name}", value


def _is_finite(value: Tensor) -> bool:
    own = value.to_local() if isinstance(value, DTensor) else value
    if not own.is_floating_point() or not own.numel():
        return True
    return bool(torch.linalg.vector_norm(own.detach(), ord=float("inf")).isfinite())  # no copy of the tensor's size
