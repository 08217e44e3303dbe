"""A model trained on drawings alone says so: in its card, with every verification, and on its report."""

import dataclasses
import json
from html import escape

import numpy as np
import pytest
import yaml

from visavis.cli import main
from visavis.deploy.recognizer import Recognizer
from visavis.evaluate.protocols.folder import all_pairs
from visavis.evaluate.runner import evaluate
from visavis.models.card import ModelCard, read_card
from visavis.models.caution import caution, is_of_drawings
from visavis.train.build import of_data
from visavis.train.recipe import parse_recipe
from visavis.vision.preprocessing import PreprocessSpec

CARD = ModelCard("m", "small", 3, PreprocessSpec(size=(16, 16)))
GENERATED = {"data": {"synthetic": {"identities": 8}}, "loop": {"steps": 1}}
OWN = {"data": {"source": "faces"}, "loop": {"steps": 1}}
BOTH = {"data": {"source": "faces", "synthetic": {"identities": 8}}, "loop": {"steps": 1}}


def card_of(values, start=CARD, init=""):
    return of_data(start, dataclasses.replace(parse_recipe(values), init=init), {"pictures": 80})


@pytest.mark.parametrize(("values", "drawings"), [(GENERATED, True), (OWN, False), (BOTH, False)])
def test_a_card_says_what_the_run_was_trained_on(values, drawings):
    card = card_of(values)
    assert is_of_drawings(card) is drawings
    assert card.training_data == ("drawings, no photographs: " if drawings else "") + "pictures: 80"
    assert bool(caution(card)) is drawings
    assert ModelCard.from_json(card.to_json()) == card


def test_what_a_run_starts_from_counts():
    drawn = card_of(GENERATED)
    assert is_of_drawings(card_of(GENERATED, drawn, init="drawn"))
    assert not is_of_drawings(card_of(OWN, drawn, init="drawn"))
    assert not is_of_drawings(card_of(GENERATED, CARD, init="of photographs"))
    assert card_of(OWN, drawn, init="drawn").notes == {}
    kept = CARD.with_changes(notes={"imported_from": "a.pth"})
    assert card_of(OWN, kept, init="a").notes == {"imported_from": "a.pth"}


def test_a_run_on_generated_people_writes_it_into_its_card_and_report(tmp_path):
    values = GENERATED | {"preprocess": {"size": [16, 16]}, "backbone": {"args": {"width": 8}}}
    values |= {"evaluate": {"synthetic_identities": 4, "synthetic_pairs": 8, "synthetic_folds": 2}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    words = ["--data.synthetic.images_per_identity", "2", "--loop.batch_size", "4", "--data.workers", "0"]
    assert main(["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run"), *words]) == 0
    card = read_card(tmp_path / "run" / "best")
    assert is_of_drawings(card)
    assert card.training_data.startswith("drawings, no photographs: ")
    assert caution(card) in json.loads((tmp_path / "run" / "report.json").read_text())["warnings"]


class Embedder:
    dim = 3

    def embed(self, crops):
        return np.full((len(crops), 3), 3**-0.5, np.float32)


@pytest.mark.parametrize("values", [GENERATED, OWN])
def test_verify_says_it_with_the_answer(values):
    card = card_of(values)
    crop = np.zeros((16, 16, 3), np.uint8)
    result = Recognizer(Embedder(), spec=card.preprocess, card=card).verify(crop, crop, aligned=True, threshold=0.5)
    assert result.notes == ((caution(card),) if values is GENERATED else ())
    assert result.match


def test_a_report_says_it_before_its_figures():
    said = caution(card_of(GENERATED))
    faces = {f"p{i // 2}/{i}.png": np.full((16, 16, 3), i, np.uint8) for i in range(4)}
    report = evaluate(Embedder(), all_pairs(list(faces), np.array([0, 0, 1, 1])), faces, caution=said)
    assert said in str(report)
    assert escape(said).replace("&#x27;", "&#39;") in report.to_html().split("<table")[0]
    assert json.loads(report.to_json())["warnings"] == [said]


def test_without_a_card_nothing_is_said():
    assert caution(None) == ""
