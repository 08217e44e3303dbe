"""--init RUN --init-head: a new run with an old run's class centers, by name."""

import shutil

import pytest
import torch

from visavis.cli import main
from visavis.errors import RecipeError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.train.checkpoint import load_checkpoint
from visavis.train.finetune.init_head import init_head
from visavis.train.identities import read_identities
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe


@pytest.fixture(scope="module")
def first(blob_folder, tmp_path_factory):
    values = {
        "data": {"source": str(blob_folder), "workers": 0},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
        "head": {"name": "softmax", "center_loss": 0.1},
        "optimizer": {"lr": 0.05},
        "loop": {"batch_size": 8, "steps": 4, "device": "cpu"},
    }
    return train(parse_recipe(values), tmp_path_factory.mktemp("first") / "run").folder


def new_head(classes, dim=8, **options):
    return MarginSoftmax(build_head("softmax"), num_classes=classes, dim=dim, center_loss=0.1, seed=1, **options)


@pytest.mark.parametrize("model", ["", "best", "last"])
def test_centers_go_where_names_match_and_others_start_anew(first, model):
    names = ["new_0", "person_5", "person_0", "zz_new"]
    head, fresh = new_head(4), new_head(4)
    init_head(head, str(first / model), names)
    old = load_checkpoint(first)["objective"]
    for place, name in enumerate(names):
        was = read_identities(first).names.index(name) if name.startswith("person") else None
        for key in ("weight", "bias", "centers.means"):
            expected = fresh.state_dict()[key][place] if was is None else old[f"head.{key}"][was]
            assert torch.equal(head.state_dict()[key][place], expected), (name, key)


@pytest.mark.parametrize("size", [2, 3])
def test_every_rank_takes_its_own(first, size, monkeypatch):
    names = [f"person_{i}" for i in (7, 3, 99, 1, 0)]
    whole = new_head(5)
    init_head(whole, str(first), names)
    for rank in range(size):
        part = new_head(5)
        part.start, part.stop = 5 * rank // size, 5 * (rank + 1) // size
        part.weight = torch.nn.Parameter(part.weight.detach()[part.start : part.stop].clone())
        part.bias = torch.nn.Parameter(part.bias.detach()[part.start : part.stop].clone())
        part.centers.means = part.centers.means[part.start : part.stop].clone()
        init_head(part, str(first), names)
        assert torch.equal(part.weight, whole.weight[part.start : part.stop])
        assert torch.equal(part.bias, whole.bias[part.start : part.stop])


def test_what_cannot_be_taken_is_refused(first, tmp_path):
    with pytest.raises(RecipeError, match=r"none of the 8 identities .* the first there is 'person_0', here 'a'"):
        init_head(new_head(2), str(first), ["a", "b"])
    with pytest.raises(RecipeError, match=r"\(8, 8\), \(8, 4\) is needed"):
        init_head(new_head(1, dim=4), str(first), ["person_0"])
    with pytest.raises(RecipeError, match=r"\(8, 8\), \(16, 8\) is needed"):
        init_head(new_head(1, sub_centers=2), str(first), ["person_0"])
    with pytest.raises(RecipeError, match="wants a run with a checkpoint"):
        init_head(new_head(1), str(tmp_path), ["person_0"])
    with pytest.raises(RecipeError, match=r"head\.name none"):
        init_head(None, str(first), ["person_0"])


def test_the_command_starts_anew_with_the_centers(first, blob_folder, tmp_path, capsys):
    """What a resumed run with other identities is told to type, typed."""
    shutil.copytree(blob_folder / "images", tmp_path / "faces")
    (tmp_path / "faces" / "person_0").rename(tmp_path / "faces" / "zz_last")
    assert main(["train", "--resume", str(first), "--data", str(tmp_path / "faces"), "--loop.steps", "6"]) == 2
    said = capsys.readouterr().err
    words = said.split("type: visavis ")[-1] if "type: visavis " in said else said.split("weights: visavis ")[-1]
    words = words.strip().replace(" NEW", f" {tmp_path / 'new'}").split()
    assert main([*words, "--data", str(tmp_path / "faces"), "--optimizer.lr", "1e-9"]) == 0
    old, new = (load_checkpoint(run)["objective"]["head.weight"] for run in (first, tmp_path / "new"))
    assert read_identities(tmp_path / "new").names[-1] == "zz_last"
    torch.testing.assert_close(new[:7], old[1:], rtol=0, atol=1e-5)
    assert not torch.allclose(new[7], old[0], atol=1e-2)
    with pytest.raises(RecipeError, match="takes class centers from a run: --init RUN"):
        parse_recipe({"data": {"source": "x"}, "loop": {"steps": 1}, "finetune": {"init_head": True}})
