"""The recipes of the four reference systems hold the published hyper-parameters and can be built."""

from __future__ import annotations

import math
import re

import pytest

from visavis.losses.heads import build_head
from visavis.losses.triplets.loss import TripletObjective
from visavis.train.batch import plan_batch
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


@pytest.mark.parametrize(
    ("name", "words", "wanted"),
    [  # rows D8, S8, M9, M10: what the sources' scripts for several devices set, as global batch, rate and length
        ("deepid", "--loop.batch_size 256 --optimizer.lr 2e-4 --loop.epochs 300", (256, 2e-4, 300)),
        ("deepid", "--loop.batch_size 256 --optimizer.lr 2e-4 --loop.epochs 260", (256, 2e-4, 260)),
        ("sphereface", "--loop.batch_size 512 --loop.epochs 25 --schedule.args.t_max 23", (64 * 8, 0.15, 25)),
        ("sphereface", "", (32 * 8, 0.15, 20)),
        ("massface-softmax", "--loop.batch_size 480", (4 * 120, 1.0, 0)),
        ("massface-triplet", "--loop.batch_size 820", (4 * 41 * 5, 1e-3, 0)),
        ("arcface", "", (64 * 8, 0.08, 25)),
    ],
)
def test_a_published_run_on_several_devices_is_an_override_the_header_names(
    name: str, words: str, wanted: tuple[int, float, float]
) -> None:
    r = load_recipe(name, words.split())
    assert (r.loop.batch_size, r.optimizer.lr, r.loop.epochs) == wanted
    header = " ".join(recipe_text(name).split("\nname:")[0].replace("#", " ").split())
    for flag, value in zip(words.split()[::2], words.split()[1::2], strict=True):
        assert flag in header
        assert value in header
    for devices in (1, 4):  # devices divide a batch, they never multiply it
        assert plan_batch(r, devices).batch_size == r.loop.batch_size


def test_sphereface_on_eight_gpus_follows_t_max_23() -> None:
    r = load_recipe("sphereface", ["--loop.epochs=25", "--schedule.args.t_max=23"])
    found = rates(r, per_epoch=10, total=250, at=[0, 11.5, 23])
    assert found == pytest.approx([0.15, 0.15 * (1 + math.cos(math.pi * 11 / 23)) / 2, 0.0], abs=1e-12)


@pytest.mark.parametrize("name", ["arcface-r50-ms1mv3", "arcface-r100-ms1mv3", "cosface-r100-glint360k",
                                  "cosface-r100-webface42m", "cosface-vit-b-webface42m",
                                  "cosface-vit-l-webface42m"])  # fmt: skip
def test_recipes_of_arcface_torch_are_as_its_files(name: str) -> None:
    """configs/*.py, train_v2.py and partial_fc_v2.py: rate at the global batch, epochs, warm-up, decay."""
    wanted = {
        "arcface-r50-ms1mv3": (0.2, 1024, 25, 2, 5e-4),
        "arcface-r100-ms1mv3": (0.2, 1024, 25, 0, 5e-4),
        "cosface-r100-glint360k": (0.1, 1024, 20, 0, 1e-4),
        "cosface-r100-webface42m": (0.3, 4096, 20, 1, 5e-4),
        "cosface-vit-b-webface42m": (1e-3, 24_576, 40, 4, 0.1),
        "cosface-vit-l-webface42m": (1e-3, 24_576, 40, 4, 0.1),
    }
    r = load_recipe(name)
    rate = r.optimizer.lr * r.loop.batch_size / r.optimizer.lr_reference_batch
    found = (rate, r.loop.batch_size, r.loop.epochs, r.schedule.warmup_epochs, r.optimizer.weight_decay)
    assert found == pytest.approx(wanted[name])
    assert (r.optimizer.clip_norm, r.optimizer.clip, r.head.init_std) == (5.0, "backbone", 0.01)
    assert (r.schedule.name, r.schedule.args) == ("polynomial", {"power": 2.0})
    assert r.head.args.get("detach_margin", False) is name.startswith("arcface")  # of no matter where ψ = cos θ − m


def test_adaface_trains_as_its_script() -> None:
    r = load_recipe("adaface-r100-ms1mv2")
    assert r.optimizer.lr * r.loop.batch_size / r.optimizer.lr_reference_batch == 0.1
    assert (r.loop.batch_size, r.optimizer.clip_norm, r.optimizer.decay_norms) == (512, 0, False)


FULL_SOURCES = [*FULL, "adaface-r100-ms1mv2", "arcface-r50-ms1mv3", "arcface-r100-ms1mv3", "cosface-r100-glint360k"]


@pytest.mark.parametrize("name", FULL_SOURCES)
def test_a_published_recipes_header_names_its_source_file_and_commit(name: str) -> None:
    header = " ".join(recipe_text(name).split("\nname:")[0].replace("#", " ").split())
    source = header[header.index("source: ") :]
    assert re.search(r" at [0-9a-f]{7}\b", source)
    assert re.search(r"[\w/]+\.(py|sh)\b", source)
