"""The folder of a run: claimed by one training at a time, and what a run that goes on must have in common with it."""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from visavis import __version__
from visavis.errors import DataError, RecipeError
from visavis.files import exclusive, write_atomically
from visavis.train.build import Training
from visavis.train.checkpoint import has_checkpoint, open_checkpoint
from visavis.train.identities import Identities, read_identities, say_difference
from visavis.train.recipe import Recipe, load_recipe, parse_recipe
from visavis.train.run_logger import read_metrics
from visavis.train.state import TrainState
from visavis.train.strict_yaml import read_yaml

log = logging.getLogger(__name__)
RECIPE, LOCK = "recipe.yaml", ".lock"
# What a resumed run may do otherwise: how long and how fast it learns, where things are, how it is watched.
MAY_CHANGE = (
    "name", "license", "training_data", "data.source", "data.workers", "data.cache", "data.cache_gb",
    "data.skip_damaged", "data.expected_identities", "data.expected_images", "optimizer.lr",
    "optimizer.lr_reference_batch", "optimizer.weight_decay", "optimizer.clip_norm", "schedule", "loop.steps",
    "loop.epochs", "loop.device_batch", "loop.wccn_ridge", "loop.device", "loop.threads", "loop.compile",
    "loop.channels_last", "loop.shard_backbone", "loop.log_every", "loop.checkpoint_every", "loop.keep",
    "loop.max_skipped_steps", "evaluate", "head.keep_classifier",
)  # fmt: skip


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run folder against another training, on this machine or another that shares the disk.

    The lock is the kernel's: it ends with the process, however that ends.

    Raises:
        DataError: another training has it (named), or the folder cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(f"{run}: cannot write the run folder ({error.strerror})") from error
    with ExitStack() as held:
        held.callback(os.close, handle)
        try:
            held.enter_context(exclusive(handle, wait=False))
        except BlockingIOError:
            holder = os.read(handle, 500).decode(errors="replace") or "another process"
            raise DataError(f"{run} is being trained by {holder}; wait for it, or give another --out") from None
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): see that nothing else trains there", run, error.strerror)
        said = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}"
        try:
            with suppress(OSError):
                os.ftruncate(handle, 0)
                os.write(handle, said.encode())
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(handle, 0)


def claim(run: Path, *, resume: bool) -> None:
    """Tidy the run folder, refusing one whose run took a step unless it goes on; a failure before has nothing to lose.

    Raises:
        DataError: it holds a run, or cannot be written.
    """
    if not resume and (has_checkpoint(run) or read_metrics(run, missing_ok=True)):
        raise DataError(f"{run} already holds a run; give another --out, or continue it: visavis train --resume {run}")
    try:
        for left in [*run.glob("*/*.part"), *run.glob("*.part")]:  # of a killed process: the folder is ours alone
            left.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{run}: cannot write the run folder ({error.strerror})") from error


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write `recipe.yaml`; where a run goes on, only when nothing of it can be refused any more."""
    write_atomically(run / RECIPE, recipe.to_yaml().encode())


def goes_on(run: Path, recipe: Recipe) -> bool:
    """Whether a folder holds an unfinished run of this very recipe; False where there is nothing to lose.

    Raises:
        DataError: it holds another run, or a finished one.
    """
    if not has_checkpoint(run) and not read_metrics(run, missing_ok=True):
        return False
    kept = open_checkpoint(run) if has_checkpoint(run) else None
    old = recipe_of(run, kept) if kept else load_recipe(str(run / RECIPE), kept=True)
    if differing := changes(old, recipe):
        key, (was, now) = next(iter(differing.items()))
        raise DataError(
            f"{run} already holds a run, with {key} {was!r} and not {now!r}; give another --out, or go on with it: "
            f"visavis train --resume {run}"
        )
    if kept and kept["step"] == kept.get("total_steps"):
        raise DataError(
            f"{run} already holds this run, finished at step {kept['step']}; give another --out, or make it longer: "
            f"visavis train --resume {run} --loop.steps N"
        )
    log.info("%s holds this run already: going on with it", run)
    return True


def ended_early(run: Path) -> bool:
    """Whether there is a run here that never came to write a checkpoint."""
    return (run / RECIPE).is_file() and not has_checkpoint(run)


def resume_recipe(run: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe a run was started with, from its checkpoint, or from `recipe.yaml` if it ended before the first.

    `overrides` may change what lets a run go on otherwise: steps, epochs, rate, schedule, where the images are.

    Raises:
        RecipeError: an override that a resumed run cannot follow, or a recipe.yaml edited since.
    """
    folder = Path(run)
    if ended_early(folder):
        return load_recipe(str(folder / RECIPE), overrides, kept=True)
    kept = open_checkpoint(folder)
    old = recipe_of(folder, kept)
    has_file = "identities" in kept and (folder / RECIPE).is_file()  # one of format 1 has keys of its time
    edited = load_recipe(str(folder / RECIPE), kept=True) if has_file else old
    if differing := changes(old, edited):
        key, (was, now) = next(iter(differing.items()))
        raise RecipeError(
            f"{folder / RECIPE} was edited: {key} is {now!r}, the run has {was!r}; put it back and type "
            f"visavis train --resume {folder} --{key} {now}"
        )
    new = parse_recipe(asdict(old), overrides, name=str(folder), kept=True)
    check_changes(old, new, run=folder)
    return new


