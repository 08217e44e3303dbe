"""A resumed run is the same run: identities, batch and recipe are those of the checkpoint, or it is refused by name."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import yaml

from visavis.cli import main
from visavis.errors import DataError, RecipeError
from visavis.train.checkpoint import load_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_folder import MAY_CHANGE, resume_recipe
from visavis.train.run_logger import read_metrics


def recipe(folder, **loop):
    loop = {"batch_size": 8, "steps": 6, "log_every": 1, "checkpoint_every": 3, "device": "cpu", **loop}
    return parse_recipe(
        {
            "data": {"source": str(folder), "workers": 0},
            "preprocess": {"size": [32, 32]},
            "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
            "head": {"name": "asoftmax"},
            "optimizer": {"lr": 0.05},
            "loop": loop,
        }
    )


@pytest.fixture
def faces(blob_folder, tmp_path):
    shutil.copytree(blob_folder / "images", tmp_path / "faces")
    return tmp_path / "faces"


@pytest.fixture
def run(faces, tmp_path):
    return train(recipe(faces), tmp_path / "run").folder


def flat(values, prefix=""):
    for key, value in values.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]


def resume(run, *overrides):
    return train(resume_recipe(run, overrides), run, resume=True)


def rename(faces):
    (faces / "person_0").rename(faces / "zz_last")


def remove(faces):
    shutil.rmtree(faces / "person_3")


def add_images(faces):
    shutil.copy(faces / "person_2" / "person_2_0001.jpg", faces / "person_2" / "another.jpg")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename, "person_0 is gone, zz_last is new"),
        (remove, "person_3 is gone"),
        (add_images, "person_2 has 7 images instead of 6"),
    ],
)
def test_other_identities_are_refused_by_name_and_the_checkpoint_stays(faces, run, change, said):
    before = load_checkpoint(run)["step"], sorted(os.listdir(run / "last"))
    recipe = (run / "recipe.yaml").read_bytes()
    change(faces)
    with pytest.raises(DataError, match=said) as caught:
        resume(run, "--loop.steps=9")
    assert (run / "recipe.yaml").read_bytes() == recipe  # or the next resume would take it for edited
    assert f"visavis train {run}/recipe.yaml --init {run} --init-head" in str(caught.value)
    assert (load_checkpoint(run)["step"], sorted(os.listdir(run / "last"))) == before


def test_moved_images_go_on(faces, run, tmp_path):
    faces.rename(tmp_path / "elsewhere")
    assert resume(run, f"--data.source={tmp_path / 'elsewhere'}", "--loop.steps=9").steps == 9


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--loop.batch_size=16", "a resumed run keeps its loop.batch_size (8)"),
        ("--backbone.dim=8", "a resumed run keeps its backbone.dim (16)"),
        ("--head.name=arcface", "a resumed run keeps its head.name (asoftmax)"),
        ("--seed=3", "a resumed run keeps its seed (0)"),
        ("--loop.steps=5", "at step 6 already, the recipe ends at 5; give --loop.steps N"),
        ("--loop.epochs=9", "loop.steps 6 decides how long the run is; add --loop.steps 0"),
    ],
)
def test_what_would_be_another_run_is_refused(run, override, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        resume(run, override)
    assert load_checkpoint(run)["step"] == 6


def test_what_a_killed_process_left_half_written_goes(run):
    for folder in ("last", "best"):
        (run / folder / "weights.safetensors.0123456789ab.part").write_bytes(b"half")
    resume(run, "--loop.steps=7")
    assert not list(run.rglob("*.part"))


def test_what_may_change_are_keys_of_a_recipe():
    keys = [key for key, _ in flat(asdict(parse_recipe({"data": {"source": "x"}, "loop": {"steps": 1}})))]
    assert not [name for name in MAY_CHANGE if not any(key == name or key.startswith(name + ".") for key in keys)]


def test_an_edited_recipe_is_not_ignored(run):
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("lr: 0.05", "lr: 0.2"))
    said = r"optimizer\.lr is 0\.2, the run has 0\.05; .*--resume .* --optimizer\.lr 0\.2"
    with pytest.raises(RecipeError, match=said):
        resume_recipe(run)


def test_options_without_effect_are_refused(run, tmp_path, capsys):
    assert main(["train", "--resume", str(run), "--out", str(tmp_path / "other")]) == 2
    assert "--out has no effect on a resumed run" in capsys.readouterr().err


def test_a_finished_run_is_made_longer_with_centers_momentum_and_lambda(faces, tmp_path):
    """Six steps and three more are nine at a constant rate: nothing is lost on the way."""
    constant = recipe(faces, steps=6)
    constant.schedule.name = "constant"
    train(constant, tmp_path / "short")
    resume(tmp_path / "short", "--loop.steps=9")
    constant.loop.steps = 9
    train(constant, tmp_path / "long")
    a, b = (load_checkpoint(tmp_path / name) for name in ("short", "long"))
    for part in ("network", "objective"):
        assert all(value.equal(b[part][name]) for name, value in a[part].items())
    assert a["objective"]["head.steps"] == 9
    assert yaml.safe_load((tmp_path / "short" / "recipe.yaml").read_text())["loop"]["steps"] == 9
    assert [line["step"] for line in read_metrics(tmp_path / "short")] == list(range(1, 10))


def test_the_command_makes_a_run_longer(run):
    assert main(["train", "--resume", str(run), "--loop.steps", "8", "--optimizer.lr", "0.01"]) == 0
    assert load_checkpoint(run)["learning_rate"] == 0.01
    assert read_metrics(run)[-1]["step"] == 8


def test_two_trainings_in_one_folder_are_locked_out_by_name(faces, tmp_path):
    run = tmp_path / "run"
    (tmp_path / "r.yaml").write_text(recipe(faces, steps=100_000).to_yaml())
    words = [sys.executable, "-m", "visavis", "train", str(tmp_path / "r.yaml"), "--out", str(run)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not read_metrics(run, missing_ok=True) and time.monotonic() < until:
        time.sleep(0.1)
    try:
        for again in (lambda: train(recipe(faces), run), lambda: train(recipe(faces), run, resume=True)):
            with pytest.raises(DataError, match=f"is being trained by process {process.pid} on "):
                again()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(run)
    assert train(recipe(faces), run).steps == 6  # the lock died with the process
