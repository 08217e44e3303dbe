"""What a recipe costs before it is run: parameters, FLOPs, memory, steps, and images per second measured here."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from visavis.distributed.device import choose_device, describe_device
from visavis.errors import RecipeError
from visavis.evaluate.report.tables import Table
from visavis.machine import load_average, usable_cores
from visavis.train.batch import plan_batch
from visavis.train.build import build_network, check_network, check_recipe
from visavis.train.finetune.finetuning import FineTuning
from visavis.train.finetune.whitening import check_can_whiten
from visavis.train.footprint import count_flops, estimate_memory, measure_activations
from visavis.train.recipe import BackboneRecipe, FinetuneRecipe, Recipe
from visavis.train.schedule import build_schedule
from visavis.train.time_limit import OutOfTime, TimeLimit
from visavis.train.trial import MOST_CENTERS, Built, Speed, free_bytes, measure_speed
from visavis.train.trial_data import Extent, Progress, open_trial_data
from visavis.vision.preprocessing import PreprocessSpec

log = logging.getLogger(__name__)
T = TypeVar("T")
STEPS = 20
SECONDS = 60.0  # what a dry run may take; slower machines measure smaller batches
_BUSY = 0.25  # of the cores: other work beyond it shows in what is measured
_UNKNOWN = "not measured: longer than the time allowed"


@dataclass(frozen=True)
class Cost:
    """The figures of a dry run; bytes are per device, FLOPs and activations per image, None where time ran out."""

    name: str
    extent: Extent
    devices: int
    batch: int
    steps_per_epoch: int
    steps: int
    parameters: int
    learning: int
    centers: int
    forward_flops: int | None
    activations: int | None
    memory: dict[str, int]
    speed: Speed
    device: str
    remarks: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Images the run looks at."""
        return self.steps * self.batch

    def to_table(self) -> Table:
        """The figures with their units."""
        extent, flops, activations = self.extent, self.forward_flops, self.activations
        whole = "memory per device, in all" if activations is not None else "memory per device, without activations"
        rows = [
            ("data", f"{extent.images:,} pictures of {extent.identities:,} identities ({extent.known_from})"),
            ("parameters of the network", f"{self.parameters:,}, of which {self.learning:,} learn"),
            ("class centers", f"{self.centers:,} numbers"),
            ("FLOPs per image, forward", _UNKNOWN if flops is None else
             f"{_flops(flops)} (a multiplication and an addition are 2)"),
            ("FLOPs of the run, about", _UNKNOWN if flops is None else
             f"{3 * flops * self.images:.2e} (3 × forward × images)"),
            ("activations per image, measured", _UNKNOWN if activations is None else _bytes(activations)),
            *((f"memory per device: {name}", _bytes(size)) for name, size in self.memory.items()),
            (whole, _bytes(sum(self.memory.values()))),
            ("steps", f"{self.steps:,} of {self.batch:,} pictures on {self.devices} device{'s' * (self.devices > 1)}; "
             f"{self.steps_per_epoch:,} an epoch"),
            *self._speed_rows(),
            *(("beware", remark) for remark in self.remarks),
        ]  # fmt: skip
        note = "Measured without torch.compile. Not counted: the decoded pictures, cuDNN's workspace, fragmentation."
        return Table(f"What {self.name} costs", ("what", "how much"), tuple(rows), note)

    def _speed_rows(self) -> list[tuple[str, str]]:
        speed = self.speed
        if math.isnan(speed.images_per_second):
            return [("images/s here", f"not measured: {speed.remark}")]
        rate = f"{speed.images_per_second:.3g} images/s"
        if speed.steps:
            said = (
                f"{rate}, median of {speed.steps} steps of {speed.batch:,} pictures with {speed.centers:,} class "
                f"centers, quartiles {speed.spread:.0%} apart, on {self.device}"
            )
        else:
            said = f"{rate} at best, on {self.device}"
        rows = [("measured here" if speed.steps else "estimated here", said)]
        rows += [("beware", speed.remark)] if speed.remark else []
        return [*rows, ("the run on this machine alone", _duration(self.images / speed.images_per_second))]


