import json

import pytest

from visavis.errors import ModelFormatError
from visavis.models.card import LicenseTerms, ModelCard, read_card, write_card
from visavis.models.find import find_model
from visavis.vision.preprocessing import PreprocessSpec

CARD = ModelCard(
    "m",
    "small",
    64,
    PreprocessSpec((56, 56), flip="sum"),
    backbone_args={"width": 16},
    license=LicenseTerms(weights="MIT"),
)


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


@pytest.mark.parametrize(
    "change",
    [
        {"similarity": "dot"},
        {"similarity": ["cosine"]},
        {"license": "MIT"},
        {"license": {"weights": "MIT"}},
        {"preprocess": {**CARD.preprocess.to_dict(), "antialias": "lanczos"}},
        {"preprocess": {k: v for k, v in CARD.preprocess.to_dict().items() if k != "antialias"}},
    ],
)
def test_the_fields_of_format_2_are_checked(change):
    with pytest.raises(ModelFormatError):
        ModelCard.from_json(json.dumps({**json.loads(CARD.to_json()), **change}))


def test_five_points_and_the_five_terms_come_back(tmp_path):
    points = ((47.55, 46.6), (100.48, 46.6), (74.01, 76.56), (50.41, 103.02), (97.61, 103.02))
    terms = LicenseTerms("MIT", "CC0-1.0", "NOASSERTION", "CC0-1.0", "none asked")
    card = CARD.with_changes(preprocess=PreprocessSpec((150, 150), points, antialias="none"), license=terms)
    write_card(tmp_path, card.with_changes(similarity="negative_squared_distance"))
    read = read_card(tmp_path)
    assert (read.preprocess.template, read.license, read.similarity) == (points, terms, "negative_squared_distance")


def test_what_nobody_stated_is_said_in_the_standards_word():
    assert LicenseTerms(weights="not stated") == LicenseTerms() == LicenseTerms(consent="")
    assert LicenseTerms().weights == "NOASSERTION"


@pytest.mark.parametrize("text", ["", "[]", "nul", "{", '{"format": 1}', "[" * 100_000])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(ModelFormatError):
        ModelCard.from_json(text)


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
