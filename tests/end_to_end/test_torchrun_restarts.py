"""torchrun --max-restarts: any rank killed at any moment, and the run ends in the weights of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch.distributed as dist
import yaml

from visavis.cli import main
from visavis.distributed.launch import meet
from visavis.train.checkpoint import load_checkpoint
from visavis.train.run_logger import read_metrics

KILLS = int(os.environ.get("VISAVIS_KILLS", "3"))


def together(store, size):
    """All ranks meet, in threads; what each got set and read."""
    found, errors = {}, []

    def enter(rank):
        try:
            own = meet(store, rank, size, seconds=20)
            own.set(f"address/{rank}", str(time.monotonic_ns()))
            found[rank] = [own.get(f"address/{other}") for other in range(size)]
        except RuntimeError as error:
            errors.append((rank, str(error)))

    threads = [threading.Thread(target=enter, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    return found


def test_ranks_started_again_do_not_read_what_the_dead_have_left():
    """One store through all starts, as torchrun's agent keeps it."""
    store = dist.HashStore()
    seen = set()
    for _ in range(3):
        found = together(store, 3)
        assert found[0] == found[1] == found[2]
        assert not seen & set(found[0])
        seen |= set(found[0])
        store.set("visavis/hello/1", "of one who died right here")


def test_who_does_not_come_is_named():
    store = dist.HashStore()
    store.set("visavis/hello/2", "a dead one")
    with pytest.raises(RuntimeError, match="rank 1, 2 did not come"):
        meet(store, 0, 3, seconds=0.2)
    with pytest.raises(RuntimeError, match="rank 0 did not answer"):
        meet(store, 1, 3, seconds=0.2)


def recipe(steps):
    return {
        "name": "tiny",
        "data": {"synthetic": {"identities": 8, "images_per_identity": 6, "size": 32}, "workers": 0},
        "preprocess": {"size": [28, 28]},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8, "dropout": 0.1}},
        "head": {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}},
        "optimizer": {"lr": 0.05},
        "loop": {"batch_size": 8, "steps": steps, "log_every": 1, "checkpoint_every": 10, "ema": 0.9, "device": "cpu"},
    }


def test_one_command_starts_or_goes_on(tmp_path, capsys):
    path, run = tmp_path / "r.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(recipe(100_000)))
    words = [sys.executable, "-m", "visavis", "train", str(path), "--out", str(run)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while not (run / "last" / "checkpoint.json").is_file() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    step = load_checkpoint(run)["step"]
    again = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not any(line["step"] > step for line in read_metrics(run)) and time.monotonic() < until:
        time.sleep(0.1)
    again.send_signal(signal.SIGTERM)
    said = again.communicate(timeout=60)[1]
    assert "holds this run already: going on with it" in said
    assert f"resumed at step {step} of 100000" in said
    assert main(["train", str(path), "--out", str(run), "--optimizer.lr=0.1"]) == 2
    assert "already holds a run, with optimizer.lr 0.05 and not 0.1; give another --out" in capsys.readouterr().err


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    path, run = tmp_path / "r.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(recipe(2)))
    assert main(["train", str(path), "--out", str(run)]) == 0
    assert main(["train", str(path), "--out", str(run)]) == 2
    said = capsys.readouterr().err
    assert (
        f"finished at step 2; give another --out, or make it longer: visavis train --resume {run} --loop.steps N"
        in said
    )


def launch(path, run, log):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(KILLS + 2)]
    return subprocess.Popen(
        [*command, "-m", "visavis", "train", str(path), "--out", str(run)],
        stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def workers(process):
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    found = []
    for pid in listed.split():
        with suppress(OSError):
            if b"\0LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
    return found


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_any_rank_killed_at_random_ends_in_the_weights_of_an_undisturbed_run(tmp_path):
    path, random_numbers = tmp_path / "r.yaml", random.Random(4)
    path.write_text(yaml.safe_dump(recipe(60 + 20 * KILLS)))
    with (tmp_path / "log").open("w") as log:
        assert launch(path, tmp_path / "whole", log).wait(timeout=280) == 0
        process = launch(path, tmp_path / "killed", log)
        index = tmp_path / "killed" / "last" / "checkpoint.json"
        for _ in range(KILLS):
            before, until = index.stat().st_mtime if index.is_file() else 0.0, time.monotonic() + 120
            while process.poll() is None and time.monotonic() < until:
                if index.is_file() and index.stat().st_mtime > before:
                    break
                time.sleep(0.02)
            time.sleep(random_numbers.uniform(0.0, 1.0))
            alive = workers(process)
            if process.poll() is None and alive:
                os.kill(random_numbers.choice(alive), signal.SIGKILL)
                while process.poll() is None and set(workers(process)) & set(alive):
                    time.sleep(0.1)
        assert process.wait(timeout=280) == 0, (tmp_path / "log").read_text()[-3000:]
    said = (tmp_path / "log").read_text()
    assert said.count("resumed at step") >= 1
    a, b = (load_checkpoint(tmp_path / name) for name in ("whole", "killed"))
    for part in ("network", "objective"):
        assert all(value.equal(b[part][name]) for name, value in a[part].items()), part
    assert all(value.equal(b["ema"]["values"][name]) for name, value in a["ema"]["values"].items())
    losses = [[(r["step"], r["loss"]) for r in read_metrics(tmp_path / name)] for name in ("whole", "killed")]
    assert losses[0] == losses[1]
    print(f"{said.count('resumed at step')} resumptions after {KILLS} kills")
