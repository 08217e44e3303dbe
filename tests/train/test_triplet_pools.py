"""Triplet training through the loop: every pool learns, resumes exactly, starts from a model, shows what it mined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from visavis.errors import RecipeError
from visavis.train.checkpoint import load_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import Recipe, parse_recipe
from visavis.train.run_logger import Observer, read_metrics
from visavis.vision.images import read, write


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six identities of 4 to 9 pictures: a color each, and noise."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for identity in range(6):
        color = rng.integers(60, 200, 3)
        (folder / f"id{identity}").mkdir()
        for k in range(4 + identity):
            noisy = color + rng.normal(0, 45, (32, 32, 3))
            write(folder / f"id{identity}" / f"{k}.png", np.clip(noisy, 0, 255).astype(np.uint8))
    return folder


def recipe(faces: Path, *, steps: int = 9, **sections: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "triplets",
        "data": {"source": str(faces), "workers": 2, "sampler": "pxk", "images_per_class": 4},
        "preprocess": {"size": [32, 32]},
        "augment": {"flip": 0.5, "shift": 0.05},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "head": {"name": "none"},
        "triplet": {"weight": 1.0, "margin": 0.5, "miner": "batch_random"},
        "optimizer": {"name": "adagrad", "lr": 0.01, "weight_decay": 1e-4},
        "schedule": {"name": "constant"},
        "loop": {"batch_size": 16, "steps": steps, "log_every": 1, "checkpoint_every": 4, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_recipe(values)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run)["network"]


class Interrupt(Observer):
    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt


POOLS = [
    {"pool": "online"},
    {"pool": "online", "miner": "batch_hardest", "soft_margin": True},
    {"pool": "semi-online", "pool_batches": 3},
    {"pool": "semi-online", "pool_batches": 2, "miner": "batch_all", "miner_args": {"legacy": True}},
    {"pool": "offline", "miner": "batch_min_max"},
]


@pytest.mark.parametrize("triplet", POOLS, ids=lambda t: "-".join(map(str, t.values())))
def test_every_pool_learns_and_resumes_to_the_same_bits(faces: Path, tmp_path: Path, triplet: dict[str, Any]) -> None:
    """Rows M7 and M11."""
    wanted = recipe(faces, triplet=triplet)
    train(wanted, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "cut", observer=Interrupt(6))  # the checkpoint is that of step 4, inside a pool
    train(wanted, tmp_path / "cut", resume=True)
    whole, make_batches = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], make_batches[name]) for name in whole)
    records = [r for r in read_metrics(tmp_path / "whole") if "triplet_loss" in r]
    assert len(records) == 9
    assert all(r["loss"] == pytest.approx(r["triplet_loss"]) for r in records)
    assert sum(r["triplets"] for r in records) > 20
    assert all(r["positive_distance"] <= 4 for r in records if r["triplets"])


def test_triplets_pull_a_pictures_own_identity_closer(faces: Path, tmp_path: Path) -> None:
    train(recipe(faces, steps=80, triplet={"miner": "batch_all"}, optimizer={"lr": 0.05}), tmp_path / "run")
    records = [r for r in read_metrics(tmp_path / "run") if "triplet_loss" in r]
    early, late = (np.mean([r["triplets"] for r in part]) for part in (records[:10], records[-10:]))
    assert late < 0.5 * early


def test_stage_two_starts_from_stage_one_and_joins_both_losses(faces: Path, tmp_path: Path) -> None:
    """Row M8: triplets and CosFace together."""
    softmax = recipe(faces, head={"name": "softmax"}, triplet={"weight": 0.0}, data={"sampler": "shuffled"})
    first = train(softmax, tmp_path / "one")
    start = {**weights(tmp_path / "one")}
    joint = recipe(
        faces, steps=3, init=str(first.model), head={"name": "cosface", "weight": 0.5}, optimizer={"lr": 1e-9}
    )
    train(joint, tmp_path / "two")
    now = weights(tmp_path / "two")
    learned = [n for n in start if n.endswith("weight")]
    assert all(torch.allclose(start[n], now[n], atol=1e-6) for n in learned)
    assert (tmp_path / "two" / "triplets.png").is_file()
    for record in (r for r in read_metrics(tmp_path / "two") if "triplet_loss" in r):
        assert record["loss"] > record["triplet_loss"]


def test_centers_only_warm_up_leaves_the_network_as_it_was(faces: Path, tmp_path: Path) -> None:
    """Row M8: `pretrain_softmax`."""
    first = train(recipe(faces, steps=2), tmp_path / "one")
    start = weights(tmp_path / "one")
    warm = recipe(
        faces,
        steps=4,
        init=str(first.model),
        head={"name": "softmax"},
        triplet={"weight": 0.0},
        loop={"freeze_backbone_steps": 4},
        optimizer={"lr": 0.1},
    )
    train(warm, tmp_path / "two")
    now, parameters = weights(tmp_path / "two"), [n for n in start if "running" not in n and "batches" not in n]
    assert all(torch.equal(start[n], now[n]) for n in parameters)
    records = [r["loss"] for r in read_metrics(tmp_path / "two") if "loss" in r]
    assert records[-1] < records[0]


def test_mined_triplets_are_shown_as_strips(faces: Path, tmp_path: Path) -> None:
    """Row M11: `show_triplet`."""
    train(recipe(faces, steps=2, triplet={"pool": "semi-online", "pool_batches": 2}), tmp_path / "run")
    page = read(tmp_path / "run" / "triplets.png")
    assert page.shape[1] == 2 * (3 * 32 + 4) + 4
    assert page.shape[0] > 32
    from visavis.cli.run_report import _mined  # pyright: ignore[reportPrivateUsage]

    pairs = _mined(tmp_path / "run")
    assert len(pairs) >= 4
    assert {p.caption for p in pairs} == {("anchor, positive",), ("anchor, negative",)}
    assert all(p.reference[:2] == p.probe[:2] == b"\xff\xd8" for p in pairs)
    assert _mined(tmp_path) == []


def test_an_empty_pool_moves_on(faces: Path, tmp_path: Path) -> None:
    """Row M16."""
    empty = recipe(faces, steps=3, triplet={"pool": "semi-online", "pool_batches": 1, "margin": 0.0})
    empty.triplet.miner, empty.triplet.miner_args = "batch_all", {"legacy": True}
    empty.data.images_per_class, empty.loop.batch_size = 1, 4
    train(empty, tmp_path / "run")
    assert [r["triplets"] for r in read_metrics(tmp_path / "run") if "triplets" in r] == [0, 0, 0]
    assert not (tmp_path / "run" / "triplets.png").exists()


def test_a_batch_too_small_for_a_triplet_is_refused(faces: Path, tmp_path: Path) -> None:
    small = recipe(faces, triplet={"pool": "offline"}, data={"images_per_class": 2}, loop={"batch_size": 2})
    with pytest.raises(RecipeError, match="at least the 3 pictures of a triplet"):
        train(small, tmp_path / "run")
