"""What a run is trained on, looked at once before the first step, and whether its held-out pairs are part of it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from visavis.data.validate.trained_on import FILE, TrainedOn, read_file, read_trained_on, take_training_set
from visavis.data.validate.training_overlap import find_overlap
from visavis.errors import DataError
from visavis.machine import usable_cores
from visavis.train.build import Training
from visavis.train.checkpoint import LAST
from visavis.train.dataset import ImageDataset
from visavis.train.identities import Identities
from visavis.types import ByteArray

log = logging.getLogger(__name__)


def look_at_training_data(training: Training, identities: Identities, run: Path) -> None:
    """Set `training.trained_on`, and `training.warning` where the held-out pairs share people or pictures with it.

    A run that goes on reads what it kept; what the model it starts from was trained on is part of it.
    """
    recipe, images = training.recipe, training.images
    before = read_trained_on(recipe.init) if recipe.init else None
    made_of = f"{identities.digest} {recipe.data.fingerprints} {before.key if before else ''}"
    key = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    found = read_file(run / LAST / FILE, key=key)
    if found is None:
        own = take_training_set(
            identities.names,
            lambda index: _image(images, index, may_fail=not recipe.data.skip_damaged),
            len(images),
            limit=recipe.data.fingerprints,
            workers=max(usable_cores(), recipe.data.workers),
            progress=training.observer.preparing,
        )
        found = TrainedOn((*(before.sets if before else ()), own), key)
    training.trained_on = found
    said = []
    if training.validation_set is not None:
        said.append(find_overlap(training.validation_set.images, found).sentence())
    if training.closed_set is not None:
        shown = {str(row): crop for row, crop in enumerate(training.closed_set.crops)}
        said.append(find_overlap(shown, found.without_people()).sentence())
    training.warning = "; ".join(filter(None, said))
    if training.warning:
        log.warning("%s; other pairs: --evaluate.pairs FILE --evaluate.source SRC", training.warning)


def _image(images: ImageDataset, index: int, *, may_fail: bool) -> ByteArray | None:
    """A picture; None where it is damaged and the step that needs it will say so. Replacements are counted here too."""
    try:
        return images.take(np.array([index]))[0]
    except DataError:
        if not may_fail:
            raise
        return None
