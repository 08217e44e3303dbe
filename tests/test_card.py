import errno
import json

import pytest

from visavis import card as card_module
from visavis.card import ModelCard, find_model, read_card, write_atomically, write_card
from visavis.errors import DataError, ModelFormatError
from visavis.vision.preprocessing import PreprocessSpec

CARD = ModelCard("m", "small", 64, PreprocessSpec((56, 56), flip="sum"), backbone_args={"width": 16}, license="MIT")


def test_a_card_comes_back_as_it_was_written(tmp_path):
    write_card(tmp_path, CARD)
    assert read_card(tmp_path) == CARD


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 99}, "format"),
        ({"embedding_dim": "64"}, "embedding_dim"),
        ({"embedding_dim": True}, "embedding_dim"),
        ({"embedding_dim": -1}, "embedding_dim"),
        ({"surprise": 1}, "surprise"),
        ({"backbone_args": []}, "backbone_args"),
        ({"license": 3}, "license"),
        ({"preprocess": {}}, "preprocess"),
        ({"preprocess": None}, "preprocess"),
    ],
)
def test_a_card_with_a_wrong_value_is_refused_by_name(change, word):
    values = json.loads(CARD.to_json())
    with pytest.raises(ModelFormatError, match=word):
        ModelCard.from_json(json.dumps({**values, **change}))


@pytest.mark.parametrize("text", ["", "[]", "nul", "{", '{"format": 1}', "[" * 100_000])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(ModelFormatError):
        ModelCard.from_json(text)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(card_module.os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_model_is_found_as_folder_run_or_file(tmp_path):
    for place in ("model", "run/best"):
        (tmp_path / place).mkdir(parents=True)
        write_card(tmp_path / place, CARD)
    (tmp_path / "m.onnx").write_bytes(b"")
    assert find_model(tmp_path / "model") == tmp_path / "model"
    assert find_model(tmp_path / "run") == tmp_path / "run" / "best"
    assert find_model(tmp_path / "m.onnx") == tmp_path / "m.onnx"


def test_no_model_says_what_was_expected_and_what_to_type(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ModelFormatError, match="visavis import"):
            find_model(path)
