"""The published MobileFaceNet on real faces: 97.9 % of 4,200 pairs, 98.0 % with the flip sum, the same through ONNX."""

import json

import pytest
from paths import SHARED

from visavis.cli import main

CHECKPOINT = SHARED / "weights" / "mobilefacenet_casia_112x96.ckpt"
FACES = SHARED / "lfw-dev"

pytestmark = pytest.mark.skipif(not (CHECKPOINT.is_file() and FACES.is_dir()), reason="needs ../shared")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    home = tmp_path_factory.mktemp("published") / "mfn"
    assert main(["import", str(CHECKPOINT), "--out", str(home)]) == 0
    assert main(["export", str(home), "--data", str(FACES), "--crops", "16", "--out", str(home / "plain.onnx")]) == 0
    return home


def accuracy(model, tmp_path, *options):
    out = tmp_path / "figures.json"
    command = ["evaluate", str(model), "--data", str(FACES), "--json", str(out), "--no-baseline", "--bootstrap", "0"]
    assert main([*command, *options]) == 0
    return json.loads(out.read_text())["accuracy"]["mean"]


def test_a_hundred_pairs_agree_to_the_last_digit(imported, tmp_path):
    """Two folds of the list's first pairs: quick, and enough to see a wrong crop or channel order."""
    lines = (FACES / "pairs.txt").read_text().splitlines()[1:]
    few = tmp_path / "few.txt"
    few.write_text("\n".join(["2 25", *lines[:25], *lines[300:325], *lines[25:50], *lines[325:350]]) + "\n")
    by_weights = accuracy(imported, tmp_path, "--pairs", str(few))
    assert by_weights >= 0.95
    assert accuracy(imported / "plain.onnx", tmp_path, "--pairs", str(few)) == by_weights


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("flip", "expected"), [("none", 0.979), ("sum", 0.980)])
def test_all_pairs_as_independently_evaluated(imported, tmp_path, flip, expected):
    by_weights = accuracy(imported, tmp_path, "--flip", flip)
    assert by_weights == pytest.approx(expected, abs=0.0015)
    assert accuracy(imported / "plain.onnx", tmp_path, "--flip", flip) == by_weights
