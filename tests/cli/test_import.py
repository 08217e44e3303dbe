"""visavis import, as typed."""

import os
import pickle

import pytest
import torch

from visavis.cli import main
from visavis.cli.import_ import parse_preprocess
from visavis.errors import ModelFormatError


def test_import_from_the_command_line(checkpoint, tmp_path, capsys):
    out = tmp_path / "model"
    words = ["import", str(checkpoint), "--out", str(out), "--license", "MIT", "--as-told"]
    assert main([*words, "--preprocess", "template=sphereface-left", "--preprocess", "flip=sum"]) == 0
    said = capsys.readouterr().out
    assert "MobileFaceNet_Pytorch" in said
    assert "999,552 parameters" in said
    from visavis.models.torch import load_model

    _, card = load_model(out)
    assert (card.backbone, card.embedding_dim, card.license.weights) == ("mobilefacenet", 128, "MIT")
    spec = card.preprocess
    assert (spec.size, spec.template, spec.channels, spec.flip) == ((112, 96), "sphereface-left", "RGB", "sum")
    assert (spec.mean, spec.std) == ((127.5,) * 3, (128.0,) * 3)


class Bomb:
    def __reduce__(self):
        return (os.system, (f"touch {os.environ['BOMB']}",))


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_pickle_that_would_execute_code_is_refused_and_nothing_ran(form, tmp_path, monkeypatch, capsys):
    proof = tmp_path / "it-ran"
    monkeypatch.setenv("BOMB", str(proof))
    path = tmp_path / "evil.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    else:
        torch.save({"state_dict": Bomb()}, path, _use_new_zipfile_serialization=form == "zip")
    assert main(["import", str(path), "--out", str(tmp_path / "model")]) == 2
    said = capsys.readouterr().err
    assert "refused, because loading it would execute code" in said
    assert "it calls posix.system" in said
    assert not proof.exists()
    assert not (tmp_path / "model").exists()


def test_the_bomb_would_have_gone_off(tmp_path, monkeypatch):
    """Proves the test above: the same bytes do run under plain pickle."""
    proof = tmp_path / "it-ran"
    monkeypatch.setenv("BOMB", str(proof))
    pickle.loads(pickle.dumps(Bomb()))
    assert proof.exists()


def test_preprocess_is_parsed_and_refused():
    assert parse_preprocess("size=112x96,mean=1/2/3.5,std=128,flip=sum") == {
        "size": (112, 96),
        "mean": (1.0, 2.0, 3.5),
        "std": (128.0, 128.0, 128.0),
        "flip": "sum",
    }
    assert parse_preprocess("template=1/2/30/4/5/6/7/8/9/10")["template"] == ((1, 2), (30, 4), (5, 6), (7, 8), (9, 10))
    assert parse_preprocess("") == {}
    refused = {"sice=1": "did you mean 'size'", "size=112": "HEIGHTxWIDTH", "mean=x": "mean=N", "std": "needs a value"}
    refused["template=1/2/3"] = "five points"
    refused["flip=sum,flip=none"] = "given twice"
    for text, problem in refused.items():
        with pytest.raises(ModelFormatError, match=problem):
            parse_preprocess(text)


def test_wrong_backbone_from_the_command_line_is_one_line(tmp_path, capsys, mobilefacenet):
    path = tmp_path / "net.pth"
    torch.save(mobilefacenet, path)
    assert main(["import", str(path), "--backbone", "iresnet50", "--out", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "say --backbone mobilefacenet" in said
