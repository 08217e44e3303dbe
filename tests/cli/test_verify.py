"""visavis verify --exit-code: a script tells match, no match and no decision apart."""

import numpy as np
import pytest

from visavis.cli import main
from visavis.models.card import read_card, write_card
from visavis.vision import images


@pytest.fixture
def material(tmp_path, write_color_model):
    for name, color in {"red": (220, 40, 40), "rose": (215, 45, 40), "blue": (40, 40, 220)}.items():
        images.write(tmp_path / f"{name}.png", np.full((16, 16, 3), color, np.uint8))
    model = write_color_model(tmp_path / "model")
    write_card(model, read_card(model).with_changes(thresholds={"1e-3": {"threshold": 0.9}}))
    return tmp_path


@pytest.mark.parametrize(("probe", "status", "said"), [("rose", 0, "match"), ("blue", 1, "no match")])
def test_the_exit_status_follows_the_answer(material, capsys, probe, status, said):
    words = ["verify", str(material / "model"), str(material / "red.png"), str(material / f"{probe}.png"), "--aligned"]
    assert main([*words, "--exit-code"]) == status
    assert capsys.readouterr().out.startswith(f"{said}:")
    assert main(words) == 0
    assert main([*words, "--exit-code", "--json"]) == status


def test_undecided_is_neither_a_match_nor_none(material, capsys):
    model = material / "model"
    write_card(model, read_card(model).with_changes(thresholds={}))
    words = ["verify", str(model), str(material / "red.png"), str(material / "rose.png"), "--aligned", "--exit-code"]
    assert main(words) == 3
    assert "visavis calibrate MODEL PHOTOS" in capsys.readouterr().out
    assert main([*words, "--threshold", "0.5"]) == 0


def test_a_mistake_keeps_its_own_status(material):
    assert main(["verify", str(material / "model"), "nowhere.png", "nowhere.png", "--exit-code"]) == 2
