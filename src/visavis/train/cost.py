"""What a recipe costs before it is run: parameters, FLOPs, memory, steps, and images per second measured here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visavis.distributed.device import autocast, choose_device, describe_device
from visavis.errors import RecipeError
from visavis.evaluate.report.tables import Table
from visavis.train.batch import BatchPlan, plan_batch
from visavis.train.build import build_network, build_sampler, check_recipe
from visavis.train.dataset import FromSource, InMemory, kept_pictures
from visavis.train.finetune.distillation import open_teacher
from visavis.train.finetune.finetuning import FineTuning
from visavis.train.loader import Loader, Normalizer
from visavis.train.objective import Objective
from visavis.train.optimizers import build_optimizer
from visavis.train.recipe import Recipe
from visavis.vision.preprocessing import PreprocessSpec

log = logging.getLogger(__name__)
STEPS = 20
SECONDS = 60.0  # about what measuring may take; slower machines measure smaller batches
MOST_CENTERS = 32_768  # class centers to measure with; what more of them would take is computed
STATES = {"adagrad": 1, "adam": 2, "adamw": 2, "sgd": 1}  # numbers an optimizer keeps per parameter
HEAD_BUFFERS = 64 << 20  # what margin_softmax keeps between forward and backward at most


@dataclass(frozen=True)
class Extent:
    """How much data there is, and how that is known."""

    identities: int
    pictures: int
    known_from: str


@dataclass(frozen=True)
class Speed:
    """What was measured: images per second over `steps` steps of `batch` pictures, with `centers` class centers."""

    images_per_second: float
    steps: int
    batch: int
    centers: int


@dataclass(frozen=True)
class Cost:
    """The figures of a dry run; bytes are per device, FLOPs and activations per image."""

    name: str
    extent: Extent
    devices: int
    batch: int
    steps_per_epoch: int
    steps: int
    parameters: int
    learning: int
    centers: int
    forward_flops: int
    activations: int
    memory: dict[str, int]
    speed: Speed
    device: str

    @property
    def images(self) -> int:
        """ImageDataset the run looks at."""
        return self.steps * self.batch

    def to_table(self) -> Table:
        """The figures with their units."""
        speed, extent = self.speed, self.extent
        rows = [
            ("data", f"{extent.pictures:,} pictures of {extent.identities:,} identities ({extent.known_from})"),
            ("parameters of the network", f"{self.parameters:,}, of which {self.learning:,} learn"),
            ("class centers", f"{self.centers:,} numbers"),
            ("FLOPs per image, forward", f"{_flops(self.forward_flops)} (a multiplication and an addition are 2)"),
            ("FLOPs of the run, about", f"{3 * self.forward_flops * self.images:.2e} (3 × forward × images)"),
            ("activations per image, measured", _bytes(self.activations)),
            *((f"memory per device: {name}", _bytes(size)) for name, size in self.memory.items()),
            ("memory per device, in all", _bytes(sum(self.memory.values()))),
            ("steps", f"{self.steps:,} of {self.batch:,} pictures on {self.devices} devices; "
             f"{self.steps_per_epoch:,} an epoch"),
            ("measured here", f"{speed.images_per_second:.1f} images/s over {speed.steps} steps of {speed.batch} "
             f"pictures with {speed.centers:,} class centers, on {self.device}"),
            ("the run on this machine alone", _duration(self.images / speed.images_per_second)),
        ]  # fmt: skip
        note = "Measured without torch.compile. Not counted: the decoded pictures, cuDNN's workspace, fragmentation."
        return Table(f"What {self.name} costs", ("what", "how much"), tuple(rows), note)


def dry_run(
    recipe: Recipe, *, devices: int = 1, steps: int = STEPS, advance: Callable[[int, int], None] | None = None
) -> Cost:
    """Compute and measure what a recipe costs; its data may be absent, noise pictures then take its place.

    Args:
        recipe: with `data.expected_identities` and `data.expected_pictures` where the data is absent.
        devices: how many processes will share the work.
        steps: training steps to measure.
        advance: told of the steps done.

    Raises:
        RecipeError: the data is absent and the recipe does not say how much there is, or `devices` is below 1.
    """
    if devices < 1:
        raise RecipeError(f"--devices must be at least 1, got {devices}")
    check_recipe(recipe, devices)
    torch.manual_seed(recipe.seed)
    if recipe.loop.threads:
        torch.set_num_threads(recipe.loop.threads)
    extent = find_extent(recipe)
    device = choose_device(recipe.loop.device)
    network, spec, card = build_network(recipe)
    flops = count_flops(network, spec)
    network = network.to(device)
    if recipe.loop.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    parameters = sum(p.numel() for p in network.parameters())
    tuning = FineTuning(network, recipe.finetune)
    tuning.train()
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    activations = measure_activations(network, spec, device, recipe.loop.precision)
    rows = 0 if recipe.head.name == "none" else extent.identities * recipe.head.sub_centers
    plan = plan_batch(recipe, devices)
    per_epoch = max(1, _steps_per_epoch(recipe, extent))
    return Cost(
        name=recipe.name,
        extent=extent,
        devices=devices,
        batch=plan.batch_size,
        steps_per_epoch=per_epoch,
        steps=recipe.loop.steps or max(1, round(recipe.loop.epochs * per_epoch)),
        parameters=parameters,
        learning=learning,
        centers=rows * card.embedding_dim,
        forward_flops=flops,
        activations=activations,
        memory=estimate_memory(
            recipe, network, centers=rows * card.embedding_dim, activations=activations, devices=devices
        ),
        speed=measure_speed(
            _of_one_device(recipe, plan), network, spec, card.embedding_dim, extent, device, steps=steps,
            advance=advance,
        ),
        device=describe_device(device),
    )  # fmt: skip


def _of_one_device(recipe: Recipe, plan: BatchPlan) -> Recipe:
    """The recipe whose whole batch is what a device takes at once."""
    return replace(recipe, loop=replace(recipe.loop, batch_size=plan.device_batch, device_batch=0))


def find_extent(recipe: Recipe) -> Extent:
    """How many pictures and identities a run would have: counted where the data is there, else as the recipe says.

    Raises:
        RecipeError: absent, and nothing said.
    """
    data = recipe.data
    made = (data.synthetic.identities, data.synthetic.identities * data.synthetic.images_per_identity)
    if not data.source:
        return Extent(*made, "generated")
    if Path(data.source).exists():
        source, _ = kept_pictures(data)
        return Extent(len(source.identities) + made[0], len(source) + made[1], f"counted in {data.source}")
    if data.expected_identities < 2 or data.expected_pictures < 2:
        raise RecipeError(
            f"{data.source} is not there, and the recipe does not say how much it holds; give "
            "--data.expected_identities N --data.expected_pictures N, or the pictures with --data SRC"
        )
    said = f"as the recipe says; {data.source} is not there"
    return Extent(data.expected_identities + made[0], data.expected_pictures + made[1], said)


def count_flops(network: nn.Module, spec: PreprocessSpec) -> int:
    """FLOPs of one image's forward pass, convolutions and matrix products; one multiply-add counts as two."""
    was, example = network.training, torch.zeros(1, 3, *spec.size)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.eval()(example)
    network.train(was)
    return int(counter.get_total_flops())


