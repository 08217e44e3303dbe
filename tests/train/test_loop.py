"""The loop end to end on a tiny set: learning, exact resume, Ctrl-C, skipped steps, full disks, bad data."""

import errno
import json
import os
import signal
import threading

import numpy as np
import pytest
import torch

from visavis.errors import DataError, ModelFormatError, RecipeError
from visavis.models.card import read_card
from visavis.train import checkpoint as checkpoint_module
from visavis.train import step as step_module
from visavis.train.checkpoint import load_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_folder import resume_recipe
from visavis.train.run_logger import Observer, read_metrics


def tiny(folder, *, steps=12, **sections):
    values = {
        "name": "tiny",
        "data": {"source": str(folder), "workers": 2},
        "preprocess": {"size": [32, 32]},
        "augment": {"flip": 0.5, "shift": 0.05, "brightness": 0.2, "random_erasing": 0.3},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "head": {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}},
        "optimizer": {"lr": 0.05, "clip_norm": 5.0},
        "loop": {"batch_size": 8, "steps": steps, "log_every": 2, "checkpoint_every": 5, "ema": 0.9, "device": "cpu"},
        "evaluate": {"source": str(folder), "every": 6},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_recipe(values)


class StopAfter(Observer):
    """Presses Ctrl-C when a step is done."""

    def __init__(self, step):
        self.step = step

    def stepped(self, step):
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


def assert_same_state(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same_state(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_state(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_a_resumed_run_ends_in_the_same_bits_as_an_uninterrupted_one(blob_folder, tmp_path, optimizer):
    recipe = tiny(blob_folder, optimizer={"name": optimizer, "lr": 0.01}, loop={"batch_size": 16, "device_batch": 8})
    train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "halves", observer=StopAfter(7))
    assert load_checkpoint(tmp_path / "halves")["step"] == 8  # the step under way is finished first
    resumed = train(resume_recipe(tmp_path / "halves"), tmp_path / "halves", resume=True)
    assert resumed.steps == 12
    assert_same_state(load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "halves"))
    names = ("card.json", "weights.safetensors")
    for kind in ("best", "last"):
        for name in names:
            assert (tmp_path / "whole" / kind / name).read_bytes() == (tmp_path / "halves" / kind / name).read_bytes()
    steps = [line["step"] for line in read_metrics(tmp_path / "halves") if "loss" in line]
    assert steps == [2, 4, 6, 8, 10, 12]


def test_a_run_that_ended_before_its_first_checkpoint_starts_over(blob_folder, tmp_path):
    recipe, run = tiny(blob_folder, steps=5), tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe.to_yaml())
    (run / "metrics.jsonl").write_text('{"step": 2, "loss": 9.0}\n')
    assert resume_recipe(run) == recipe
    assert train(resume_recipe(run), run, resume=True).steps == 5
    assert load_checkpoint(run)["step"] == 5
    assert "no checkpoint yet: from the start" in (run / "log.txt").read_text()
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == [2, 4, 5]
    assert read_metrics(run)[0]["loss"] != 9.0


def test_resuming_drops_what_was_logged_past_the_checkpoint(blob_folder, tmp_path):
    run = tmp_path / "run"
    train(tiny(blob_folder, steps=5), run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 8, "loss": 1.0}) + "\n" + '{"step": 9, "lo')
    train(tiny(blob_folder, steps=5), run, resume=True)
    assert max(line["step"] for line in read_metrics(run)) == 5


def test_training_learns_and_the_model_folder_says_what_it_is(blob_folder, tmp_path):
    run = train(tiny(blob_folder, steps=60, license="CC0"), tmp_path / "run")
    losses = [line["loss"] for line in read_metrics(run.folder) if "loss" in line]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    assert run.verification is not None
    assert run.verification.accuracy > 0.9
    card = read_card(run.model)
    assert (card.backbone, card.embedding_dim, card.license.weights) == ("small", 16, "CC0")
    assert card.preprocess.size == (32, 32)
    assert "identities: 8" in card.training_data


def test_init_takes_network_and_preprocessing_from_the_model(blob_folder, tmp_path):
    first = train(tiny(blob_folder), tmp_path / "first")
    values = {
        "init": str(first.model),
        "data": {"source": str(blob_folder)},
        "optimizer": {"lr": 1e-12},
        "loop": {"batch_size": 8, "steps": 1, "device": "cpu"},
    }
    second = train(parse_recipe(values), tmp_path / "second")
    assert read_card(second.model).preprocess.size == (32, 32)
    from safetensors.torch import load_file

    before, after = (load_file(r.model / "weights.safetensors") for r in (first, second))
    torch.testing.assert_close(before["fc.weight"], after["fc.weight"], rtol=0, atol=1e-6)


