"""One run, however it is shared: accumulated, on 2, 3, 1 processes one after the other; weights and rate the same."""

import os
import subprocess
import sys

import pytest
import torch
from paths import TESTS

from visavis.train.checkpoint import load_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_folder import resume_recipe
from visavis.train.run_logger import read_metrics

CENTERS = {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}, "center_loss": 0.1}


def recipe(folder, head):
    return parse_recipe(
        {
            "data": {"source": str(folder), "workers": 0},
            "preprocess": {"size": [8, 8]},
            "augment": {"flip": 0.0},
            "backbone": {"name": "linear_network:Linear", "dim": 6},
            "head": head,
            "optimizer": {"lr": 0.2, "lr_reference_batch": 24, "clip_norm": 5.0},
            "schedule": {"name": "cosine", "warmup_steps": 2},
            "loop": {"batch_size": 12, "steps": 9, "log_every": 1, "ema": 0.9, "device": "cpu"},
        }
    )


def assert_same_run(one, two, tolerance):
    a, b = load_checkpoint(one), load_checkpoint(two)
    for part in ("network", "objective"):
        for name, value in a[part].items():
            torch.testing.assert_close(b[part][name], value, rtol=tolerance, atol=tolerance, msg=name)
    for name, entries in a["optimizer"].items():
        found = b["optimizer"][name]["momentum_buffer"]
        torch.testing.assert_close(found, entries["momentum_buffer"], rtol=tolerance, atol=tolerance, msg=name)
    for line, other in zip(read_metrics(one), read_metrics(two), strict=True):
        assert (line["step"], line["lr"]) == (other["step"], other["lr"])
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)


@pytest.mark.parametrize(
    "head",
    [
        {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}},
        {"name": "asoftmax", "args": {"lambda_base": 10.0, "lambda_min": 0.0}},
        {"name": "cosface", "args": {"scale": 16.0}, "sample_rate": 1.0, "sub_centers": 2},
    ],
)
def test_accumulation_changes_nothing(blob_folder, tmp_path, head):
    """Nor does it let λ fall faster: the parts of a batch are one step."""
    train(recipe(blob_folder, head), tmp_path / "whole")
    parts = recipe(blob_folder, head)
    parts.loop.device_batch = 4
    train(parts, tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts")["batch"]["accumulate"] == 3
    assert load_checkpoint(tmp_path / "parts")["objective"]["head.steps"] == 9
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 1e-5)


@pytest.mark.slow
def test_two_then_three_then_one_process_are_as_one_all_along(blob_folder, tmp_path):
    """The same images in the same order at the same rate; class centers and momentum move from rank to rank."""
    train(recipe(blob_folder, CENTERS), tmp_path / "alone")
    made = recipe(blob_folder, CENTERS)
    (tmp_path / "r.yaml").write_text(made.to_yaml())
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS / "support"), os.environ.get("PYTHONPATH", "")]),
    }
    run = tmp_path / "shared"
    first = [str(tmp_path / "r.yaml"), "--out", str(run)]
    for processes, words, stop in ((2, first, 3), (3, first, 6)):
        code = (
            "import sys; from visavis.train import loop; own = loop.train_step\n"
            f"loop.train_step = lambda t, s, b, stop: own(t, s, b, stop=s.step == {stop - 1})\n"
            "from visavis.cli import main; sys.exit(main(['train', *sys.argv[1:]]))\n"
        )
        (tmp_path / "stopping.py").write_text(code)
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        done = subprocess.run(
            [*command, str(tmp_path / "stopping.py"), *words], capture_output=True, text=True, env=environment,
            timeout=280, check=False,
        )  # fmt: skip
        assert load_checkpoint(run)["step"] == stop, done.stdout + done.stderr
        assert load_checkpoint(run)["batch"]["devices"] == processes
    train(resume_recipe(run), run, resume=True)
    assert_same_run(tmp_path / "alone", run, 1e-4)
