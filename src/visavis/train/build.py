"""From a recipe to what a run needs: network, images, objective, optimizer, schedule, and the state they train in."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from visavis import __version__
from visavis.backbones import build_backbone
from visavis.data.samplers import PxK, Sampler, Shuffled
from visavis.data.validate.trained_on import TrainedOn
from visavis.distributed import launch as distributed
from visavis.distributed.launch import World
from visavis.errors import RecipeError, unknown_name
from visavis.losses.heads import HEADS, build_head
from visavis.models.card import LicenseTerms, ModelCard
from visavis.models.caution import DRAWINGS, TRAINED_ON, is_of_drawings
from visavis.models.torch import load_model
from visavis.models.trust import trust_code
from visavis.train.batch import BatchPlan, plan_batch
from visavis.train.closed_set import ClosedSetValidation, check_classifier, open_closed_set
from visavis.train.dataset import ImageDataset, open_dataset
from visavis.train.finetune.distillation import open_teacher
from visavis.train.finetune.finetuning import FineTuning, imprint
from visavis.train.finetune.init_head import init_head
from visavis.train.finetune.whitening import check_can_whiten, whiten
from visavis.train.loader import Batch, Loader, Normalizer
from visavis.train.lr_curves import Factor
from visavis.train.objective import Objective, check_objective
from visavis.train.optimizers import OPTIMIZERS, ExponentialMovingAverage, build_optimizer
from visavis.train.recipe import Recipe
from visavis.train.run_logger import Observer
from visavis.train.running_statistics import RunningStatistics
from visavis.train.schedule import build_schedule
from visavis.train.state import TrainState
from visavis.train.triplet_pools import open_pool
from visavis.train.validation import ValidationSet, check_held_out, open_validation_set
from visavis.types import IntArray
from visavis.vision.preprocessing import PreprocessSpec, fit_crop

log = logging.getLogger(__name__)
FEW_TO_FINETUNE = 300


@dataclass
class Training:
    """What a run needs and does not change: everything but its `TrainState`.

    `forward` is the network as it is called (compiled, its gradients averaged over ranks), `schedule` the factor on the
    learning rate at a step, `total` the steps of the whole run. On the first rank `trained_on` is what was looked at of
    the training data, and `warning` what makes the figures of the held-out pairs mean less than they seem to.
    """

    recipe: Recipe
    world: World
    plan: BatchPlan
    images: ImageDataset
    loader: Loader
    normalize: Normalizer
    tuning: FineTuning
    forward: nn.Module
    schedule: Factor
    total: int
    per_epoch: int
    learning_rate: float
    spec: PreprocessSpec
    card: ModelCard
    validation_set: ValidationSet | None
    closed_set: ClosedSetValidation | None
    observer: Observer
    trained_on: TrainedOn | None = None
    warning: str = ""
    _whitened: nn.Module | None = None

    def batches(self, state: TrainState) -> Iterator[Batch]:
        """The parts of this rank's batches, from where the state is."""
        return (state.pool or self.loader).batches(state.step * self.plan.accumulate)

    @property
    def judge_every(self) -> int:
        """Steps between two validations; 0 where there is one at the end alone."""
        wanted = self.recipe.evaluate
        return wanted.every * (self.per_epoch if wanted.unit == "epoch" else 1)

    def model(self, state: TrainState) -> nn.Module:
        """The network as it is judged and saved; whitened, if at all, when the run is over. All ranks must call it."""
        if state.step < self.total or not self.recipe.loop.wccn_ridge:
            return self.tuning.merged_network()
        if self._whitened is None:
            self._whitened = whiten(
                self.tuning.merged_network(), self.spec, self.images, self.recipe.augment,
                ridge=self.recipe.loop.wccn_ridge, seed=self.recipe.seed, device=self.world.device,
                advance=self.observer.preparing,
            )  # fmt: skip
        return self._whitened


def check_recipe(recipe: Recipe, devices: int) -> None:
    """Find what is wrong with a recipe by itself, before a folder is made or an image opened.

    Raises:
        RecipeError: a batch that cannot be shared, an unknown schedule, optimizer, head or miner, or a wrong argument.
        DataError: generated people to train on are among those held out.
    """
    plan_batch(recipe, devices)
    check_held_out(recipe)
    build_schedule(recipe.schedule, total=1000, per_epoch=10)
    if recipe.optimizer.name not in OPTIMIZERS:
        raise RecipeError(unknown_name("optimizer", recipe.optimizer.name, OPTIMIZERS))
    if recipe.head.name != "none":
        if recipe.head.name not in HEADS:
            raise RecipeError(unknown_name("head", recipe.head.name, [*HEADS, "none"]))
        build_head(recipe.head.name, **recipe.head.args)
    check_objective(recipe)
    check_classifier(recipe)


