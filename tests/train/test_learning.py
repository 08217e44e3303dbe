"""A run that cannot learn is refused, one that does not says so, and one damaged picture loses nothing."""

import logging
import shutil

import pytest

from visavis.data.samplers import Shuffled
from visavis.data.sources import open_source
from visavis.errors import DataError, RecipeError
from visavis.models.card import read_card
from visavis.train import learning
from visavis.train.checkpoint import open_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe


def recipe(folder, **sections):
    values = {
        "data": {"source": str(folder), "workers": 0, "cache": "memory"},
        "preprocess": {"size": [16, 16]},
        "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
        "head": {"name": "normface"},
        "loop": {"batch_size": 8, "steps": 3, "log_every": 1, "checkpoint_every": 100, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return parse_recipe(values)


@pytest.fixture
def faces(blob_folder, tmp_path):
    shutil.copytree(blob_folder, tmp_path / "faces")
    return tmp_path / "faces"


def damage(folder, name):
    path = folder / "images" / name.rsplit("_", 1)[0] / name
    path.write_bytes(path.read_bytes()[:200])


def test_triplets_of_people_with_one_picture_are_refused_before_the_first_step(faces, tmp_path):
    for path in (faces / "images").rglob("*.jpg"):
        if not path.name.endswith("_0001.jpg"):
            path.unlink()
    wanted = recipe(faces, triplet={"weight": 1.0}, head={"name": "none"})
    with pytest.raises(RecipeError, match=r"none of the 8 identities has two images.*--data\.min_images 2"):
        train(wanted, tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


class Watched:
    def __init__(self, monkeypatch, tmp_path, folder, **sections):
        monkeypatch.setattr(learning, "WITHOUT_TRIPLETS", 3)
        monkeypatch.setattr(learning, "LONG_STEPS", 20)
        train(recipe(folder, **sections), tmp_path / "run")


def test_a_learning_rate_of_zero_is_said(blob_folder, tmp_path, caplog, monkeypatch):
    schedule = {"name": "constant", "warmup_steps": 100, "warmup": "constant", "warmup_start": 0.0}
    Watched(monkeypatch, tmp_path, blob_folder, schedule=schedule, loop={"steps": 4})
    assert caplog.text.count("the learning rate is 0 at step 2 of 4") == 1


def test_steps_without_triplets_are_said(blob_folder, tmp_path, caplog, monkeypatch):
    # One image of each of eight people: no batch holds a genuine pair.
    sections = {
        "triplet": {"weight": 1.0, "miner": "batch_all"},
        "data": {"sampler": "pxk", "images_per_class": 1},
        "loop": {"steps": 5},
    }
    Watched(monkeypatch, tmp_path, blob_folder, **sections)
    assert caplog.text.count("no triplets in 3 steps in a row") == 1


def test_a_loss_that_stays_at_ln_c_is_said(blob_folder, tmp_path, caplog, monkeypatch):
    sections = {"head": {"name": "softmax"}, "optimizer": {"lr": 1e-12}, "loop": {"steps": 40}}
    monkeypatch.setattr(learning, "AT_LN_C", 0.5)
    Watched(monkeypatch, tmp_path, blob_folder, **sections)
    assert caplog.text.count("the loss has stayed at ln C = 2.079") == 1


def test_a_run_that_learns_says_nothing(blob_folder, tmp_path, caplog, monkeypatch):
    Watched(monkeypatch, tmp_path, blob_folder, optimizer={"lr": 0.1}, loop={"steps": 60})
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_damaged_picture_ends_a_run_after_its_state_is_saved(faces, tmp_path):
    wanted = recipe(faces, data={"cache_gb": 0.0}, loop={"steps": 30})
    source = open_source(faces)
    third = Shuffled(source.labels, batch_size=8, seed=wanted.seed).batch(2)
    damage(faces, source.names[int(third[0])].rsplit("/")[-1])
    with pytest.raises(DataError) as caught:
        train(wanted, tmp_path / "run")
    said = str(caught.value)
    assert source.names[int(third[0])] in said
    assert "visavis validate SRC" in said
    assert "--data.skip_damaged N" in said
    kept = open_checkpoint(tmp_path / "run")
    assert kept["step"] == 2
    assert f"of step {kept['step']}" in said


def test_a_damaged_picture_found_before_the_first_step_is_told_with_what_to_type(faces, tmp_path):
    damage(faces, "person_3_0002.jpg")
    with pytest.raises(DataError, match=r"person_3_0002.* visavis validate SRC; .* --data\.skip_damaged N"):
        train(recipe(faces, data={"cache_gb": 1.0}), tmp_path / "run")
    pairs = {"evaluate": {"source": str(faces)}, "data": {"cache_gb": 0.0, "skip_damaged": 1}}
    with pytest.raises(DataError, match=r"person_3_0002.* the held-out pairs need it"):
        train(recipe(faces, **pairs), tmp_path / "other")


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_damaged_pictures_are_replaced_counted_and_written_into_the_card(faces, tmp_path, caplog, cache_gb):
    damage(faces, "person_3_0002.jpg")
    damage(faces, "person_5_0006.jpg")
    wanted = recipe(faces, data={"cache_gb": cache_gb, "skip_damaged": 2}, loop={"steps": 20})
    run = train(wanted, tmp_path / "run")
    assert read_card(run.folder / "last").notes["damaged_pictures_replaced"] == 2
    assert "damaged picture replaced (2 of at most 2)" in caplog.text
    again = train(wanted, tmp_path / "again")
    weights = [open_checkpoint(r.folder) for r in (run, again)]
    assert weights[0]["step"] == weights[1]["step"] == 20
    with pytest.raises(DataError, match=r"more than data\.skip_damaged 1 pictures are damaged"):
        train(recipe(faces, data={"cache_gb": cache_gb, "skip_damaged": 1}, loop={"steps": 20}), tmp_path / "one")
