"""Whether a run can learn and does: refused before the first step where it cannot, said where it does not."""

from __future__ import annotations

import logging
import math

import numpy as np

from visavis.errors import RecipeError
from visavis.train.build import Training
from visavis.train.dataset import ImageDataset
from visavis.train.recipe import Recipe
from visavis.train.state import TrainState
from visavis.train.step import StepResult

log = logging.getLogger(__name__)
WITHOUT_TRIPLETS = 100  # steps in a row
AT_LN_C = 0.01  # relative distance from ln C that counts as having learned nothing
LONG, LONG_STEPS = 0.25, 500  # of the run, and at least so many steps


def check_can_learn(recipe: Recipe, images: ImageDataset) -> None:
    """Refuse a triplet loss whose images hold no triplet.

    Raises:
        RecipeError: nobody has two images; says what to type.
    """
    if not recipe.triplet.weight:
        return
    counts = np.bincount(images.labels, minlength=images.num_classes)
    if counts.max() < 2:
        raise RecipeError(
            f"triplet.weight {recipe.triplet.weight:g}: none of the {images.num_classes} identities has two images, so "
            "there is no triplet to learn from; train on identities with several (--data.min_images 2), or leave "
            "triplet.weight 0"
        )
    if (few := float((counts < 2).mean())) > 0.5:
        log.warning(
            "%.0f %% of the identities have a single image and are never an anchor; leave them out with "
            "--data.min_images 2",
            100 * few,
        )


class LearningWatch:
    """Looks at every step and says once each: no triplets for long, a loss that stays at ln C, a learning rate of 0."""

    def __init__(self, training: Training) -> None:
        self.total = training.total
        has_head = training.recipe.head.name != "none"
        self.alone = has_head and not training.recipe.triplet.weight and not training.recipe.distill.teacher
        self.uniform = math.log(training.images.num_classes)
        self.without_triplets = self.at_uniform = self.at_rate_0 = 0
        self._said: set[str] = set()

    def update(self, state: TrainState, result: StepResult) -> None:
        """One step; the loss is read at every tenth alone, so that no device has to wait."""
        self.without_triplets = self.without_triplets + 1 if state.objective.last.get("triplets") == 0 else 0
        if self.without_triplets >= WITHOUT_TRIPLETS:
            self._say(
                "triplets",
                f"no triplets in {WITHOUT_TRIPLETS} steps in a row: nothing is learned from them; use the pxk sampler "
                "(--data.sampler pxk), a larger batch, a larger triplet.margin or another miner",
            )
        self.at_rate_0 = self.at_rate_0 + 1 if result.rate == 0 else 0
        if self.at_rate_0 >= 2 and state.step < self.total:  # a warm-up may begin at 0, a schedule end there
            self._say("rate", f"the learning rate is 0 at step {state.step} of {self.total}: nothing is learned")
        if self.alone and result.finite and state.step % 10 == 0:
            near = abs(float(result.loss) / self.uniform - 1) < AT_LN_C
            self.at_uniform = self.at_uniform + 10 if near else 0
            if self.at_uniform >= max(LONG_STEPS, LONG * self.total):
                self._say(
                    "uniform",
                    f"the loss has stayed at ln C = {self.uniform:.3f}, that of guessing, for {self.at_uniform} steps; "
                    "raise optimizer.lr, lower head margin and scale, or look at the labels: visavis validate SRC",
                )

    def _say(self, kind: str, what: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            log.warning("%s", what)
