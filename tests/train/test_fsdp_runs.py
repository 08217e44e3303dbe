"""loop.shard_backbone through the command line: two processes with split weights, resumed on one without."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from visavis.distributed.launch import World
from visavis.errors import RecipeError
from visavis.models.torch import load_model
from visavis.train.checkpoint import load_checkpoint
from visavis.train.finetune.finetuning import FineTuning
from visavis.train.recipe import FinetuneRecipe, LoraRecipe, parse_recipe


def recipe(folder, **loop):
    return {
        "name": "split",
        "data": {"source": str(folder), "workers": 0},
        "preprocess": {"size": [27, 27]},
        "augment": {"flip": 0.0},
        "backbone": {"name": "vit_tiny", "dim": 16, "args": {"drop_path": 0.0}},
        "head": {"name": "cosface", "args": {"scale": 16.0, "margin": 0.2}},
        "optimizer": {"lr": 0.01, "clip_norm": 1.0},
        "loop": {"batch_size": 8, "steps": 3, "log_every": 1, "device": "cpu", **loop},
        "evaluate": {"source": str(folder)},
    }


def run(processes, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "visavis", "train", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_split_weights_train_as_whole_ones_and_resume_on_one_process(blob_folder, tmp_path):
    for name, split in (("whole", False), ("split", True)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe(blob_folder, shard_backbone=split)))
        run(2, tmp_path / f"{name}.yaml", "--out", tmp_path / name)
    weights = [load_file(tmp_path / name / "best" / "weights.safetensors") for name in ("whole", "split")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5, msg=name)
    states = [load_checkpoint(tmp_path / name) for name in ("whole", "split")]
    momenta = [state["optimizer"] for state in states]
    assert momenta[0].keys() == momenta[1].keys()
    for index, entry in momenta[0].items():
        torch.testing.assert_close(
            momenta[1][index]["momentum_buffer"], entry["momentum_buffer"], rtol=1e-2, atol=1e-4, msg=str(index)
        )
    run(1, "--resume", tmp_path / "split", "--loop.steps", 4)
    assert load_checkpoint(tmp_path / "split")["step"] == 4
    load_model(tmp_path / "split")


def test_what_split_weights_do_not_go_with_is_refused(blob_folder):
    with pytest.raises(RecipeError, match=r"shard_backbone .* without loop\.ema"):
        parse_recipe(recipe(blob_folder, shard_backbone=True, ema=0.9))
    tuning = FineTuning(torch.nn.Sequential(torch.nn.Linear(3, 3)), FinetuneRecipe(lora=LoraRecipe(rank=1)))
    with pytest.raises(RecipeError, match=r"finetune\.lora"):
        tuning.shard(World(0, 2, 0, torch.device("cpu")))
