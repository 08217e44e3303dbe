"""The training loop, top to bottom: take a step, log it, judge now and then, save now and then."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from visavis import __version__
from visavis._moved import renamed_method
from visavis.distributed import launch as distributed
from visavis.distributed.device import describe_device
from visavis.distributed.launch import World, on_first
from visavis.errors import DataError
from visavis.metrics.verification import VerificationMetrics
from visavis.train.build import Training, build_training, check_recipe
from visavis.train.checkpoint import open_checkpoint
from visavis.train.dataset import WHAT_TO_TYPE
from visavis.train.held_out import FILE as HELD_OUT
from visavis.train.held_out import write_held_out
from visavis.train.identities import Identities
from visavis.train.learning import LearningWatch, check_can_learn
from visavis.train.recipe import Recipe
from visavis.train.run_folder import (
    check_belongings,
    check_changes,
    claim,
    ended_early,
    goes_on,
    locked,
    recipe_of,
    write_recipe,
)
from visavis.train.run_logger import Observer, RunLogger
from visavis.train.save import give_up, save, say_good
from visavis.train.state import TrainState
from visavis.train.step import StepResult, train_step
from visavis.train.trained_on import look_at_training_data
from visavis.train.triplet_pools import write_strips
from visavis.train.validate import validate
from visavis.train.validation import ValidationSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished training: its folder, its best model's folder, and the held-out pairs with their last verification."""

    folder: Path
    model: Path
    steps: int
    skipped_steps: int
    images_per_second: float
    validation_set: ValidationSet | None
    verification: VerificationMetrics | None

    @property
    def judge(self) -> ValidationSet | None:
        """`validation_set`, as it was called in the release before."""
        renamed_method("Run.judge", "validation_set")
        return self.validation_set


def train(recipe: Recipe, out: str | Path, *, resume: bool | None = False, observer: Observer | None = None) -> Run:
    """Train `recipe` into the run folder `out`.

    Written there: `recipe.yaml`, `metrics.jsonl`, `log.txt`, `held_out.txt` where people were held out, and the model
    folders `best/` and `last/`, the latter with a checkpoint. With `resume` the run continues from that checkpoint and,
    on the same machine and as many processes, ends in the same bits as an uninterrupted one; where it ended before its
    first checkpoint, it starts over. With None it starts, or goes on where the folder holds an unfinished run of the
    same recipe. Ctrl-C and SIGTERM stop after the current step, with a checkpoint.

    Raises:
        RecipeError: an impossible setting, or a run that lost its way (no finite loss for many steps).
        DataError: unusable images, other identities than those of the run resumed, a folder that cannot be written
            or that another training has.
        KeyboardInterrupt: stopped by the user, after the checkpoint was written.
    """
    out, observer = Path(out), observer or Observer()
    world = distributed.setup(recipe.loop.device)
    try:
        with distributed.report_failed_ranks(world, run=out):
            check_recipe(recipe, world.size)
            with ExitStack() as held:
                on_first(lambda: held.enter_context(locked(out)), world)
                return _prepare_and_run(recipe, out, world, observer, resume=resume)
    finally:
        distributed.shutdown(world)


def _prepare_and_run(recipe: Recipe, out: Path, world: World, observer: Observer, *, resume: bool | None) -> Run:
    if resume is None:
        resume = bool(on_first(lambda: goes_on(out, recipe), world))
    resumes: bool = resume
    kept = open_checkpoint(out) if resume and not ended_early(out) else None
    if kept:
        check_changes(recipe_of(out, kept), recipe, run=out)
    on_first(lambda: claim(out, resume=resumes), world)
    if not kept:
        on_first(lambda: write_recipe(out, recipe), world)
    with RunLogger(out, resume_from=int(kept["step"]) if kept else None, silent=not world.is_first) as book:
        if resume and not kept:
            log.info("%s has no checkpoint yet: from the start", out)
        if recipe.loop.threads:
            torch.set_num_threads(recipe.loop.threads)
        torch.manual_seed(recipe.seed)
        log.info("visavis %s, torch %s on %s, %s", __version__, torch.__version__, describe_device(world.device),
                 recipe.loop.precision)  # fmt: skip
        training, state = build_training(recipe, world, observer, resumes=kept is not None)
        check_can_learn(recipe, training.images)
        identities = Identities.of(training.images)
        if training.validation_set and (people := training.validation_set.people):
            on_first(lambda: write_held_out(out, people), world)
            log.info("judged by %d identities held out of training: %s", len(people), out / HELD_OUT)
        if kept:
            check_belongings(kept, training, identities, run=out)
            state.load_state_dict(kept)
            on_first(lambda: write_recipe(out, recipe), world)
            log.info("resumed at step %d of %d", state.step, training.total)
        on_first(lambda: look_at_training_data(training, identities, out), world)
        return _run(training, state, out, book)


