"""A good state is never replaced by one that is not finite: checkpoint, best, average, batch norms, figures."""

import json

import pytest
import torch
from safetensors.torch import load_file

from visavis.errors import RecipeError
from visavis.train import step as step_module
from visavis.train.checkpoint import load_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_logger import Observer, read_metrics


def recipe(folder, **loop):
    loop = {"batch_size": 8, "steps": 20, "log_every": 1, "checkpoint_every": 4, "ema": 0.9, "device": "cpu", **loop}
    return parse_recipe(
        {
            "data": {"source": str(folder), "workers": 0},
            "preprocess": {"size": [32, 32]},
            "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
            "head": {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}},
            "optimizer": {"lr": 0.05},
            "loop": loop,
            "evaluate": {"source": str(folder), "every": 4},
        }
    )


@pytest.fixture
def spoil(monkeypatch):
    """Spoil batches by their number, counted from 1: loss and statistics become NaN, the weights stay."""

    def begin(numbers):
        seen = []
        own = step_module._accumulate

        def spoiled(training, state, batches):
            seen.append(1)
            if len(seen) in numbers:
                training.normalize.mean.fill_(float("nan"))
            try:
                return own(training, state, batches)
            finally:
                training.normalize.mean.fill_(127.5)

        monkeypatch.setattr(step_module, "_accumulate", spoiled)

    return begin


class Spy(Observer):
    """What is on disk after each step."""

    def __init__(self, run):
        self.run, self.saved = run, {}

    def stepped(self, step):
        path = self.run / "last" / "checkpoint.json"
        self.saved[step] = json.loads(path.read_text())["values"]["step"] if path.is_file() else None


def all_finite(folder):
    return all(value.isfinite().all() for value in load_file(folder / "weights.safetensors").values())


def test_in_a_streak_nothing_is_saved_or_judged_and_the_next_finite_step_is_saved(blob_folder, tmp_path, spoil, caplog):
    spoil({7, 8, 9})
    spy = Spy(tmp_path / "run")
    run = train(recipe(blob_folder), tmp_path / "run", observer=spy)
    assert run.skipped_steps == 3
    assert [spy.saved[step] for step in (5, 9, 10, 11)] == [4, 4, 4, 10]  # due at 8, good again at 10
    assert [line["step"] for line in read_metrics(run.folder) if "eval" in line] == [4, 12, 16, 20]
    assert "no checkpoint at step 8: the last 2 steps had no finite loss; the last good state, of step 4" in caplog.text
    for kind in ("best", "last"):
        assert all_finite(run.folder / kind)


def test_a_batch_that_is_not_finite_leaves_no_trace_in_batch_norms_and_the_average(blob_folder, tmp_path, spoil):
    spoil({3})
    train(recipe(blob_folder, steps=4), tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    for values in (state["network"], state["ema"]["values"], state["objective"]):
        assert all(value.isfinite().all() for value in values.values())


def test_a_run_that_ends_in_a_streak_fails_and_names_the_step_of_the_good_state(blob_folder, tmp_path, spoil):
    spoil(range(6, 99))
    with pytest.raises(RecipeError, match=r"9 steps in a row .* at step 14; .*The last good state, of step 4, is in"):
        train(recipe(blob_folder, max_skipped_steps=9), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")["step"] == 4
    spoil(range(1, 99))
    with pytest.raises(RecipeError, match=r"ended without a finite state at step 12; .*No good state was saved yet"):
        train(recipe(blob_folder, steps=12), tmp_path / "other")
    assert not (tmp_path / "other" / "best").exists()


def test_weights_spoilt_by_a_finite_step_are_not_saved(blob_folder, tmp_path, monkeypatch, caplog):
    """The loss of step 6 is finite, its step is too long: what follows is NaN, and step 4 stays."""
    own = torch.optim.SGD.step

    def too_long(self, closure=None):
        own(self, closure)
        too_long.steps += 1
        if too_long.steps == 8:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))

    too_long.steps = 0
    monkeypatch.setattr(torch.optim.SGD, "step", too_long)
    with pytest.raises(RecipeError, match="of step 4"):
        train(recipe(blob_folder, max_skipped_steps=5), tmp_path / "run")
    assert "no checkpoint at step 8: network.features" in caplog.text
    assert "is not finite; the last good state, of step 4" in caplog.text
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 4
    assert all_finite(tmp_path / "run" / "best")