def test_a_step_that_is_not_finite_is_skipped_and_reported(blob_folder, tmp_path, monkeypatch, caplog):
    real, calls = step_module.is_finite, []

    def once_bad(loss, norm):
        calls.append(1)
        return len(calls) != 3 and real(loss, norm)

    monkeypatch.setattr(step_module, "is_finite", once_bad)
    run = train(tiny(blob_folder, steps=5), tmp_path / "run")
    assert run.skipped_steps == 1
    assert any("step 2 skipped" in message for message in caplog.messages)


def test_a_run_that_never_has_a_finite_loss_ends_with_advice(blob_folder, tmp_path):
    recipe = tiny(blob_folder, steps=50, optimizer={"lr": 1e30, "clip_norm": 0.0}, loop={"max_skipped_steps": 4})
    with pytest.raises(RecipeError, match=r"lower optimizer.lr"):
        train(recipe, tmp_path / "run")


def test_a_full_disk_leaves_the_last_good_checkpoint(blob_folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(blob_folder), run, observer=StopAfter(3))
    good = load_checkpoint(run)

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module.os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left"):
        train(tiny(blob_folder), run, resume=True)
    assert_same_state(load_checkpoint(run), good)
    assert not list(run.rglob("*.part"))
    assert len(list((run / "last").glob("checkpoint-*"))) == 1


def test_a_run_folder_is_not_written_over(blob_folder, tmp_path):
    train(tiny(blob_folder, steps=1), tmp_path / "run")
    with pytest.raises(DataError, match="already holds a run"):
        train(tiny(blob_folder, steps=1), tmp_path / "run")


def test_a_run_that_failed_before_its_first_step_can_be_started_again(blob_folder, tmp_path, capfd):
    recipe = tiny(blob_folder, steps=1)
    recipe.data.source = str(tmp_path / "nowhere")
    with pytest.raises(DataError):
        train(recipe, tmp_path / "run")
    assert "ERROR" in (tmp_path / "run" / "log.txt").read_text()
    assert "nowhere" not in capfd.readouterr().err  # said once, by whoever called
    assert train(tiny(blob_folder, steps=1), tmp_path / "run").steps == 1


def test_no_permission_to_write_is_said_in_one_line(blob_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the run folder"):
        train(tiny(blob_folder, steps=1), tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR."])
def test_a_damaged_or_hostile_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelFormatError, match="damaged checkpoint"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_that_would_run_code_runs_none(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "last").mkdir()
    torch.save({"format": 1, "bomb": Bomb()}, tmp_path / "last" / "checkpoint.pt")
    with pytest.raises(ModelFormatError, match="damaged checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_one_identity_is_not_enough(blob_folder, tmp_path):
    (tmp_path / "one.txt").write_text("person_0\n")
    recipe = tiny(blob_folder, data={"identities": str(tmp_path / "one.txt")})
    with pytest.raises(DataError, match="at least 2 identities"):
        train(recipe, tmp_path / "run")


def test_an_empty_folder_says_what_was_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        train(tiny(tmp_path / "empty", evaluate={"source": "", "every": 0}), tmp_path / "run")


def test_a_missing_picture_of_a_pair_is_named_with_its_line(blob_folder, tmp_path):
    lines = (blob_folder / "pairs.txt").read_text().splitlines()
    lines[1] = "person_0\t1\t99"
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    recipe = tiny(blob_folder, evaluate={"pairs": str(tmp_path / "pairs.txt")})
    with pytest.raises(DataError, match=r"pairs.txt, line 2: .*person_0_0099"):
        train(recipe, tmp_path / "run")


def test_pictures_decoded_on_demand_train_as_those_kept(blob_folder, tmp_path):
    """In the cache (built, then found), in memory, and decoded as needed: the same weights, bit for bit."""
    kept = {"cache": str(tmp_path / "cache")}
    runs = [
        train(tiny(blob_folder, steps=4, data=data), tmp_path / f"run{k}")
        for k, data in enumerate((kept, kept, {"cache": "memory"}, {"cache_gb": 0.0}))
    ]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    weights = {(run.model / "weights.safetensors").read_bytes() for run in runs}
    assert len(weights) == 1


def test_training_works_outside_the_main_thread(blob_folder, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(train(tiny(blob_folder, steps=1), tmp_path / "run")))
    thread.start()
    thread.join()
    assert done[0].steps == 1