def _run(training: Training, state: TrainState, out: Path, book: RunLogger) -> Run:
    """Step until the end, or until somebody says stop."""
    loop, observer = training.recipe.loop, training.observer
    training.tuning.train()
    observer.started(state.step, training.total)
    batches = training.batches(state)
    clock, watch, verification, overdue = Clock(training, state), LearningWatch(training), None, False
    with _interruptible() as interrupted:
        while state.step < training.total:
            try:
                result = train_step(training, state, batches, stop=interrupted())
            except DataError as error:  # an image that cannot be read: nothing of the step has happened
                raise _saved_first(training, state, out, error) from error
            if state.in_a_row >= loop.max_skipped_steps:
                raise give_up(training, state, out, f"{state.in_a_row} steps in a row had no finite loss")
            watch.update(state, result)
            observer.stepped(state.step)
            is_last = state.step == training.total
            if state.step % loop.log_every == 0 or is_last:
                _log(training, state, result, clock, book)
            if (training.judge_every and state.step % training.judge_every == 0) or is_last:
                verification = validate(training, state, out, book)
                write_strips(out, state.objective, result.batch)
                clock.skip()
            is_due = state.step % loop.checkpoint_every == 0 or is_last or result.stop
            if is_due or (overdue and result.finite):
                overdue = not save(training, state, out)
            if is_last and overdue:
                raise give_up(training, state, out, "the run ended without a finite state")
            if result.stop:
                log.info("stopped at step %d of %d, %s; continue with: visavis train --resume %s", state.step,
                         training.total, say_good(state, out), out)  # fmt: skip
                raise KeyboardInterrupt
    batches.close()  # type: ignore[attr-defined]
    return Run(out, out / "best", state.step, state.skipped, clock.speed(), training.validation_set, verification)


def _saved_first(training: Training, state: TrainState, out: Path, error: DataError) -> DataError:
    """The error that ends a run at a damaged image, after what was learned is on disk.

    With several ranks the others wait in a collective, so nothing can be saved together: the last checkpoint stands.
    """
    state.optimizer.zero_grad(set_to_none=True)
    if training.world.size == 1 and state.step and state.good_step != state.step:
        save(training, state, out)
    return DataError(f"{error}; {say_good(state, out)}; {WHAT_TO_TYPE}; continue with: visavis train --resume {out}")


class Clock:
    """Images per second: since the last look, and over all."""

    def __init__(self, training: Training, state: TrainState) -> None:
        self.batch_size, self.state = training.plan.batch_size, state
        self.begun = self.since = time.monotonic()
        self.first = self.last = state.step

    def lap(self) -> float:
        """Images per second since the last lap."""
        now, images = time.monotonic(), (self.state.step - self.last) * self.batch_size
        speed, self.since, self.last = images / max(1e-9, now - self.since), now, self.state.step
        return speed

    def skip(self) -> None:
        """Leave the time since the last lap out of the next."""
        self.since, self.last = time.monotonic(), self.state.step

    def speed(self) -> float:
        """Images per second over all, judging included."""
        return (self.state.step - self.first) * self.batch_size / max(1e-9, time.monotonic() - self.begun)


def _log(training: Training, state: TrainState, result: StepResult, clock: Clock, book: RunLogger) -> None:
    record = {
        "step": state.step,
        "loss": result.loss.item(),
        "lr": result.rate,
        "images_per_second": clock.lap(),
        "gradient_norm": result.norm.item(),
        "skipped": state.skipped,
        **{name: float(value) for name, value in state.objective.last.items()},
    }
    book.write(record)
    training.observer.logged(record)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
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
