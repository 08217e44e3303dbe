"""A model folder and a run of the commit 6250fda open today and answer as they did (made by make_6250fda.py)."""

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from paths import TESTS

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.recognizer import Recognizer
from visavis.errors import ModelFormatError
from visavis.models.card import CARD_FORMAT, LicenseTerms, ModelCard, read_card, write_card
from visavis.models.load import load_embedder
from visavis.train.loop import train
from visavis.train.run_folder import resume_recipe
from visavis.types import Faces
from visavis.vision.alignment import align, template_points

ARCHIVE = TESTS / "releases" / "6250fda.tar.xz"


@pytest.fixture
def release(tmp_path):
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "6250fda"


@pytest.fixture
def answers(release):
    return json.loads((release / "answers.json").read_text())


def test_its_card_reads_with_the_rules_of_its_time(release):
    card = read_card(release / "model")
    assert card.license == LicenseTerms(weights="MIT")
    assert (card.preprocess.antialias, card.preprocess.normalization, card.similarity) == ("area", "channel", "cosine")
    assert card.thresholds["1e-2"]["threshold"] == 0.75


def test_it_embeds_crops_as_it_did(release, answers):
    crops = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)
    for place in ("model", "run"):
        got = load_embedder(release / place).embed(crops)
        np.testing.assert_allclose(got, answers["crops"], atol=1e-6)


class _Knows:
    """A detector that finds one face of known landmarks, filling the picture."""

    def detect(self, image):
        points = template_points("arcface", image.shape[:2]).astype(np.float32)
        return Faces(np.array([[0, 0, 699, 699]], np.float32), np.ones(1, np.float32), points[None])


def images():
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (140, 140, 3), np.uint8), np.ones((5, 5, 1), np.uint8)) for _ in range(2)]


def test_it_verifies_large_faces_as_it_did(release, answers):
    old = Recognizer.load(release / "model", detector=_Knows())
    found = old.verify(*images())
    np.testing.assert_allclose([found.reference.embedding, found.probe.embedding], answers["faces"], atol=1e-6)
    assert found.similarity == pytest.approx(answers["similarity"], abs=1e-6)
    assert (found.threshold, found.match) == (0.75, True)
    plain = align(images()[0], template_points("arcface", (700, 700)), size=(32, 32), antialias="none")
    assert abs(old.embedder.embed(plain[None])[0] @ found.reference.embedding) < 0.9999  # the rule does show


def test_galleries_made_with_it_stay_bound(release, answers):
    card = read_card(release / "model")
    assert ModelIdentity.of_card(card).digest == answers["identity"]
    text = (release / "sphereface_left_card.json").read_text()
    assert ModelIdentity.of_card(ModelCard.from_json(text)).digest == answers["sphereface_left_identity"]
    other = card.with_changes(preprocess=replace(card.preprocess, antialias="none"))
    assert ModelIdentity.of_card(other).digest != answers["identity"]


def test_a_card_written_back_says_the_new_format_and_the_same_things(release):
    card = read_card(release / "model")
    write_card(release / "model", card)
    values = json.loads((release / "model" / "card.json").read_text())
    assert values["format"] == CARD_FORMAT == 2
    assert read_card(release / "model") == card


def test_its_run_goes_on(release):
    recipe = resume_recipe(release / "run")
    assert recipe.preprocess.antialias == "area"
    recipe.loop.steps = 8
    run = train(recipe, release / "run", resume=True)
    assert run.steps == 8
    assert read_card(release / "run" / "last").preprocess == read_card(release / "model").preprocess


@pytest.mark.parametrize("number", [0, 3, True, "2", None])
def test_a_format_no_one_knows_is_refused(release, number):
    values = json.loads((release / "model" / "card.json").read_text())
    with pytest.raises(ModelFormatError, match="format"):
        ModelCard.from_json(json.dumps(values | {"format": number}))
