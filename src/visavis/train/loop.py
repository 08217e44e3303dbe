"""The training loop, top to bottom: one function a stranger can read, one state it saves and resumes bit for bit."""

from __future__ import annotations

import dataclasses
import logging
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visavis import __version__
from visavis.backbones import build_backbone
from visavis.data.samplers import PxK, Sampler, Shuffled
from visavis.distributed import launch as distributed
from visavis.distributed.device import autocast, describe_device
from visavis.distributed.launch import SharedEmbedder, World
from visavis.errors import DataError, RecipeError
from visavis.losses.partial_fc.sharded_checkpoint import full_state, load_full_state
from visavis.metrics.verification import VerificationMetrics
from visavis.models.card import LicenseTerms, ModelCard
from visavis.models.torch import TorchEmbedder, load_model, save_model
from visavis.train.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from visavis.train.dataset import ImageDataset, open_dataset
from visavis.train.finetune.distillation import open_teacher
from visavis.train.finetune.finetuning import FineTuning, imprint
from visavis.train.finetune.whitening import check_can_whiten, whiten
from visavis.train.fsdp import whole_optimizer
from visavis.train.loader import Loader, Normaliser
from visavis.train.objective import Objective, is_finite
from visavis.train.optimizers import ExponentialMovingAverage, build_optimizer, clip_gradients, set_learning_rate
from visavis.train.recipe import Recipe, load_recipe, parse_recipe
from visavis.train.run_logger import Observer, RunLogger, read_metrics
from visavis.train.schedule import build_schedule
from visavis.train.triplet_pools import open_pool, write_strips
from visavis.train.validation import ValidationSet, open_validation_set
from visavis.vision.preprocessing import PreprocessSpec

log = logging.getLogger(__name__)
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Run:
    """A finished training: its folder, its best model's folder, and the held-out pairs with their last verification."""

    folder: Path
    model: Path
    steps: int
    skipped_steps: int
    images_per_second: float
    judge: ValidationSet | None
    verification: VerificationMetrics | None


def train(recipe: Recipe, out: str | Path, *, resume: bool = False, observer: Observer | None = None) -> Run:
    """Train `recipe` into the run folder `out`.

    Written there: `recipe.yaml`, `metrics.jsonl`, `log.txt`, `best/` (a model folder), `last/checkpoint.pt`. With
    `resume` the run continues from that checkpoint and, on the same machine, ends in the same bits as an
    uninterrupted one; where it ended before its first checkpoint, it starts over. Ctrl-C and SIGTERM stop after the
    current step, with a checkpoint.

    Raises:
        RecipeError: an impossible setting. DataError: unusable pictures, or a folder that cannot be written.
        KeyboardInterrupt: stopped by the user, after the checkpoint was written.
    """
    out, observer = Path(out), observer or Observer()
    world = distributed.setup(recipe.loop.device)
    try:
        with distributed.report_failed_ranks(world, run=out):
            if world.is_first:
                _claim(out, recipe, resume)
            distributed.barrier(world)
            state = load_checkpoint(out) if resume and not _ended_early(out) else None
            with RunLogger(out, resume_from=state["step"] if state else None, silent=not world.is_first) as book:
                if resume and not state:
                    log.info("%s has no checkpoint yet: from the start", out)
                return _train(recipe, out, state, world, book, observer)
    finally:
        distributed.shutdown(world)


