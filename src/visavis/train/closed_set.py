"""Closed-set accuracy during training: further pictures of the people trained on, and whom the head takes them for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from visavis.data.sources.lists import open_list
from visavis.errors import DataError, RecipeError
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.models.classifier import Classifier
from visavis.train.dataset import beside
from visavis.train.recipe import Recipe
from visavis.types import ByteArray, IntArray
from visavis.vision.preprocessing import PreprocessSpec, fit_crops


class FeatureEmbedder(Protocol):
    """An embedder that gives raw features (N, D) too."""

    def features(self, crops: ByteArray) -> np.ndarray:
        """Before rows are scaled to length 1; uint8 (N, H, W, 3) -> (N, D)."""
        ...


class ClosedSetValidation:
    """Pictures of the people trained on, in the network's size, and their classes."""

    def __init__(self, crops: ByteArray, labels: IntArray, spec: PreprocessSpec) -> None:
        self.crops, self.labels, self.spec = crops, labels, spec

    def __call__(self, embedder: FeatureEmbedder, head: MarginSoftmax) -> float:
        """The share of pictures whose own class has the highest logit, without margin. All ranks must call it."""
        features = torch.from_numpy(np.asarray(embedder.features(self.crops)))
        if self.spec.flip != "none":  # the mean over the two views
            features = features.unflatten(1, (-1, head.dim)).sum(1) / 2
        predicted = head.predict(features.to(head.weight.device)).cpu().numpy()
        return float(np.mean(predicted == self.labels))


def open_closed_set(recipe: Recipe, spec: PreprocessSpec, identities: Sequence[str]) -> ClosedSetValidation | None:
    """The list a recipe names as `evaluate.valid`; None when it names none.

    Raises:
        DataError: no such list, or a person whom the training has not.
    """
    if not recipe.evaluate.valid:
        return None
    path = beside(recipe.evaluate.valid, recipe.evaluate.source or recipe.data.source)
    try:
        source = open_list(path)
    except DataError as error:
        raise DataError(f"evaluate.valid: {error}; --evaluate.valid '' leaves it out") from error
    known = {name: label for label, name in enumerate(identities)}
    strangers = [name for name in source.identities if name not in known]
    if strangers:
        raise DataError(
            f"evaluate.valid: {path}: label {strangers[0]!r} ({len(strangers)} in all) is not among the identities "
            "trained on; top-1 is of those people alone"
        )
    moved = np.array([known[name] for name in source.identities], np.int64)
    crops = np.stack([fit_crops(source.image(i)[None], spec)[0] for i in range(len(source))])
    return ClosedSetValidation(crops, moved[source.labels], spec)


def check_classifier(recipe: Recipe) -> None:
    """Refuse to keep or judge a classifier that there is not or that will not fit the finished network.

    Raises:
        RecipeError: says which key to change.
    """
    for key, wanted in (
        ("head.keep_classifier", recipe.head.keep_classifier),
        ("evaluate.valid", bool(recipe.evaluate.valid)),
    ):
        if wanted and recipe.head.name == "none":
            raise RecipeError(f"{key} needs a head that learns to classify; head.name is none")
        if wanted and recipe.loop.wccn_ridge:
            raise RecipeError(f"{key} does not go with loop.wccn_ridge: the classifier was trained on other features")


def classifier_of(head: MarginSoftmax, identities: Sequence[str]) -> Classifier:
    """The head as a model folder keeps it. All ranks must call it."""
    weight, bias = head.class_rows()
    return Classifier(
        weight.float().cpu().numpy(),
        None if bias is None else bias.float().cpu().numpy(),
        tuple(identities),
        head.sub_centers,
    )
