"""What a run leaves on disk at a checkpoint: the model of the moment and all that resuming needs, if it is finite."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from visavis.data.validate.trained_on import NOTE
from visavis.errors import RecipeError
from visavis.models.caution import DRAWINGS, TRAINED_ON, is_of_drawings
from visavis.models.classifier import Classifier
from visavis.models.torch import save_model
from visavis.train.build import Training
from visavis.train.checkpoint import LAST, save_checkpoint
from visavis.train.closed_set import classifier_of
from visavis.train.identities import Identities
from visavis.train.run_folder import belongings, versions
from visavis.train.state import TrainState

log = logging.getLogger(__name__)
MODELS = "models"


def save(training: Training, state: TrainState, run: Path) -> bool:
    """Write the checkpoint and `last/`, unless the state is not good; returns whether it did. All ranks must call it.

    A state is good when the last step had a finite loss and every weight, average and optimizer value is finite. A
    state that is not is never written over one that is: call again after the next finite step.

    Raises:
        DataError: the folder cannot be written or the disk is full; the checkpoint before is untouched.
    """
    if why := find_fault(training, state):
        log.warning("no checkpoint at step %d: %s; %s", state.step, why, say_good(state, run))
        return False
    kept = state.state_dict()
    identities = Identities.of(training.images)
    with state.averaged():
        plain = training.model(state)
        classifier = kept_classifier(training, state)
        if training.world.is_first:
            identities.save(run)
            write_model(training, state, run / LAST, plain, classifier)
            keep_model(training, state, run, plain, classifier)
    save_checkpoint(run, {**kept, **belongings(training, state, identities)}, step=state.step, world=training.world)
    state.good_step = state.step
    return True


def find_fault(training: Training, state: TrainState) -> str:
    """Why the state must not be kept or judged; "" when it is good. All ranks must call it."""
    if state.in_a_row:
        return f"the last {state.in_a_row} steps had no finite loss"
    name = state.find_not_finite(training.world)
    return f"{name} is not finite" if name else ""


def say_good(state: TrainState, run: Path) -> str:
    """Where the last good state is."""
    if state.good_step is None:
        return "no good state was saved yet"
    return f"the last good state, of step {state.good_step}, is in {run / LAST}"


def give_up(training: Training, state: TrainState, run: Path, why: str) -> RecipeError:
    """The error that ends a run which has lost its way."""
    rate = training.learning_rate * training.schedule(state.step)
    return RecipeError(
        f"{why} at step {state.step}; lower optimizer.lr (now {rate:g}), set optimizer.clip_norm or use loop.precision "
        f"fp32. {say_good(state, run)[0].upper()}{say_good(state, run)[1:]}"
    )


def kept_classifier(training: Training, state: TrainState) -> Classifier | None:
    """The classifier, if the recipe wants it kept. All ranks must call it."""
    head = state.objective.head
    if head is None or not training.recipe.head.keep_classifier:
        return None
    return classifier_of(head, training.images.identities)


def write_model(
    training: Training, state: TrainState, folder: Path, network: nn.Module, classifier: Classifier | None
) -> None:
    """Write a network as a model folder whose card says how far the run was."""
    notes: dict[str, Any] = {
        "step": state.step,
        "images_seen": state.step * training.plan.batch_size,
        "machine": versions()["machine"],
    }
    if training.images.damaged:
        notes["damaged_pictures_replaced"] = len(training.images.damaged)
    if is_of_drawings(training.card):
        notes[TRAINED_ON] = DRAWINGS
    if training.warning:
        notes["warning"] = training.warning
    if training.trained_on is not None:
        notes[NOTE] = training.trained_on.key
        training.trained_on.save(folder)
    save_model(folder, network, training.card.with_changes(notes=notes), classifier)


def keep_model(
    training: Training, state: TrainState, run: Path, network: nn.Module, classifier: Classifier | None
) -> None:
    """Write a network to models/step-N as well, if the recipe wants it; only the `loop.keep` newest stay."""
    keep = training.recipe.loop.keep
    if not keep:
        return
    write_model(training, state, run / MODELS / f"step-{state.step:08d}", network, classifier)
    for old in sorted((run / MODELS).glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
