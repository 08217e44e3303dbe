"""The steps of a dry run: those of training, on as many pictures as time and memory allow, each timed by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from visavis.distributed.launch import World
from visavis.machine import memory_gb
from visavis.models.card import ModelCard
from visavis.train.batch import BatchPlan, plan_batch
from visavis.train.build import assemble, build_loader, build_sampler
from visavis.train.recipe import Recipe
from visavis.train.step import train_step
from visavis.train.time_limit import OutOfTime, TimeLimit
from visavis.train.trial_data import Part, TrialData
from visavis.train.triplet_pools import open_pool
from visavis.vision.preprocessing import PreprocessSpec

MOST_CENTERS = 32_768  # class centers to measure with; what more of them would take is computed
FEWEST_STEPS = 3
BACKWARD = 3  # a step's forward and backward pass take about so many times the forward pass
_VARIES = 0.2  # half the steps further from the median than this share of it are worth a word


@dataclass(frozen=True)
class Speed:
    """Images per second: the median over `steps` steps of `batch` images, with `centers` class centers.

    `spread` is the distance of the quartiles as a share of the median. With 0 steps nothing was measured; the figure is
    then an estimate or NaN, and `remark` says why.
    """

    images_per_second: float
    steps: int
    batch: int
    centers: int
    spread: float = 0.0
    remark: str = ""


@dataclass
class Built:
    """A network with its input and its card."""

    network: nn.Module
    spec: PreprocessSpec
    card: ModelCard


class MeasuredRun:
    """A run of the recipe in memory, from its first step with a gradient: the same objects and the same step."""

    def __init__(self, recipe: Recipe, built: Built, data: TrialData, device: torch.device, *, images: int) -> None:
        self.recipe, self.data = recipe, data
        self.centers = min(data.extent.identities, MOST_CENTERS)
        decoded = data.extent.images * 3 * data.images.size[0] * data.images.size[1]
        self.keep = decoded <= recipe.data.cache_gb * 1e9
        wanted = self._with(images)
        self.training, self.state = assemble(
            wanted, World(0, 1, 0, device), (built.network, built.spec, built.card), self._part(wanted)
        )
        self.state.step = min(recipe.loop.freeze_backbone_steps, self.training.total - 1)
        self.training.tuning.train()
        self.batches = self.training.batches(self.state)
        self.all_finite = True

    def resize(self, images: int) -> None:
        """Take so many images a step from now on."""
        self.close()
        training, wanted = self.training, self._with(images)
        training.images, training.plan = self._part(wanted), plan_batch(wanted, 1)
        teacher = training.loader.teacher_spec
        training.loader = build_loader(wanted, training.images, training.spec, teacher_spec=teacher)
        self.state.pool = open_pool(
            wanted, training.loader, self.state.objective, self.state.network, training.normalize,
            training.tuning.train, images=training.plan.device_batch,
        )  # fmt: skip
        self.batches = training.batches(self.state)

    def step(self) -> tuple[float, int]:
        """One step; its seconds and its images."""
        begun = time.perf_counter()
        result = train_step(self.training, self.state, self.batches)
        device = self.training.world.device
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        self.all_finite &= result.finite
        return time.perf_counter() - begun, len(result.batch.labels) * self.training.plan.accumulate

    def close(self) -> None:
        """Stop the threads that prepare batches."""
        self.batches.close()  # type: ignore[attr-defined]

    def _with(self, images: int) -> Recipe:
        """The recipe for one device, with so many images a step, and nothing that a few steps need not bear."""
        loop, recipe = self.recipe.loop, self.recipe
        return replace(
            recipe,
            loop=replace(loop, batch_size=images, device_batch=min(loop.device_batch, images), compile=False),
            optimizer=replace(recipe.optimizer, lr=1e-6, lr_reference_batch=0),  # noise must not blow a network up
            finetune=replace(recipe.finetune, imprint=False, init_head=False),
        )

    def _part(self, wanted: Recipe) -> Part:
        """The pictures of two batches: of people with as many pictures as the sampler found."""
        sampler = build_sampler(wanted, self.data.images.labels)
        accumulate = plan_batch(wanted, 1).accumulate
        chosen = np.unique(np.concatenate([sampler.batch(i) for i in range(2 * accumulate)]))
        return Part(self.data.images, chosen, classes=self.centers, keep=self.keep)


def measure_speed(
    recipe: Recipe,
    built: Built,
    data: TrialData,
    device: torch.device,
    *,
    plan: BatchPlan,
    steps: int,
    limit: TimeLimit,
    most: int,
    forward: float,
    advance: Callable[[int, int], None],
) -> Speed:
    """Time training steps of one device's share of the batch, or of as many images as time and memory allow.

    Args:
        recipe: what to train.
        built: its network; it learns a little.
        data: pictures.
        device: where.
        plan: of the recipe on as many devices as will share it.
        steps: how many to measure at most; fewer where the time is over before.
        limit: the time for all of it; the first step is stopped in its middle where it would exceed it.
        most: images that memory has room for.
        forward: seconds an image takes in a forward pass, NaN where that is not known.
        advance: told of the steps done and of how many.
    """
    unit = 2 * recipe.data.images_per_class if recipe.data.sampler == "pxk" else 2
    share = plan.accumulate * plan.device_batch
    smallest = min(unit, share)
    recipe = replace(recipe, loop=replace(recipe.loop, device_batch=plan.device_batch))
    centers = 0 if recipe.head.name == "none" else min(data.extent.identities, MOST_CENTERS)
    nothing = Speed(float("nan"), 0, smallest, centers)
    if most < smallest:
        return replace(nothing, remark=f"a step of {smallest} images needs more memory than there is here")
    trial = None
    try:
        with limit.held():
            trial = MeasuredRun(recipe, built, data, device, images=smallest)
            trial.step()  # allocates
            seconds, images = trial.step()
        batch = smallest
        for _ in range(2):  # a larger batch takes less for an image: what fits is found in two goes
            wanted = _fitting(limit.left / (steps + 2) / seconds * images, plan, unit // 2, most=min(share, most))
            if wanted <= batch:
                break
            batch = wanted
            trial.resize(batch)
            trial.step()
            seconds, images = trial.step()
        return replace(_repeat(trial, steps, seconds, limit, advance), batch=batch, centers=centers)
    except OutOfTime:
        said = f"a step of {smallest} images takes longer than the {limit.seconds:.0f} s allowed"
        if forward != forward:
            return replace(nothing, remark=said)
        return replace(nothing, images_per_second=1 / (BACKWARD * forward), remark=f"{said}; estimated at {BACKWARD} "
                       "times a forward pass")  # fmt: skip
    except torch.OutOfMemoryError:
        return replace(nothing, remark="a step needs more memory than this device has")
    finally:
        if trial is not None:
            trial.close()


def _fitting(images: float, plan: BatchPlan, unit: int, *, most: int) -> int:
    """At most so many images in whole parts of the device's batch, or less than one part in whole identities."""
    images = min(images, most)
    if images >= plan.device_batch:
        return int(images // plan.device_batch) * plan.device_batch
    return int(images // unit) * unit


def _repeat(
    trial: MeasuredRun, steps: int, seconds: float, limit: TimeLimit, advance: Callable[[int, int], None]
) -> Speed:
    rates, images = [], 0
    while len(rates) < steps and (limit.left > seconds or not rates):
        seconds, images = trial.step()
        rates.append(images / seconds)
        advance(len(rates), steps)
    quarter, median, rest = np.quantile(rates, [0.25, 0.5, 0.75])
    spread = float((rest - quarter) / median)
    remarks = []
    if len(rates) < min(steps, FEWEST_STEPS):
        remarks.append(f"only {len(rates)} steps fit the {limit.seconds:.0f} s allowed")
    if spread > _VARIES:
        remarks.append(f"half of the steps differ by {spread:.0%} of the median: measure again on an idle machine")
    if not trial.all_finite:
        remarks.append("steps were not finite, so the optimizer did not take part in all of them")
    return Speed(float(median), len(rates), images, 0, spread, "; ".join(remarks))


def free_bytes(device: torch.device) -> float:
    """Memory that is free on a device, four fifths of what the system says; infinite where it does not say."""
    if device.type == "cuda":
        return 0.8 * torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu":
        return 0.8e9 * memory_gb().get("MemAvailable", float("inf"))
    return float("inf")
