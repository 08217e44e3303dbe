"""visavis train under torchrun on this machine: two gloo processes, resumed on one, and what happens when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from visavis.train.checkpoint import load_checkpoint
from visavis.train.run_logger import read_metrics

pytestmark = pytest.mark.slow


def write_recipe(folder, path, steps):
    recipe = {
        "name": "tiny",
        "data": {"source": str(folder)},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8, "dropout": 0.1}},
        "head": {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}},
        "optimizer": {"lr": 0.05},
        "loop": {"batch_size": 16, "steps": steps, "log_every": 1, "checkpoint_every": 2, "ema": 0.9, "device": "cpu"},
        "evaluate": {"source": str(folder)},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def launch(processes, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "-m", "visavis", "train", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def test_two_processes_train_one_model_and_one_process_resumes_it(blob_folder, tmp_path):
    recipe, run = write_recipe(blob_folder, tmp_path / "tiny.yaml", 6), tmp_path / "run"
    said, _ = (done := launch(2, recipe, "--out", run)).communicate(timeout=280)
    assert done.returncode == 0, said
    assert "8 × 2 devices" in said
    assert said.count("model:") == 1
    state = load_checkpoint(run)
    assert state["step"] == 6
    assert len(state["objective"]["head.weight"]) == 8
    assert (state["images"], state["batch"]["devices"], state["identities"]["count"]) == (96, 2, 8)
    files = sorted(p.name for p in next((run / "last").glob("checkpoint-*")).iterdir())
    assert files == ["rank-0-of-2.safetensors", "rank-1-of-2.safetensors"]
    assert [r["step"] for r in read_metrics(run) if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert json.loads((run / "report.json").read_text())["comparisons"]["total"] == 32

    said, _ = (done := launch(1, "--resume", run, "--loop.steps", 8)).communicate(timeout=280)
    assert done.returncode == 0, said
    assert "resumed on 1 devices instead of 2: the batch stays 16" in said
    assert "16 × 1 devices" in said
    assert load_checkpoint(run)["step"] == 8


def test_a_rank_that_dies_ends_the_run_by_name_with_a_checkpoint(blob_folder, tmp_path):
    recipe, run = write_recipe(blob_folder, tmp_path / "tiny.yaml", 100_000), tmp_path / "run"
    process = launch(2, recipe, "--out", run)
    until = time.monotonic() + 200
    while time.monotonic() < until and not (run / "last" / "checkpoint.json").is_file():
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    victim = next(pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(int(victim), signal.SIGKILL)
    said, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert f"rank 1 of 2 died without a word; continue with: visavis train --resume {run}" in said  # torchrun aside
    assert load_checkpoint(run)["step"] >= 2
