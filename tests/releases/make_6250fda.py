"""Made `6250fda.tar.xz` with the code of that commit; kept so that one can see what the files are.

    git worktree add OLD 6250fda && PYTHONPATH=OLD/src python tests/releases/make_6250fda.py tests/releases

A model folder, the run it is from, and what they answered: embeddings of crops, and the
similarity of two faces cut out of large pictures by their landmarks, as `verify` did then.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from visavis.deploy.face import align_face
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.models.card import read_card, write_card
from visavis.models.load import load_embedder
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.vision.alignment import template_points

RECIPE = {
    "name": "old",
    "license": "MIT",
    "data": {"synthetic": {"identities": 4, "images_per_identity": 8}, "workers": 0, "cache": "memory"},
    "preprocess": {"size": [32, 32], "channels": "BGR", "flip": "sum"},
    "backbone": {"name": "small", "dim": 8, "args": {"width": 8, "blocks": [0, 0, 0, 0]}},
    "optimizer": {"momentum": 0.0},
    "loop": {"batch_size": 8, "steps": 6, "checkpoint_every": 6, "device": "cpu", "threads": 1},
}


def pictures() -> list[np.ndarray]:
    """Two pictures (700, 700, 3) with sharp texture, whose reduction shows in the embedding."""
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (140, 140, 3), np.uint8), np.ones((5, 5, 1), np.uint8)) for _ in range(2)]


def main() -> None:
    """Write the archive."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "6250fda"
        write(out)
        with tarfile.open(Path(sys.argv[1]) / "6250fda.tar.xz", "w:xz", preset=9) as packed:
            packed.add(out, out.name)


def write(out: Path) -> None:
    """The run, the model and the answers."""
    train(parse_recipe(RECIPE), out / "run")
    model = out / "model"
    shutil.copytree(out / "run" / "best", model)
    thresholds = {"1e-2": {"threshold": 0.75, "impostors": 1000}}
    write_card(model, read_card(model).with_changes(thresholds=thresholds))
    left = replace(read_card(model).preprocess, size=(112, 96), template="sphereface-left")
    write_card(out, read_card(model).with_changes(preprocess=left))
    (out / "card.json").replace(out / "sphereface_left_card.json")
    card, embedder = read_card(model), load_embedder(model)
    rng = np.random.default_rng(1)
    crops = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    points = template_points("arcface", (700, 700))
    cut = [align_face(p, points, template=card.preprocess.template, size=card.preprocess.size) for p in pictures()]
    faces = embedder.embed(np.stack(cut))
    identity = ModelIdentity.of_card(card).digest
    left_identity = ModelIdentity.of_card(card.with_changes(preprocess=left)).digest
    answers = {
        "crops": embedder.embed(crops).tolist(),
        "faces": faces.tolist(),
        "similarity": float(faces[0] @ faces[1]),
        "identity": identity,
        "sphereface_left_identity": left_identity,
    }
    (out / "answers.json").write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
