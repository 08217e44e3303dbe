"""visavis adapt: tried on one's own people first, written where it helps, calibrated and used like any model."""

import numpy as np
import pytest

from visavis.cli import main
from visavis.models.card import read_card
from visavis.vision import images


def write_people(root, *, cast, count=24, seed=0):
    """Crops of a color a person; a `cast` of one color lies over all, more on some pictures than on others."""
    rng = np.random.default_rng(seed)
    for person in range(count):
        color = rng.uniform(60, 195, 3)
        for k in range(3):
            amount = cast * rng.uniform(0.3, 1.0)
            pixels = (
                color + rng.normal(0, 4, 3) + amount * np.array([60.0, -50.0, -50.0]) + rng.normal(0, 3, (16, 16, 3))
            )
            path = root / f"p{person:02d}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, np.clip(pixels, 0, 255).astype(np.uint8))
    return root


@pytest.fixture
def model(tmp_path, write_color_model):
    return write_color_model(tmp_path / "model")


def test_a_gain_is_shown_before_it_is_written_and_the_result_is_a_model(tmp_path, model, capsys):
    photos = write_people(tmp_path / "photos", cast=1.0)
    out = tmp_path / "adapted"
    assert main(["adapt", str(model), str(photos), "--aligned", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "tried on halves of the 24 people, 10 draws: TMR at FMR 1e-1" in said
    assert "a gain is shown" in said
    assert read_card(out).notes["centered"]["people"] == 24
    others = write_people(tmp_path / "others", cast=1.0, seed=5)
    assert main(["calibrate", str(out), str(others), "--aligned", "--fmr", "0.01"]) == 0
    assert main(["calibrate", str(model), str(others), "--aligned", "--fmr", "0.01"]) == 0
    after, before = (read_card(folder).thresholds["1e-2"]["tmr"] for folder in (out, model))
    assert after > before
    pair = [str(others / "p00" / f"{k}.png") for k in (0, 1)]
    assert main(["verify", str(out), *pair, "--aligned"]) == 0


def test_where_no_gain_is_shown_nothing_is_written_unless_asked_for(tmp_path, model, capsys):
    photos = write_people(tmp_path / "photos", cast=0.0)
    words = ["adapt", str(model), str(photos), "--aligned", "--out", str(tmp_path / "adapted")]
    assert main(words) == 1
    assert "no gain is shown" in capsys.readouterr().out
    assert not (tmp_path / "adapted").exists()
    assert main([*words, "--anyway"]) == 0
    assert read_card(tmp_path / "adapted").notes["centered"]["pictures"] == 72


@pytest.mark.parametrize(("count", "said"), [(19, "20 people at least, got 19")])
def test_few_people_are_refused_before_anything_is_embedded(tmp_path, model, capsys, count, said):
    photos = write_people(tmp_path / "photos", cast=1.0, count=count)
    assert main(["adapt", str(model), str(photos), "--out", str(tmp_path / "a")]) == 2
    assert said in capsys.readouterr().err


def test_a_target_that_is_there_is_refused(tmp_path, model, capsys):
    assert main(["adapt", str(model), str(tmp_path), "--out", str(model)]) == 2
    assert "is there already" in capsys.readouterr().err