def build_training(
    recipe: Recipe, world: World, observer: Observer, *, resumes: bool = False
) -> tuple[Training, TrainState]:
    """Open the images, build what is trained and how; a run that `resumes` spares what its checkpoint brings anyway.

    Raises:
        RecipeError: an impossible setting. DataError: unusable images.
    """
    network, spec, card = build_network(recipe)
    check_network(network, spec, card.embedding_dim, name=card.backbone)
    if recipe.loop.wccn_ridge:
        check_can_whiten(network, spec, card.embedding_dim)
    images, about = open_dataset(recipe.data, spec, advance=observer.preparing)
    check_crops(recipe, images.size, spec)
    if recipe.init and recipe.data.source and images.num_classes < FEW_TO_FINETUNE:
        log.warning(
            "%d people are few to fine-tune on: 70 brought nothing that showed; what they do for a model without "
            "training: visavis adapt MODEL PHOTOS (docs/finetuning.md)", images.num_classes,
        )  # fmt: skip
    validation_set = open_validation_set(recipe, spec, advance=observer.preparing)
    closed_set = open_closed_set(recipe, spec, images.identities)
    card = of_data(card, recipe, about)
    training, state = assemble(
        recipe, world, (network, spec, card), images,
        validation_set=validation_set, closed_set=closed_set, observer=observer, resumes=resumes,
    )  # fmt: skip
    log.info("%d pictures of %d identities; %d steps of %d pictures (%s, %.1f epochs), learning rate %g",
             len(images), images.num_classes, training.total, training.plan.batch_size, training.plan,
             training.total / training.per_epoch, training.learning_rate)  # fmt: skip
    return training, state


