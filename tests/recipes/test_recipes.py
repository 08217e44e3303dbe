"""The recipes of the four reference systems hold the published hyper-parameters and can be built."""

from __future__ import annotations

import pytest

from visavis.losses.heads import build_head
from visavis.losses.triplets.loss import TripletObjective
from visavis.train.recipe import Recipe, load_recipe, recipe_names, recipe_text
from visavis.train.schedule import build_schedule

FULL = ("deepid", "sphereface", "massface-softmax", "massface-cosface", "massface-triplet", "arcface")


def rates(recipe: Recipe, *, per_epoch: int, total: int, at: list[float]) -> list[float]:
    factor = build_schedule(recipe.schedule, total=total, per_epoch=per_epoch)
    return [recipe.optimizer.lr * factor(epoch * per_epoch) for epoch in at]


@pytest.mark.parametrize("name", [n for full in FULL for n in (full, f"{full}-small")])
def test_the_recipe_loads_and_its_header_says_what_it_takes(name: str) -> None:
    assert name in recipe_names()
    recipe, text = load_recipe(name), recipe_text(name)
    header = text[: text.index(f"\nname: {name}\n")]
    assert all(line.startswith("#") for line in header.splitlines())
    needed = ("# data:", "cost", "# source:", "published" if name in FULL else "# expected:")
    assert all(word in header for word in needed)
    if recipe.head.name != "none":
        build_head(recipe.head.name, **recipe.head.args)
    wanted = recipe.triplet
    if wanted.weight:
        TripletObjective(miner=wanted.miner, miner_args=wanted.miner_args, margin=wanted.margin)


def test_deepid_trains_as_rows_d5_and_d8_say() -> None:
    r = load_recipe("deepid")
    assert (r.optimizer.name, r.optimizer.lr, r.optimizer.weight_decay, r.schedule.name) == (
        "adam",
        1e-4,
        0,
        "constant",
    )
    assert (r.loop.batch_size, r.loop.epochs, r.backbone.name, r.backbone.dim) == (2048, 200, "deepid", 160)
    spec = r.preprocess.spec()
    assert (spec.size, spec.channels, spec.mean[0], spec.std[0]) == ((55, 47), "RGB", 127.5, 127.5)


def test_sphereface_trains_as_rows_s2_to_s8_say() -> None:
    r = load_recipe("sphereface")
    spec = r.preprocess.spec()
    assert (spec.size, spec.channels, spec.mean[0], spec.std[0]) == ((112, 96), "BGR", 127.5, 128.0)
    assert (r.augment.random_crop, r.augment.flip, r.augment.brightness, r.augment.saturation) == (0.5, 0.5, 0.4, 0.4)
    assert (r.head.args["margin"], r.head.label_smoothing, r.backbone.name) == (4, 0.15, "sphere20")
    assert (r.optimizer.momentum, r.optimizer.weight_decay, r.loop.batch_size, r.loop.epochs) == (0.9, 5e-4, 256, 20)
    # CosineAnnealingLR(T_max=20) stepped per epoch from 0.15: 0.15 (1 + cos(pi e / 20)) / 2.
    found = rates(r, per_epoch=1775, total=20 * 1775, at=[0, 0.99, 5, 10, 19])
    assert found == pytest.approx([0.15, 0.15, 0.12803, 0.075, 0.00092333], rel=1e-4)


def test_massface_trains_as_rows_m3_to_m9_say() -> None:
    softmax, cosface, triplet = (load_recipe(f"massface-{stage}") for stage in ("softmax", "cosface", "triplet"))
    for r in (softmax, cosface):
        assert (r.optimizer.name, r.optimizer.eps, r.optimizer.weight_decay) == ("adam", 0.1, 1e-4)
        assert (r.backbone.name, r.backbone.dim, r.loop.batch_size, r.loop.steps) == ("massface", 1024, 120, 60_000)
        # lr_coco.txt: 0:.01 5:.05 10:.1 30:.05 45:.01 55:.001, epochs of 600 steps.
        found = rates(r, per_epoch=600, total=60_000, at=[0, 4.99, 5, 10, 29.9, 30, 45, 55, 99])
        assert found == [0.01, 0.01, 0.05, 0.1, 0.1, 0.05, 0.01, 0.001, 0.001]
    assert cosface.head.args == {"scale": 64.0, "margin": 0.25}
    assert (triplet.optimizer.name, triplet.optimizer.lr, triplet.optimizer.weight_decay) == ("adagrad", 1e-3, 1e-4)
    assert (triplet.loop.batch_size, triplet.data.images_per_class, triplet.triplet.margin) == (41 * 5, 5, 0.25)


def test_arcface_trains_as_rows_a1_to_a4_say() -> None:
    r = load_recipe("arcface")
    assert r.head.args == {"scale": 64.0, "margin": 0.5}
    assert (r.optimizer.lr, r.optimizer.lr_reference_batch, r.optimizer.momentum, r.optimizer.weight_decay) == (
        0.08,
        512,
        0.9,
        1e-4,
    )
    assert (r.backbone.name, r.backbone.dim, r.loop.epochs, r.data.expected_identities) == (
        "iresnet100",
        512,
        25,
        85_742,
    )
    found = rates(r, per_epoch=11_372, total=25 * 11_372, at=[0, 9.9, 10, 16, 21, 24.9])
    assert found == pytest.approx([0.08, 0.08, 0.008, 8e-4, 8e-5, 8e-5])
