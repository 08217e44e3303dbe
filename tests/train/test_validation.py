"""best/ is the better of two: what verified best, the earlier where two are equal, also after a resume."""

from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from visavis.models.card import read_card
from visavis.train import validation
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_folder import resume_recipe


def recipe(folder, steps):
    return parse_recipe(
        {
            "data": {"source": str(folder), "workers": 0},
            "preprocess": {"size": [32, 32]},
            "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
            "optimizer": {"lr": 0.05},
            "loop": {"batch_size": 8, "steps": steps, "checkpoint_every": 2, "device": "cpu"},
            "evaluate": {"source": str(folder), "every": 2},
        }
    )


@pytest.fixture
def verdicts(monkeypatch):
    """Let the held-out pairs give these accuracies, one after the other."""

    def give(*accuracies):
        waiting = list(accuracies)
        monkeypatch.setattr(
            validation.ValidationSet,
            "__call__",
            lambda self, embedder: SimpleNamespace(accuracy=waiting.pop(0), auc=0.5, eer=0.5, genuine=[]),
        )

    return give


@pytest.mark.parametrize(
    ("accuracies", "best"), [((0.6, 0.9, 0.7), 4), ((0.9, 0.6, 0.7), 2), ((0.6, 0.7, 0.9), 6), ((0.9, 0.9, 0.9), 2)]
)
def test_best_is_the_better_and_of_equals_the_first(blob_folder, tmp_path, verdicts, accuracies, best):
    verdicts(*accuracies)
    run = train(recipe(blob_folder, 6), tmp_path / "run")
    assert read_card(run.model).notes["step"] == best
    assert read_card(run.folder / "last").notes["step"] == 6
    weights, last = (load_file(folder / "weights.safetensors") for folder in (run.model, run.folder / "last"))
    assert all(value.equal(last[name]) for name, value in weights.items()) == (best == 6)


@pytest.mark.parametrize(("later", "best"), [(0.8, 2), (0.95, 6)])
def test_a_resumed_run_remembers_what_was_best(blob_folder, tmp_path, verdicts, later, best):
    verdicts(0.9, 0.7)
    train(recipe(blob_folder, 4), tmp_path / "run")
    verdicts(later)
    run = train(resume_recipe(tmp_path / "run", ["--loop.steps=6"]), tmp_path / "run", resume=True)
    assert read_card(run.model).notes["step"] == best