def dry_run(
    recipe: Recipe,
    *,
    devices: int = 1,
    steps: int = STEPS,
    seconds: float = SECONDS,
    progress: Progress = lambda what, done, total: None,
) -> Cost:
    """Compute and measure what a recipe costs; its data may be absent, noise pictures then take its place.

    What training refuses is refused. What does not fit the time is left out and said.

    Args:
        recipe: with `data.expected_identities` and `data.expected_images` where the data is absent.
        devices: how many processes will share the work.
        steps: training steps to measure.
        seconds: what all of it may take; it ends between two layers of the network where they are over.
        progress: told what is done, and how much of how much.

    Raises:
        RecipeError, DataError, ModelFormatError: as training raises them; the data is absent and the recipe does not
            say how much there is; or `devices` is below 1.
    """
    if devices < 1:
        raise RecipeError(f"--devices must be at least 1, got {devices}")
    limit = TimeLimit(seconds)
    check_recipe(recipe, devices)
    recipe, remarks = _without_absent_init(recipe)
    remarks += _load()
    torch.manual_seed(recipe.seed)
    if recipe.loop.threads:
        torch.set_num_threads(recipe.loop.threads)
    device, plan = choose_device(recipe.loop.device), plan_batch(recipe, devices)
    progress("building the network", 0, 1)
    network, spec, card = build_network(recipe)
    built = Built(network, spec, card)
    flops = _in_time(limit, lambda: _try_out(recipe, built))
    data = open_trial_data(recipe, spec, plan, limit=limit, progress=progress)
    remarks += data.remarks
    total = recipe.loop.steps or max(1, round(recipe.loop.epochs * data.per_epoch))
    build_schedule(recipe.schedule, total=total, per_epoch=data.per_epoch)
    progress("measuring activations", 0, 1)
    built.network = _on_device(built.network, recipe, device)
    tuned = _tuned(built.network, recipe)
    parameters = sum(p.numel() for p in built.network.parameters())
    learning = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    activations, forward = _measure_activations(tuned, spec, device, recipe, limit) if flops else (None, math.nan)
    rows = 0 if recipe.head.name == "none" else recipe.head.sub_centers
    centers = rows * data.extent.identities * card.embedding_dim
    here = rows * min(data.extent.identities, MOST_CENTERS) * card.embedding_dim
    memory = estimate_memory(recipe, tuned, centers=centers, activations=activations or 0, devices=devices)
    trial = estimate_memory(recipe, tuned, centers=here, activations=0, devices=1)
    del tuned
    room = free_bytes(device) - sum(trial.values()) + trial["weights"]
    most = int(min(plan.batch_size, room / activations if activations else math.inf))
    progress("measuring steps", 0, steps)
    speed = measure_speed(
        recipe, built, data, device, plan=plan, steps=steps, limit=limit, most=most, forward=forward,
        advance=lambda done, of: progress("measuring steps", done, of),
    )  # fmt: skip
    return Cost(
        name=recipe.name, extent=data.extent, devices=devices, batch=plan.batch_size, steps_per_epoch=data.per_epoch,
        steps=total, parameters=parameters, learning=learning, centers=centers, forward_flops=flops,
        activations=activations, memory=memory, speed=speed, device=describe_device(device), remarks=tuple(remarks),
    )  # fmt: skip


def _without_absent_init(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Where the model to start from is not there, the recipe's own backbone costs as much, if it states one."""
    if not recipe.init or Path(recipe.init).exists() or recipe.backbone == BackboneRecipe():
        return recipe, []
    said = f"{recipe.init}, which the run starts from, is not there: measured with the recipe's own backbone"
    finetune = replace(recipe.finetune, init_head=False)
    return replace(recipe, init="", finetune=finetune), [said]


def _load() -> list[str]:
    """Say that the machine is busy, as long as it is only with others' work."""
    load, cores = load_average(), usable_cores()
    if load is None or load <= _BUSY * cores:
        return []
    said = f"{load:.1f} processes want to run on {cores} cores beside this one: speeds are those of a busy machine"
    log.warning("%s", said)
    return [said]


def _in_time(limit: TimeLimit, work: Callable[[], T]) -> T | None:
    """What the work gives, None where the time is over before."""
    try:
        with limit.held():
            return work()
    except OutOfTime:
        return None


def _try_out(recipe: Recipe, built: Built) -> int:
    check_network(built.network, built.spec, built.card.embedding_dim, name=built.card.backbone)
    if recipe.loop.wccn_ridge:
        check_can_whiten(built.network, built.spec, built.card.embedding_dim)
    return count_flops(built.network, built.spec)


def _on_device(network: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    if recipe.loop.channels_last:
        return network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.to(device)


def _tuned(network: nn.Module, recipe: Recipe) -> nn.Module:
    """The network in training mode as its `finetune` section leaves it; a copy where that changes anything."""
    if recipe.finetune == FinetuneRecipe():
        return network.train()
    network = copy.deepcopy(network)
    FineTuning(network, recipe.finetune).train()
    return network


def _measure_activations(
    network: nn.Module, spec: PreprocessSpec, device: torch.device, recipe: Recipe, limit: TimeLimit
) -> tuple[int | None, float]:
    """Bytes per image and seconds an image takes forward; None and NaN where the time is over before."""
    begun = time.perf_counter()
    found = _in_time(limit, lambda: measure_activations(network, spec, device, recipe.loop.precision))
    return found, math.nan if found is None else (time.perf_counter() - begun) / 6  # of 2 and of 4 images


def _flops(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.2f} M"


def _bytes(size: int) -> str:
    for unit, length, digits in (("GiB", 2**30, 2), ("MiB", 2**20, 1)):
        if size >= length:
            return f"{size / length:.{digits}f} {unit}"
    return f"{size / 2**10:.1f} KiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
