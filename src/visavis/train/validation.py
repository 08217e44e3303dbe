"""VerificationMetrics during training: the held-out pairs of a recipe, decoded once, judged as often as wanted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.evaluate.embedding import check_finite
from visavis.metrics.verification import VerificationMetrics, verify_pairs
from visavis.train.dataset import Advance, beside, decoded_folder, held_out_images
from visavis.train.generated_faces import generated_faces
from visavis.train.held_out import draw_pairs
from visavis.train.recipe import Recipe
from visavis.types import ByteArray, Embedder, IntArray, Pairs
from visavis.vision.preprocessing import PreprocessSpec, fit_crops, place_frame

# Held-out generated people start here, so that no training set of generated people can reach them.
HELD_OUT_IDENTITY = 10_000_000


class ValidationSet:
    """Pairs and their pictures, already in the network's size; `people`, where training left them out for this."""

    def __init__(self, held_out: Pairs, crops: ByteArray, people: tuple[str, ...] = ()) -> None:
        self.pairs, self.crops, self.people = held_out, crops, people

    def __call__(self, embedder: Embedder) -> VerificationMetrics:
        """Embed every picture once and verify the pairs.

        Raises:
            ProtocolError: embeddings that are not finite, which no figure may be made of.
        """
        embeddings = embedder.embed(self.crops)
        check_finite(embeddings, self.pairs.images)
        return verify_pairs(embeddings, self.pairs)

    @property
    def images(self) -> Mapping[str, ByteArray]:
        """Picture by name; each (H, W, 3)."""
        return dict(zip(self.pairs.images, self.crops, strict=True))


def open_validation_set(
    recipe: Recipe, spec: PreprocessSpec, *, advance: Advance | None = None
) -> ValidationSet | None:
    """The held-out pairs a recipe names; None when it names none.

    Raises:
        DataError: a pair names a picture that is missing, or generated training people reach into the held-out ones.
    """
    if (found := find_pairs(recipe)) is not None:
        listed, source, index, people = found
        try:
            crops = np.stack([fit_crops(source.image(int(i))[None], spec)[0] for i in index])
        except DataError as error:
            raise DataError(f"{error}; the held-out pairs need it: mend it, or leave it out of the list") from error
        return ValidationSet(listed, crops, people)
    if not recipe.evaluate.synthetic_identities:
        return None
    return synthetic_validation_set(recipe, spec, advance=advance)


def find_pairs(recipe: Recipe) -> tuple[Pairs, Source, IntArray, tuple[str, ...]] | None:
    """The pairs a recipe lists or draws from held-out people, their source, where in it each picture is, these people.

    Shapes: places (N,).

    Raises:
        DataError: no list, no source, or a pair names a picture that is missing.
    """
    wanted, data = recipe.evaluate, recipe.data
    if wanted.source or wanted.pairs:
        source = open_source(wanted.source or data.source)
        listed = read_pairs(beside(wanted.pairs or "pairs.txt", wanted.source or data.source), wanted.dialect)
        return listed, source, check_pairs(listed, source), ()
    if data.source and data.held_out:
        people = held_out_images(data)
        drawn = draw_pairs(people)
        return drawn, people, check_pairs(drawn, people), people.identities
    return None


def check_held_out(recipe: Recipe) -> None:
    """Refuse generated people to train on that are among those held out to judge by.

    Raises:
        DataError: they reach into them.
    """
    synthetic = recipe.data.synthetic
    others = recipe.evaluate.source or recipe.evaluate.pairs or (recipe.data.source and recipe.data.held_out)
    judged = recipe.evaluate.synthetic_identities and not others
    if judged and synthetic.first_identity + synthetic.identities > HELD_OUT_IDENTITY:
        raise DataError(f"data.synthetic must stay below identity {HELD_OUT_IDENTITY:,}: those above are held out")


def synthetic_validation_set(recipe: Recipe, spec: PreprocessSpec, *, advance: Advance | None = None) -> ValidationSet:
    """Pairs of generated people that no training set has."""
    from visavis.synthetic import pairs

    wanted, synthetic = recipe.evaluate, recipe.data.synthetic
    people = range(HELD_OUT_IDENTITY, HELD_OUT_IDENTITY + wanted.synthetic_identities)
    crops, _ = generated_faces(
        synthetic.seed,
        people,
        wanted.synthetic_images,
        size=synthetic.size,
        difficulty=synthetic.difficulty,
        folder=decoded_folder(recipe.data),
        budget=recipe.data.cache_gb * 1e9,
        workers=recipe.data.workers,
        progress=advance,
    )
    held_out = pairs(
        wanted.synthetic_identities,
        wanted.synthetic_images,
        wanted.synthetic_pairs,
        wanted.synthetic_folds,
        seed=recipe.seed,
        first_identity=HELD_OUT_IDENTITY,
    )
    return ValidationSet(held_out, fit_crops(place_frame(crops, spec), spec))