def recipe_of(run: Path, state: Mapping[str, Any]) -> Recipe:
    """The recipe in a checkpoint."""
    try:
        return parse_recipe(
            read_yaml(state["recipe"], name=f"{run}"), name=f"{run}: recipe in the checkpoint", kept=True
        )
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{run}: the checkpoint holds no readable recipe") from error


def changes(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """The fields in which two recipes differ, by their full name."""
    before, after = _flat(asdict(old)), _flat(asdict(new))
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def check_changes(old: Recipe, new: Recipe, *, run: Path) -> None:
    """Refuse a recipe that a run with `old` cannot go on with.

    Raises:
        RecipeError: names the first field.
    """
    for key, (was, now) in changes(old, new).items():
        if not any(key == name or key.startswith(name + ".") for name in MAY_CHANGE):
            raise RecipeError(f"--{key} {now}: a resumed run keeps its {key} ({was}); {start_anew(run)} --{key} {now}")
    if new.loop.epochs != old.loop.epochs and new.loop.steps:
        raise RecipeError(
            f"loop.steps {new.loop.steps} decides how long the run is; add --loop.steps 0 to go by epochs"
        )


def start_anew(run: Path) -> str:
    """What to type where a run cannot go on."""
    return f"to start anew from its weights: visavis train {run / RECIPE} --init {run} --init-head --out NEW"


def belongings(training: Training, state: TrainState, identities: Identities) -> dict[str, Any]:
    """What a checkpoint belongs to, beside the state itself: its recipe, identities, batch, progress and versions."""
    return {
        "recipe": training.recipe.to_yaml(),
        "identities": identities.summary(),
        "batch": asdict(training.plan),
        "images": state.step * training.plan.batch_size,
        "total_steps": training.total,
        "learning_rate": training.learning_rate,
        "versions": versions(),
    }


def check_belongings(kept: Mapping[str, Any], training: Training, identities: Identities, *, run: Path) -> None:
    """Refuse to resume on other identities, another global batch, or past the end; say what else is different.

    Raises:
        DataError: other identities, named. RecipeError: another batch, or a run that was longer.
    """
    if "identities" not in kept:
        log.warning(
            "%s is of an older visavis and names no identities: they are taken to be the same; its next batches are "
            "drawn from other random streams than that one's",
            run,
        )
    elif kept["identities"]["digest"] != identities.digest:
        old = read_identities(run, missing_ok=True)
        said = say_difference(old, identities) if old else "their names were not kept"
        raise DataError(
            f"these are not the identities {run} was trained on: {said}; give the images as they were "
            f"(--data SRC), or {start_anew(run)}"
        )
    plan, step = training.plan, int(kept["step"])
    if kept["images"] != step * plan.batch_size:
        raise RecipeError(
            f"{run} has seen {kept['images']:,} images in {step} steps, not in steps of {plan.batch_size}; type "
            f"--loop.batch_size {kept['images'] // max(1, step)}"
        )
    if step > training.total:
        raise RecipeError(f"{run} is at step {step} already, the recipe ends at {training.total}; give --loop.steps N")
    batch, written_by = kept.get("batch", {}), kept.get("versions", {})
    if batch and batch["devices"] != plan.devices:
        log.info("resumed on %d devices instead of %d: the batch stays %d (%s)",
                 plan.devices, batch["devices"], plan.batch_size, plan)  # fmt: skip
    if kept.get("total_steps", training.total) != training.total:
        log.info("the run is now %d steps long instead of %d", training.total, kept["total_steps"])
    if kept.get("learning_rate", training.learning_rate) != training.learning_rate:
        log.info("the learning rate is now %g instead of %g", training.learning_rate, kept["learning_rate"])
    if written_by and written_by != versions():
        log.warning("written by %s, this is %s: the figures may differ in their last digits",
                    json.dumps(written_by), json.dumps(versions()))  # fmt: skip


def versions() -> dict[str, str]:
    """What may change the last digits of a result."""
    return {"visavis": __version__, "torch": torch.__version__, "machine": platform.machine()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return found
