"""What a dry run computes, that it runs where the data is absent, keeps its time, and refuses what training refuses."""

import time

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from visavis.cli import main
from visavis.errors import RecipeError, VisavisError
from visavis.train.cost import dry_run
from visavis.train.loop import train
from visavis.train.recipe import load_recipe, parse_recipe, recipe_names, recipe_text
from visavis.vision.images import write

OF_ONES_OWN = (
    "distill",
    "finetune",
    "finetune-triplet",
    "from-scratch",
    "quickstart",
)  # for data that only their user knows
LARGE = ("cosface-vit-b-webface42m", "cosface-vit-l-webface42m")


def recipe(**sections):
    values = {
        "name": "costly",
        "data": {"source": "nowhere/at/all", "workers": 0, "expected_identities": 1000, "expected_images": 50_000},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "loop": {"batch_size": 80, "device_batch": 8, "epochs": 2.0, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_recipe(values)


def test_a_dry_run_without_data_measures_noise():
    seen = []
    cost = dry_run(recipe(), devices=2, steps=3, progress=lambda *told: seen.append(told))
    assert (cost.steps_per_epoch, cost.steps, cost.batch) == (50_000 // 80, 2 * (50_000 // 80), 80)
    assert cost.centers == 16_000
    assert cost.speed.images_per_second > 0
    assert (cost.speed.steps, cost.speed.centers, seen[-1]) == (3, 1000, ("measuring steps", 3, 3))
    text = cost.to_table().to_text()
    assert "nowhere/at/all is not there" in text
    assert "1,000 identities" in text


def test_a_dry_run_with_data_counts_it_and_suits_triplets(blob_folder):
    wanted = recipe(
        data={"source": str(blob_folder), "sampler": "pxk", "images_per_class": 2},
        head={"name": "none"},
        triplet={"weight": 1.0},
        loop={"batch_size": 16},
    )
    cost = dry_run(wanted, steps=2)
    assert (cost.extent.identities, cost.extent.images) == (8, 48)
    assert (cost.centers, cost.steps_per_epoch) == (0, 1)


FULL_SCALE = [name for name in recipe_names() if not name.endswith("-small") and name not in OF_ONES_OWN]


def test_full_scale_are_the_recipes_that_say_how_much_data_their_set_holds():
    stated = [name for name in recipe_names() if "expected_images" in yaml.safe_load(recipe_text(name)).get("data", {})]
    assert stated == FULL_SCALE


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in FULL_SCALE])
def test_every_full_scale_recipe_is_measured_from_what_its_header_knows(name):
    wanted = load_recipe(name, ["--loop.device=cpu", "--data.workers=0"])
    begun = time.monotonic()
    cost = dry_run(wanted, devices=1, steps=1, seconds=3)
    assert time.monotonic() - begun < 60  # the network is built, and a layer is run, outside the limit's reach
    assert (cost.extent.images, cost.extent.identities) == (
        wanted.data.expected_images,
        wanted.data.expected_identities,
    )
    assert cost.steps == (wanted.loop.steps or round(wanted.loop.epochs * cost.steps_per_epoch))
    assert cost.parameters > 0
    assert cost.memory["weights"] == 4 * cost.parameters
    speed = cost.speed
    assert speed.images_per_second > 0 if speed.steps else speed.remark  # measured, or it is said why not
    assert wanted.data.source in cost.to_table().to_text()
    if name == "massface-triplet":
        assert "massface-softmax-run, which the run starts from, is not there" in cost.to_table().to_text()


class Slow(nn.Module):
    """Eight layers of which each sleeps, on the way there or on the way back."""

    def __init__(self, there, back):
        super().__init__()
        self.layers = nn.Sequential(*(Sleeping(there, back) for _ in range(8)))
        self.start = nn.Linear(3, 4)

    def forward(self, x):
        return self.layers(self.start(x.mean((2, 3))))


class Sleeping(nn.Module):
    def __init__(self, there, back):
        super().__init__()
        self.there, self.back = there, back

    def forward(self, x):
        time.sleep(self.there)
        return SlowBack.apply(x * x, self.back)


class SlowBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seconds):
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.seconds)
        return gradient, None


def slow_forward(*, size, dim):
    return Slow(1.5, 0)


def slow_backward(*, size, dim):
    return Slow(0, 1.5)