def _train(
    recipe: Recipe, out: Path, state: dict[str, Any] | None, world: World, book: RunLogger, observer: Observer
) -> Run:
    loop, device = recipe.loop, world.device
    if loop.threads:
        torch.set_num_threads(loop.threads)
    torch.manual_seed(recipe.seed)
    log.info("visavis %s, torch %s on %s, %s", __version__, torch.__version__, describe_device(device), loop.precision)

    # What is trained, on what.
    network, spec, card = build_network(recipe)
    if loop.whiten:
        check_can_whiten(network, spec, card.embedding_dim)
    pictures, about = open_dataset(recipe.data, spec, advance=observer.preparing)
    judge = open_validation_set(recipe, spec, advance=observer.preparing)
    sampler = build_sampler(recipe, pictures, rank=world.rank, world=world.size)
    teacher = open_teacher(recipe.distill, pictures.size, device)
    loader = Loader(
        pictures, sampler, recipe.augment, spec, seed=recipe.seed, workers=recipe.data.workers,
        teacher_spec=teacher.spec if teacher else None,
    )  # fmt: skip
    normalise = Normaliser(spec, device, channels_last=loop.channels_last)
    network = network.to(device)
    if loop.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    tuning = FineTuning(network, recipe.finetune)
    objective = Objective(recipe, num_classes=pictures.num_classes, dim=card.embedding_dim, teacher=teacher).to(device)
    if recipe.finetune.imprint and not state:
        imprint(objective.head, network, spec, pictures, device=device, images=recipe.finetune.imprint_images,
                advance=observer.preparing)  # fmt: skip
    if loop.shard_backbone:
        tuning.shard(world)
    pool = open_pool(recipe, loader, objective, network, normalise, tuning.train)

    # How it is trained.
    per_epoch = max(1, sampler.batches_per_epoch // loop.accumulate)
    total = loop.steps or max(1, round(loop.epochs * per_epoch))
    images_per_step = loop.batch_size * loop.accumulate * world.size
    lr = recipe.optimizer.lr * (images_per_step / recipe.optimizer.lr_per if recipe.optimizer.lr_per else 1.0)
    optimizer = build_optimizer(network, [objective], recipe.optimizer, lr=lr)
    schedule = build_schedule(recipe.schedule, total=total, per_epoch=per_epoch)
    ema = ExponentialMovingAverage(network, loop.ema) if loop.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=loop.precision == "fp16")
    forward = distributed.wrap(torch.compile(network) if loop.compile else network, world)  # pyright: ignore[reportArgumentType]
    card = card.with_changes(training_data=recipe.training_data or describe_data(about))
    log.info("%d pictures of %d identities; %d steps of %d pictures (%d × %d devices × %d accumulated, %.1f epochs), "
             "learning rate %g", len(pictures), pictures.num_classes, total, images_per_step, loop.batch_size,
             world.size, loop.accumulate, total / per_epoch, lr)  # fmt: skip

    # Where it stands.
    step, skipped, in_a_row, best = 0, 0, 0, -1.0
    if state:
        step, skipped, best = state["step"], state["skipped"], state["best"]
        tuning.load(state["network"])
        load_full_state(objective, whole_optimizer(optimizer), state["objective"])
        scaler.load_state_dict(state["scaler"])
        if ema:
            ema.load_state_dict(state["ema"])
        if pool:
            pool.load_state_dict(state["pool"])
        log.info("resumed at step %d of %d", step, total)

    def notes() -> dict[str, Any]:
        return {"step": step, "images_seen": step * images_per_step, "machine": platform.machine()}

    finished: list[nn.Module] = []

    def model() -> nn.Module:
        """The network as it is judged and saved; whitened, if at all, when the run is over."""
        if step < total or not loop.whiten:
            return tuning.plain()
        if not finished:
            finished.append(whiten(tuning.plain(), spec, pictures, recipe.augment, ridge=loop.whiten,
                                   seed=recipe.seed, device=device, advance=observer.preparing))  # fmt: skip
        return finished[0]

    def checkpoint() -> None:
        mined = pool.state_dict() if pool else {}
        weights, whole = tuning.weights(), full_state(objective, whole_optimizer(optimizer))  # of all, on the first
        with _averaged(network, ema):
            plain = model()
            if whole is None:
                return
            save_model(out / "last", plain, card.with_changes(notes=notes()))
        save_checkpoint(
            out,
            {
                "step": step,
                "skipped": skipped,
                "best": best,
                "recipe": recipe.to_yaml(),
                "network": weights,
                "objective": whole,
                "scaler": scaler.state_dict(),
                "ema": ema.state_dict() if ema else {},
                "pool": mined,
            },
        )

    def judge_now() -> VerificationMetrics | None:
        nonlocal best
        with _averaged(network, ema):
            distributed.broadcast_parameters(network, world)
            plain = model()
            embedder = SharedEmbedder(TorchEmbedder(plain, spec, device=device, batch_size=128), world)
            verification = judge(embedder) if judge else None
            if world.is_first and (verification is None or verification.accuracy > best):
                best = verification.accuracy if verification else best
                save_model(out / "best", plain, card.with_changes(notes=notes()))
        tuning.train()
        if verification:
            figures = {"accuracy": verification.accuracy, "auc": verification.auc, "eer": verification.eer}
            record = {"step": step, "eval": figures}
            book.write(record)
            observer.logged(record)
            log.info("step %d: accuracy %.4f, EER %.4f on %d pairs", step, verification.accuracy, verification.eer,
                     len(verification.genuine))  # fmt: skip
        return verification

    tuning.train()
    observer.started(step, total)
    batches = (pool or loader).batches(step * loop.accumulate)
    verification = None
    begun, since, first, images = time.monotonic(), time.monotonic(), step, 0
    with _interruptible() as interrupted:
        while step < total:
            factor = schedule(step)
            rate = set_learning_rate(optimizer, factor)
            frozen = step < loop.freeze_backbone_steps
            loss = torch.zeros((), device=device)
            torch.manual_seed(hash((recipe.seed, step, world.rank)))  # dropout follows from the step: nothing to save
            for micro in range(loop.accumulate):
                batch = next(batches)
                is_last = micro == loop.accumulate - 1
                with autocast(device, loop.precision), torch.set_grad_enabled(not frozen), _syncing(forward, is_last):
                    embeddings = forward(normalise(batch.pixels))
                part = objective(embeddings.float(), batch.labels.to(device), batch.teacher, batch.triplets)
                part = part / loop.accumulate
                scaler.scale(part).backward()
                loss += part.detach()
                images += len(batch.labels) * world.size
            scaler.unscale_(optimizer)
            loss = distributed.mean(loss, world)
            norm, stop = clip_gradients(network, objective, recipe.optimizer.clip_norm, stop=interrupted())
            if is_finite(loss, norm):
                scaler.step(optimizer)
                in_a_row = 0
                if ema:
                    ema.update(network)
            else:
                skipped, in_a_row = skipped + 1, in_a_row + 1
                log.warning("step %d skipped: loss %s, gradient norm %s", step, loss.item(), norm.item())
                if in_a_row >= loop.max_skipped_steps:
                    raise RecipeError(
                        f"{in_a_row} steps in a row had no finite loss; lower optimizer.lr (now {rate:g}), set "
                        f"optimizer.clip_norm or use loop.precision fp32. The last good state is in {out}"
                    )
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            observer.stepped(step)
            if step % loop.log_every == 0 or step == total:
                now = time.monotonic()
                speed, since, images = images / (now - since), now, 0
                record = {"step": step, "loss": loss.item(), "lr": rate, "images_per_second": speed,
                          "gradient_norm": norm.item(), "skipped": skipped, **_plain(objective.last)}  # fmt: skip
                book.write(record)
                observer.logged(record)
            wants_judging = recipe.evaluate.every and step % recipe.evaluate.every == 0
            if wants_judging or step == total:
                verification = judge_now()
                write_strips(out, objective, batch)  # pyright: ignore[reportPossiblyUnboundVariable]
                since = time.monotonic()
            if step % loop.checkpoint_every == 0 or step == total or stop:
                checkpoint()
            if stop:
                log.info("stopped at step %d of %d; continue with: visavis train --resume %s", step, total, out)
                raise KeyboardInterrupt
    batches.close()  # type: ignore[attr-defined]
    speed = (step - first) * images_per_step / max(1e-9, time.monotonic() - begun)
    return Run(out, out / "best", step, skipped, speed, judge, verification)


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


