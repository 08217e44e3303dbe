"""Triplet pools under torchrun: two gloo processes mine one pool, step together, and resume it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from visavis.train.checkpoint import load_checkpoint
from visavis.train.run_logger import read_metrics
from visavis.vision.images import write

pytestmark = pytest.mark.slow


def people(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for identity in range(8):
        color = rng.integers(60, 200, 3)
        (folder / f"id{identity}").mkdir(parents=True)
        for k in range(4):
            noisy = color + rng.normal(0, 45, (32, 32, 3))
            write(folder / f"id{identity}" / f"{k}.png", np.clip(noisy, 0, 255).astype(np.uint8))
    return folder


def launch(*words: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "visavis", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, env=environment, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("pool", ["online", "semi-online", "offline"])
def test_two_processes_mine_one_pool_and_resume_in_the_middle_of_it(pool: str, tmp_path: Path) -> None:
    recipe = {
        "name": "tiny",
        "data": {"source": str(people(tmp_path / "faces")), "sampler": "pxk", "images_per_class": 4},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "head": {"name": "cosface", "weight": 0.5, "args": {"scale": 16.0}},
        "triplet": {"weight": 1.0, "margin": 1.0, "miner": "batch_random", "pool": pool, "pool_batches": 2},
        "optimizer": {"name": "adagrad", "lr": 0.01},
        "loop": {"batch_size": 24, "steps": 6, "log_every": 1, "checkpoint_every": 3, "device": "cpu"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    launch(tmp_path / "tiny.yaml", "--out", run, "--loop.steps", 3)
    launch("--resume", run, "--loop.steps", 6)
    state = load_checkpoint(run)
    assert state["step"] == 6
    if pool != "online":
        assert len(state["pool"]["counts"]) == 2
        assert min(state["pool"]["counts"]) > 0
    records = [r for r in read_metrics(run) if "triplets" in r]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert min(r["triplets"] for r in records) > 0