def assemble(
    recipe: Recipe,
    world: World,
    built: tuple[nn.Module, PreprocessSpec, ModelCard],
    images: ImageDataset,
    *,
    validation_set: ValidationSet | None = None,
    closed_set: ClosedSetValidation | None = None,
    observer: Observer | None = None,
    resumes: bool = False,
) -> tuple[Training, TrainState]:
    """Put together what a run needs from its network and its pictures; a dry run does it with a few of them.

    Raises:
        RecipeError: an impossible setting. ModelFormatError: no such teacher.
    """
    loop, device, observer = recipe.loop, world.device, observer or Observer()
    plan = plan_batch(recipe, world.size)
    network, spec, card = built
    teacher = open_teacher(recipe.distill, images.size, device)
    loader = build_loader(recipe, images, spec, world=world, teacher_spec=teacher.spec if teacher else None)
    network = network.to(device)
    if loop.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    tuning = FineTuning(network, recipe.finetune)
    objective = Objective(recipe, num_classes=images.num_classes, dim=card.embedding_dim, teacher=teacher).to(device)
    if recipe.finetune.imprint and not resumes:
        imprint(objective.head, network, spec, images, device=device, images=recipe.finetune.imprint_images,
                advance=observer.preparing)  # fmt: skip
    if recipe.finetune.init_head and not resumes:
        init_head(objective.head, recipe.init, images.identities)
    if loop.shard_backbone:
        tuning.shard(world)
    normalize = Normalizer(spec, device, channels_last=loop.channels_last)
    per_epoch = max(1, loader.sampler.batches_per_epoch // plan.accumulate)
    total = loop.steps or max(1, round(loop.epochs * per_epoch))
    reference = recipe.optimizer.lr_reference_batch
    lr = recipe.optimizer.lr * (plan.batch_size / reference if reference else 1.0)
    state = TrainState(
        network, objective,
        optimizer=build_optimizer(network, [objective], recipe.optimizer, lr=lr),
        scaler=torch.amp.GradScaler(device.type, enabled=loop.precision == "fp16"),
        ema=ExponentialMovingAverage(network, loop.ema) if loop.ema else None,
        pool=open_pool(recipe, loader, objective, network, normalize, tuning.train, images=plan.device_batch),
    )  # fmt: skip
    forward = torch.compile(network) if loop.compile else network
    training = Training(
        recipe, world, plan, images, loader, normalize, tuning,
        validation_set=validation_set, closed_set=closed_set, observer=observer, spec=spec,
        forward=distributed.wrap(forward, world),  # pyright: ignore[reportArgumentType]
        schedule=build_schedule(recipe.schedule, total=total, per_epoch=per_epoch),
        total=total, per_epoch=per_epoch, learning_rate=lr, card=card,
    )  # fmt: skip
    return training, state


def build_network(recipe: Recipe) -> tuple[nn.Module, PreprocessSpec, ModelCard]:
    """The network to train, its input and a card for it; with `init` all three come from that model.

    Preprocessing travels with the weights: what the recipe says of backbone and preprocess gives way to the card.
    """
    if recipe.init:
        network, card = load_model(recipe.init)
        log.info("started from %s (%s, %d-d)", recipe.init, card.backbone, card.embedding_dim)
        card = card.with_changes(
            name=recipe.name,
            license=dataclasses.replace(card.license, weights=recipe.license),
            thresholds={},
            evaluations={},
            exports={},
            source=recipe.init,
        )
        return network, card.preprocess, card
    spec = recipe.preprocess.spec()
    wanted = recipe.backbone
    if ":" in wanted.name:
        trust_code(wanted.name)  # the user's recipe names it, and so will the cards of this run
    network = build_backbone(wanted.name, size=spec.size, dim=wanted.dim, **wanted.args)
    card = ModelCard(
        name=recipe.name,
        backbone=wanted.name,
        backbone_args=wanted.args,
        embedding_dim=wanted.dim,
        preprocess=spec,
        license=LicenseTerms(code="MIT", weights=recipe.license),
        source=f"visavis {__version__}, recipe {recipe.name}, seed {recipe.seed}",
    )
    return network, spec, card


def check_crops(recipe: Recipe, size: tuple[int, int], spec: PreprocessSpec) -> None:
    """Refuse crops of a shape that would have to be stretched, unless the recipe cuts the input out of them.

    Raises:
        DataError: neither the network's shape nor an ArcFace frame's.
    """
    if not recipe.augment.random_crop:
        fit_crop(np.zeros((*size, 3), np.uint8), spec)


@torch.no_grad()
def check_network(network: nn.Module, spec: PreprocessSpec, dim: int, *, name: str) -> None:
    """Try a network on two images of noise before anything long begins; what it learns of them is undone.

    Batch norms go by the batch, as in training: a deep residual network overflows with its fresh running statistics,
    means of 0 and deviations of 1.

    Raises:
        RecipeError: it gives no tensor of finite embeddings (2, `dim`).
    """
    was = network.training
    noise = torch.rand(2, 3, *spec.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    statistics = RunningStatistics(network)
    with torch.random.fork_rng(devices=[]):
        found = network.train()(noise)
    statistics.restore()
    network.train(was)
    expected = f"backbone {name} must map (N, 3, {spec.size[0]}, {spec.size[1]}) to a tensor (N, {dim})"
    if not isinstance(found, Tensor):
        raise RecipeError(f"{expected}; it gives a {type(found).__name__}: return the embeddings alone")
    if tuple(found.shape) != (2, dim):
        raise RecipeError(f"{expected}; it gives {tuple(found.shape)} for N = 2: change it, or --backbone.dim")
    if not found.isfinite().all():
        raise RecipeError(f"{expected} of finite numbers; it gives NaN or infinity for noise in [-1, 1]")


def build_sampler(recipe: Recipe, labels: IntArray, *, world: World = distributed.ALONE) -> Sampler:
    """The sampler a recipe names over pictures of these labels, for this rank's parts of the global batch.

    Shapes: `labels` (N,).
    """
    plan, data = plan_batch(recipe, world.size), recipe.data
    if data.sampler == "shuffled":
        return Shuffled(
            labels, batch_size=plan.device_batch, seed=recipe.seed, rank=world.rank, world=world.size,
            accumulate=plan.accumulate,
        )  # fmt: skip
    return PxK(
        labels,
        classes_per_batch=plan.device_batch // data.images_per_class,
        images_per_class=data.images_per_class,
        seed=recipe.seed,
        rank=world.rank,
        world=world.size,
        accumulate=plan.accumulate,
    )


def of_data(card: ModelCard, recipe: Recipe, about: Mapping[str, object]) -> ModelCard:
    """The card with what the run is trained on: drawings alone are told, and no more once the model saw photographs.

    A model that `init` names counts with what it was trained on itself.
    """
    drawings = not recipe.data.source and (not recipe.init or is_of_drawings(card))
    notes = {key: value for key, value in card.notes.items() if key != TRAINED_ON}
    said = recipe.training_data or describe_data(about)
    if drawings:
        notes[TRAINED_ON] = DRAWINGS
        said = recipe.training_data or f"drawings, no photographs: {said}"
    return card.with_changes(training_data=said, notes=notes)


def describe_data(about: Mapping[str, object]) -> str:
    """One line for the model card."""
    return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in about.items())


def build_loader(
    recipe: Recipe,
    images: ImageDataset,
    spec: PreprocessSpec,
    *,
    world: World = distributed.ALONE,
    teacher_spec: PreprocessSpec | None = None,
) -> Loader:
    """What prepares this rank's parts of the batches."""
    sampler = build_sampler(recipe, images.labels, world=world)
    return Loader(
        images,
        sampler,
        recipe.augment,
        spec,
        seed=recipe.seed,
        workers=recipe.data.workers,
        teacher_spec=teacher_spec,
    )