def build_sampler(recipe: Recipe, pictures: ImageDataset, *, rank: int = 0, world: int = 1) -> Sampler:
    """The sampler a recipe names."""
    batch, data = recipe.loop.batch_size, recipe.data
    if data.sampler == "shuffled":
        return Shuffled(pictures.labels, batch_size=batch, seed=recipe.seed, rank=rank, world=world)
    if batch % data.images_per_class:
        raise RecipeError(
            f"loop.batch_size must be a multiple of data.images_per_class for the pxk sampler, "
            f"got {batch} and {data.images_per_class}"
        )
    return PxK(
        pictures.labels,
        classes_per_batch=batch // data.images_per_class,
        images_per_class=data.images_per_class,
        seed=recipe.seed,
        rank=rank,
        world=world,
    )


def resume_recipe(run: str | Path) -> Recipe:
    """The recipe a run was started with, from its checkpoint, or from `recipe.yaml` if it ended before the first."""
    if _ended_early(Path(run)):
        return load_recipe(str(Path(run) / RECIPE))
    state = load_checkpoint(Path(run))
    import yaml

    try:
        return parse_recipe(yaml.safe_load(state["recipe"]), name=f"{run}: recipe in the checkpoint")
    except (KeyError, yaml.YAMLError) as error:
        raise RecipeError(f"{run}: the checkpoint holds no readable recipe") from error


def _ended_early(run: Path) -> bool:
    """Whether there is a run here that never came to write a checkpoint."""
    return (run / RECIPE).is_file() and not has_checkpoint(run)


def describe_data(about: dict[str, object]) -> str:
    """One line for the model card."""
    return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in about.items())


def _claim(out: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run folder, refusing to write over a run that took a step; an earlier failure has nothing to lose."""
    if not resume and (has_checkpoint(out) or read_metrics(out)):
        raise DataError(f"{out} already holds a run; give another --out, or continue it: visavis train --resume {out}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            (out / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot write the run folder ({error.strerror})") from error


def _plain(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _syncing(forward: nn.Module, is_last: bool) -> Any:
    """Gradients are averaged over the ranks in the last of the accumulated batches only."""
    if is_last or not isinstance(forward, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return forward.no_sync()


@contextmanager
def _averaged(network: nn.Module, ema: ExponentialMovingAverage | None) -> Iterator[None]:
    """The network with its averaged weights, for as long as the block lasts."""
    if ema is None:
        yield
        return
    own = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(ema.values)
    try:
        yield
    finally:
        network.load_state_dict(own)


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Turn Ctrl-C and SIGTERM into a flag the loop reads between steps; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        log.info("stopping after this step (again to stop at once)")

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
