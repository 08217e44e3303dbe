"""One optimizer step: forward and backward of each part of the batch, clip, and go only where all is finite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visavis import seeding
from visavis.distributed import launch as distributed
from visavis.distributed.device import autocast
from visavis.train.build import Training
from visavis.train.loader import Batch
from visavis.train.objective import is_finite
from visavis.train.optimizers import clip_gradients, set_learning_rate
from visavis.train.running_statistics import RunningStatistics
from visavis.train.state import TrainState

log = logging.getLogger(__name__)
_COUNTERS = {"iteration", "steps"}


@dataclass(frozen=True)
class StepResult:
    """What one step showed: mean loss over the global batch, the gradient's norm before clipping, the rate.

    `finite` is False where the step was skipped; `stop` is True when any rank was asked to stop; `batch` is the last
    part of this rank's share.
    """

    loss: Tensor
    norm: Tensor
    rate: float
    finite: bool
    stop: bool
    batch: Batch


def train_step(training: Training, state: TrainState, batches: Iterator[Batch], *, stop: bool = False) -> StepResult:
    """Take one step of `state`; where loss or gradient are not finite, nothing of the state changes but its counts.

    The loss is the mean over the parts of the batch and over the ranks; the learning rate that of the schedule.
    """
    rate = set_learning_rate(state.optimizer, training.schedule(state.step))
    statistics = RunningStatistics(state.network)
    torch.manual_seed(seeding.derived(training.recipe.seed, "dropout", state.step, training.world.rank))
    try:
        loss, batch = _accumulate(training, state, batches)
    except Exception:  # an image that cannot be read, say, after other parts of the batch
        statistics.restore()
        raise
    state.scaler.unscale_(state.optimizer)
    loss = distributed.mean(loss, training.world)
    wanted = training.recipe.optimizer
    norm, stop = clip_gradients(
        state.network, state.objective, wanted.clip_norm, stop=stop, backbone_alone=wanted.clip == "backbone"
    )
    finite = is_finite(loss, norm)
    if finite:
        state.scaler.step(state.optimizer)
        state.in_a_row = 0
        if state.ema:
            state.ema.update(state.network)
    else:
        statistics.restore()
        state.skipped, state.in_a_row = state.skipped + 1, state.in_a_row + 1
        log.warning("step %d skipped: loss %s, gradient norm %s", state.step, loss.item(), norm.item())
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    return StepResult(loss, norm, rate, finite, stop, batch)


def _accumulate(training: Training, state: TrainState, batches: Iterator[Batch]) -> tuple[Tensor, Batch]:
    """Add up the gradients of this rank's parts of the batch; returns this rank's mean loss and the last part."""
    device, parts = training.world.device, training.plan.accumulate
    frozen = state.step < training.recipe.loop.freeze_backbone_steps
    loss = torch.zeros((), device=device)
    batch = None
    counters = StepCounters(state.objective)
    for part in range(parts):
        batch = next(batches)
        counters.reset()
        syncing = _syncing(training.forward, is_last=part == parts - 1)
        with autocast(device, training.recipe.loop.precision), torch.set_grad_enabled(not frozen), syncing:
            embeddings = training.forward(training.normalize(batch.pixels))
        own = state.objective(embeddings.float(), batch.labels.to(device), batch.teacher, batch.triplets) / parts
        state.scaler.scale(own).backward()
        loss += own.detach()
    assert batch is not None
    return loss, batch


def _syncing(forward: nn.Module, *, is_last: bool) -> Any:
    """Gradients are averaged over the ranks in the last part only."""
    if is_last or not isinstance(forward, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return forward.no_sync()


class StepCounters:
    """A head's counts of steps (λ of A-Softmax, the classes that Partial FC draws), held while parts accumulate.

    A head counts what it is given; the parts of one batch are one step.
    """

    def __init__(self, objective: nn.Module) -> None:
        self._counters = [b for name, b in objective.named_buffers() if name.rpartition(".")[2] in _COUNTERS]
        self._before = [counter.clone() for counter in self._counters]

    def reset(self) -> None:
        """Let the next part count as the first did."""
        for counter, before in zip(self._counters, self._before, strict=True):
            counter.copy_(before)