def measure_activations(
    network: nn.Module, spec: PreprocessSpec, device: torch.device, precision: str, *, batch: int = 2
) -> int:
    """Bytes per image that autograd keeps for the backward pass, as it keeps them: each storage once, no parameters."""
    kept = [_kept_bytes(network, torch.randn(b, 3, *spec.size, device=device), precision) for b in (batch, 2 * batch)]
    return max(0, round((kept[1] - kept[0]) / batch))


def _kept_bytes(network: nn.Module, pixels: Tensor, precision: str) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    found: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), autocast(pixels.device, precision):
        output = network(pixels)
    del output
    return sum(size for size, _ in found.values())


def estimate_memory(
    recipe: Recipe, network: nn.Module, *, centers: int, activations: int, devices: int
) -> dict[str, int]:
    """Bytes per device by purpose: fp32 weights, as autocast has them; class centers split over the devices."""
    weights = sum(p.numel() for p in network.parameters())
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    states = STATES.get(recipe.optimizer.name, 2) if recipe.optimizer.name != "sgd" or recipe.optimizer.momentum else 0
    share = -(-centers // devices)
    sampled = recipe.head.sample_rate if recipe.optimizer.name == "sgd" else 1.0  # others fill in a dense gradient
    memory = {
        "weights": 4 * weights,
        "gradients": 4 * learning,
        "optimizer state": 4 * learning * states,
        "activations": activations * plan_batch(recipe, devices).device_batch,
    }
    if recipe.loop.ema:
        memory["moving average"] = 4 * weights
    if centers:
        memory["class centers, their gradient and state"] = round(4 * share * (1 + sampled + states))
        memory["head's buffers"] = HEAD_BUFFERS
    return memory


def measure_speed(
    recipe: Recipe,
    network: nn.Module,
    spec: PreprocessSpec,
    dim: int,
    extent: Extent,
    device: torch.device,
    *,
    steps: int,
    advance: Callable[[int, int], None] | None = None,
) -> Speed:
    """Images per second of whole training steps: loading, augmenting, forward, loss, backward, optimizer.

    The batch is the recipe's, or as many as `SECONDS` allow; the class centers are at most `MOST_CENTERS`.
    """
    unit = recipe.data.images_per_class if recipe.data.sampler == "pxk" else 1
    smallest = max(2, unit * (2 if recipe.data.sampler == "pxk" else 1))
    trial = _Trial(recipe, network, spec, dim, extent, device, batch=smallest)
    trial.step()  # the first one allocates
    seconds = trial.step()
    fitting = int(SECONDS / steps / max(seconds, 1e-6) * smallest) // unit * unit
    batch = min(recipe.loop.batch_size, max(smallest, fitting))
    if batch != smallest:
        trial = _Trial(recipe, network, spec, dim, extent, device, batch=batch)
        trial.step()
    begun = time.perf_counter()
    for done in range(steps):
        trial.step()
        if advance:
            advance(done + 1, steps)
    return Speed(steps * batch / (time.perf_counter() - begun), steps, batch, trial.centers)


class _Trial:
    """The loop's step on real pictures, if they are there, or noise."""

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        spec: PreprocessSpec,
        dim: int,
        extent: Extent,
        device: torch.device,
        *,
        batch: int,
    ) -> None:
        self.recipe, self.network, self.device = recipe, network, device
        self.centers = min(extent.identities, MOST_CENTERS)
        pictures = sample_pictures(recipe, spec, self.centers, most=max(512, 4 * batch))
        teacher = open_teacher(recipe.distill, pictures.size, device)
        sampler = build_sampler(replace(recipe, loop=replace(recipe.loop, batch_size=batch)), pictures)
        self.batches = Loader(
            pictures, sampler, recipe.augment, spec, seed=recipe.seed,
            workers=recipe.data.workers, teacher_spec=teacher.spec if teacher else None,
        ).batches(0)  # fmt: skip
        self.normalize = Normalizer(spec, device, channels_last=recipe.loop.channels_last)
        self.objective = Objective(recipe, num_classes=self.centers, dim=dim, teacher=teacher).to(device)
        if self.objective.head is None:
            self.centers = 0
        self.optimizer = build_optimizer(network, [self.objective], recipe.optimizer, lr=1e-6)

    def step(self) -> float:
        """One step; the seconds it took."""
        begun = time.perf_counter()
        batch = next(self.batches)
        with autocast(self.device, self.recipe.loop.precision):
            embeddings = self.network(self.normalize(batch.pixels))
        self.objective(embeddings.float(), batch.labels.to(self.device), batch.teacher).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()
        return time.perf_counter() - begun


def sample_pictures(recipe: Recipe, spec: PreprocessSpec, classes: int, *, most: int) -> InMemory:
    """Some pictures of the recipe's data, `most` at most, or noise in the size of its crops; labels below `classes`."""
    unit = recipe.data.images_per_class if recipe.data.sampler == "pxk" else 1
    if recipe.data.source and Path(recipe.data.source).exists():
        source, _ = kept_pictures(recipe.data)
        order = np.argsort(source.labels, kind="stable")[:most]
        array = FromSource(source, source.image(int(order[0])).shape[:2]).take(order)
        labels = np.unique(source.labels[order], return_inverse=True)[1] % classes
    else:
        rng = np.random.default_rng(recipe.seed)
        array = rng.integers(0, 256, (most, *spec.size, 3), np.uint8)
        labels = np.arange(most) // unit % classes
    pictures = InMemory(array, labels.astype(np.int64))
    pictures.num_classes = classes
    return pictures


def _steps_per_epoch(recipe: Recipe, extent: Extent) -> int:
    if recipe.data.sampler == "pxk":
        return -(-extent.identities // (recipe.loop.batch_size // recipe.data.images_per_class))
    return extent.pictures // recipe.loop.batch_size


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