@pytest.mark.parametrize("name", ["slow_forward", "slow_backward"])
def test_the_time_limit_holds_where_a_single_step_exceeds_it(name, monkeypatch):
    monkeypatch.setattr("visavis.train.build.build_backbone", lambda _, **options: globals()[name](**options))
    begun = time.monotonic()
    cost = dry_run(recipe(backbone={"name": "small", "dim": 4, "args": {}}), steps=20, seconds=1.0)
    assert time.monotonic() - begun < 9  # a step takes 12 s in its layers alone
    assert cost.speed.steps == 0
    text = cost.to_table().to_text()
    assert "takes longer than the 1 s allowed" in text
    assert f"{cost.parameters:,}" in text  # what is known is said
    assert (cost.forward_flops is None) == ("FLOPs per image, forward" in text and "not measured: longer than" in text)


def test_a_busy_machine_is_said(monkeypatch, caplog):
    monkeypatch.setattr("visavis.train.cost.usable_cores", lambda: 4)
    for load, said in ((1.0, False), (1.01, True), (None, False)):
        caplog.clear()
        monkeypatch.setattr("visavis.train.cost.load_average", lambda load=load: load)
        text = dry_run(recipe(), steps=1).to_table().to_text()
        assert ("speeds are those of a busy machine" in text) == said
        assert ("busy machine" in caplog.text) == said


TRIPLETS = {"head": {"name": "none"}, "triplet": {"weight": 1.0}}
REFUSED = {
    "mixed sizes": {},
    "crops of another shape": {},
    "a damaged picture": {},
    "one identity": {},
    "nobody twice": TRIPLETS,
    "fewer pictures than a batch": {"loop": {"batch_size": 200, "device_batch": 0}},
    "no such pairs": {"evaluate": {"pairs": "missing.txt"}},
    "pairs of somebody else": {"evaluate": {"pairs": "pairs.txt"}},
    "milestones": {"schedule": {"name": "multistep", "args": {"milestones": [2, 4]}}},
    "a wrong name": {"head": {"name": "arcfase"}},
    "people held out": {
        "data": {"synthetic": {"identities": 2, "first_identity": 9_999_999}},
        "evaluate": {"synthetic_identities": 2},
    },
    "no centers to imprint": TRIPLETS | {"finetune": {"imprint": True}},
    "a layer that is not there": {"finetune": {"freeze": ["body"]}},
    "a teacher that is not there": {"distill": {"teacher": "nowhere"}},
    "a batch of parts": {"loop": {"batch_size": 8, "device_batch": 3}},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_training_refuses_a_dry_run_refuses_in_the_same_words(kind, tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    for person in range(1 if kind == "one identity" else 12):
        (folder / f"p{person:02}").mkdir(parents=True)
        for i in range(1 if kind == "nobody twice" else 3):
            odd = kind == "crops of another shape" or (kind == "mixed sizes" and (person, i) == (7, 2))
            shape = (32, 40, 3) if odd else (32, 32, 3)
            file = folder / f"p{person:02}" / f"{i}.png"
            write(file, rng.integers(0, 256, shape, np.uint8))
            if kind == "a damaged picture" and (person, i) == (7, 1):
                file.write_bytes(file.read_bytes()[:200])
    (folder / "pairs.txt").write_text("1\t1\np00\t0\t1\nzoe\t0\tp01\t1\n")
    sections = {"loop": {"batch_size": 8, "device_batch": 0}} | REFUSED[kind]
    sections["data"] = sections.get("data", {}) | {"source": str(folder)}

    def said(run):
        with pytest.raises(VisavisError) as caught:
            run(recipe(**sections))
        return str(caught.value)

    expected = said(lambda wanted: train(wanted, tmp_path / "run"))
    assert said(lambda wanted: dry_run(wanted, steps=1)) == expected


def test_how_much_data_must_be_known(tmp_path, capsys):
    with pytest.raises(RecipeError, match=r"--data\.expected_identities"):
        dry_run(recipe(data={"expected_identities": 0}))
    path = tmp_path / "r.yaml"
    path.write_text(recipe().to_yaml())
    assert main(["train", str(path), "--dry-run", "--data.expected_images", "0"]) == 2
    assert "nowhere/at/all is not there" in capsys.readouterr().err


def test_the_command_prints_progress_and_figures(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(recipe().to_yaml())
    assert main(["train", str(path), "--dry-run", "--devices", "5"]) == 0
    out, told = capsys.readouterr()
    for words in ("parameters of the network", "FLOPs per image", "memory per device, in all", "5 devices", "images/s",
                  "median of 20 steps"):  # fmt: skip
        assert words in out
    for words in ("building the network", "measuring activations", "measuring steps 5/20", "measuring steps 20/20"):
        assert words in told
    assert not (tmp_path / "runs").exists()


def test_devices_without_a_dry_run_would_be_ignored(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(recipe().to_yaml())
    assert main(["train", str(path), "--devices", "4", "--out", str(tmp_path / "run")]) == 2
    assert "torchrun --nproc-per-node 4" in capsys.readouterr().err
