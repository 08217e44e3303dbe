"""visavis calibrate: thresholds from a folder per person into the card, and verify decides by them."""

import json
import shutil

import numpy as np
import pytest

from visavis.cli import main
from visavis.models.card import read_card, write_card
from visavis.synthetic.scenes import scene
from visavis.vision import images


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """20 people of 3 crops each, a color a person."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in range(20):
        color = rng.uniform(40, 215, 3)
        for k in range(3):
            path = root / f"p{person:02d}" / f"{k}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = np.clip(color + rng.normal(0, 12, (16, 16, 3)) + rng.normal(0, 6, 3), 0, 255)
            images.write(path, pixels.astype(np.uint8))
    return root


@pytest.fixture
def model(tmp_path, write_color_model):
    return write_color_model(tmp_path / "model")


def test_all_pairs_give_the_supported_rates_and_verify_decides_by_them(people, model, tmp_path, capsys):
    out = tmp_path / "report.json"
    assert main(["calibrate", str(model), str(people), "--aligned", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "60 genuine and 1,710 impostor comparisons" in said
    assert "not supported: FMR 1e-3 wants 10,000 impostor comparisons" in said
    assert "most alike of two people" in said
    thresholds = read_card(model).thresholds
    assert set(thresholds) == {"1e-1", "1e-2"}
    rows = _embeddings(people)
    impostor = np.sort((rows @ rows.T)[np.triu_indices(60, 1)][_different(60, 3)])
    accepted = int((impostor >= thresholds["1e-2"]["threshold"]).sum())
    assert accepted == 17  # of 1,710
    entry = thresholds["1e-2"]
    assert (entry["impostor"], entry["people"], entry["pictures"]) == (1710, 20, 60)
    assert entry["digest"] == read_card(model).weights_digest
    assert entry["interval"][0] < entry["threshold"] < entry["interval"][1]
    assert json.loads(out.read_text())["protocol"] == "folder"
    pair = [str(people / "p00" / f"{k}.png") for k in (0, 1)]
    assert main(["verify", str(model), *pair, "--aligned", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["threshold"] == entry["threshold"]
    assert answer["match"] is not None


def _embeddings(people):
    crops = [images.read(path) for path in sorted(people.glob("*/*.png"))]
    rows = np.array([crop.mean((0, 1)) - 127.5 for crop in crops])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _different(count, each):
    first, second = np.triu_indices(count, 1)
    return first // each != second // each


def test_a_rate_on_few_false_matches_is_kept_when_asked_for_and_said(people, model, capsys):
    assert main(["calibrate", str(model), str(people), "--aligned", "--fmr", "1e-3"]) == 0
    assert "FMR 1e-3 rests on 1 false matches" in capsys.readouterr().out
    assert set(read_card(model).thresholds) == {"1e-3"}
    assert main(["calibrate", str(model), str(people), "--aligned", "--fmr", "1e-5"]) == 2
    assert "needs at least 100,000 impostor comparisons" in capsys.readouterr().err


def test_thresholds_of_another_set_do_not_stay_beside_the_new_ones(people, model):
    card = read_card(model)
    write_card(model, card.with_changes(thresholds={"1e-4": {"threshold": 0.9}}))
    assert main(["calibrate", str(model), str(people), "--aligned"]) == 0
    assert "1e-4" not in read_card(model).thresholds


def test_a_copy_is_calibrated_and_the_model_left_as_it_was(people, model, tmp_path, capsys):
    (model / "checkpoint.json").write_text("{}")
    before = (model / "card.json").read_bytes()
    command = ["calibrate", str(model), str(people), "--aligned", "--out", str(tmp_path / "mine")]
    assert main(command) == 0
    assert (model / "card.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["card.json", "model.onnx"]
    assert read_card(tmp_path / "mine").thresholds
    assert f"visavis verify {tmp_path / 'mine'}" in capsys.readouterr().out
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_model_of_the_cache_is_calibrated_in_a_copy_there(people, model, tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "models" / "packaged-1"
    shutil.copytree(model, kept)
    from visavis.cli import calibrate

    assert calibrate.copy_target(_asked("packaged", people), kept).parent == kept.parent
    assert calibrate.copy_target(_asked("packaged", people), kept) != kept
    assert calibrate.copy_target(_asked(str(kept), people), kept) is None


def _asked(model, people):
    from types import SimpleNamespace

    return SimpleNamespace(out=None, model=model, photos=str(people))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["PEOPLE/p00"], "expected one folder of pictures per identity"),
        (["PEOPLE", "--identities", "ONE"], "two people at least"),
        (["PEOPLE", "--fmr", "2"], "between 0 and 1"),
    ],
)
def test_what_cannot_be_calibrated_on_is_one_line(people, model, tmp_path, capsys, words, said):
    (tmp_path / "one.txt").write_text("p00\n")
    words = [w.replace("PEOPLE", str(people)).replace("ONE", str(tmp_path / "one.txt")) for w in words]
    assert main(["calibrate", str(model), *words, "--aligned"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_an_exported_file_keeps_no_thresholds(model, people, capsys):
    assert main(["calibrate", str(model / "model.onnx"), str(people)]) == 2
    assert "model folder's card.json" in capsys.readouterr().err


def test_faces_are_found_in_photographs_and_a_picture_without_one_is_named(model, tmp_path, capsys):
    for person in range(4):
        for k in range(2):
            shown = scene(5, person * 100 + k, range(person, person + 1), difficulty=0.4)
            path = tmp_path / "photos" / f"p{person}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, shown.image)
    images.write(tmp_path / "photos" / "p0" / "wall.png", np.full((200, 200, 3), 128, np.uint8))
    assert main(["calibrate", str(model), str(tmp_path / "photos"), "--fmr", "0.1"]) == 0
    said = capsys.readouterr().out
    assert "faces are found and aligned in photographs" in said
    assert "p0/wall.png: no face found" in said
    assert "8 genuine" not in said  # p0 has three pictures: 3 + 1 + 1 + 1
    assert "6 genuine and 30 impostor comparisons" in said
    assert read_card(model).thresholds["1e-1"]["crops"] == "found and aligned in photographs"
