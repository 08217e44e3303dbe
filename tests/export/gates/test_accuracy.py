"""fp16 and int8 must keep the accuracy on pairs: exactly what may be lost passes, what is more is no file."""

import math
from dataclasses import replace

import numpy as np
import pytest

from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.export.formats.base import Options
from visavis.export.gates.accuracy import difference, open_pairs
from visavis.export.gates.parity import SCORE_NOISE, TOLERANCES, Parity, require, require_steady_scores
from visavis.export.gates.sensitivity import satisfy_accuracy_budget
from visavis.export.model import open_model
from visavis.export.pipeline import export_model

BEFORE, ALLOWED = 0.9, 0.2  # a share, and points of a hundred


def judged(lost):
    return {"accuracy": BEFORE - lost / 100, "auc": 0.9, "eer": 0.1, "tmr_at_fmr": {"1e-1": 0.5}}


@pytest.fixture
def export(home, tmp_path, monkeypatch):
    """Export the model as if the artifact lost so many points of accuracy."""

    def run(precision, lost, format_name="onnx", suffix=".onnx"):
        verdicts = iter([judged(0)])
        monkeypatch.setattr("visavis.export.pipeline.evaluate_pairs", lambda *_, **__: next(verdicts, judged(lost)))
        monkeypatch.setattr("visavis.export.gates.sensitivity.evaluate_pairs", lambda *_, **__: judged(lost))
        crops = _faces(home)
        options = Options(
            precision=precision,
            calibration=crops,
            pairs=open_pairs(home / "data"),
            max_drop=ALLOWED,
            calibration_method="minmax",
        )
        path = tmp_path / f"m{suffix}"
        return export_model(open_model(home / "model"), format_name, crops, out=path, options=options), path

    return run


def _faces(home):
    from visavis.export.gates.parity import crops_of
    from visavis.models.card import read_card

    return crops_of(home / "data", read_card(home / "model").preprocess, count=8)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("lost", [-5.0, 0.0, ALLOWED])
def test_what_keeps_its_accuracy_is_written(export, precision, lost):
    done, path = export(precision, lost)
    assert path.is_file()
    assert done.record["accuracy"]["points_lost"] == pytest.approx(lost)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("lost", [ALLOWED + 1e-6, 30.0])
def test_what_loses_more_is_not(export, tmp_path, precision, lost):
    with pytest.raises(ModelFormatError, match=r"loses .* allowed are 0\.2"):
        export(precision, lost)
    assert not list(tmp_path.glob("m*"))


def test_layers_stay_in_int8_while_the_budget_holds():
    """The gate of the search, by itself: at the limit nothing returns to float, beyond it the first layer does."""
    for lost, kept in ((ALLOWED, []), (ALLOWED + 1e-6, ["a"])):
        tries = iter([lost, 0.0])

        def build(float_layers, tries=tries):
            return float_layers, next(tries)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("visavis.export.gates.sensitivity.evaluate_pairs", lambda lost, _: judged(lost))
            _, found, _ = satisfy_accuracy_budget(
                build,
                lambda: ["a", "b"],
                reference_accuracy=judged(0),
                pairs=object(),
                max_drop=ALLOWED,
                progress=lambda _: None,
            )
        assert found == kept


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_from_the_command_line(home, tmp_path, capsys, precision):
    """No export gains fifty points, and none loses a hundred."""
    data = ["--data", str(home / "data"), "--pairs", str(home / "data" / "pairs.txt")]
    command = [
        "export",
        str(home / "model"),
        "--precision",
        precision,
        *data,
        "--crops",
        "4",
        "--calibration-count",
        "4",
    ]
    out = tmp_path / "m.onnx"
    assert main([*command, "--out", str(out), "--max-drop=-50"]) == 2
    assert f"{precision} loses" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--out", str(out), "--max-drop=100"]) == 0
    assert "points lost" in capsys.readouterr().out
    assert out.is_file()


@pytest.mark.parametrize(("lost", "status"), [(0.19, 0), (0.21, 2)])
def test_without_a_wish_a_fifth_of_a_point_may_be_lost(home, tmp_path, monkeypatch, lost, status):
    verdicts = iter([judged(0), judged(lost)])
    monkeypatch.setattr("visavis.export.pipeline.evaluate_pairs", lambda *_, **__: next(verdicts))
    pairs = ["--pairs", str(home / "data" / "pairs.txt"), "--precision", "fp16", "--crops", "4"]
    assert main(["export", str(home / "model"), *pairs, "--out", str(tmp_path / "m.onnx")]) == status


def test_points_lost_are_the_weights_minus_the_exports():
    found = difference(judged(0), judged(3), type("Set", (list,), {"name": "pairs.txt"})([0]))
    assert found["points_lost"] == pytest.approx(3)
    assert (found["reference_accuracy"], found["accuracy"]) == (BEFORE, pytest.approx(BEFORE - 0.03))
    assert found["tmr_points_lost"] == {"1e-1": 0.0}


@pytest.mark.parametrize("precision", TOLERANCES)
def test_parity_holds_at_its_tolerance_and_not_a_unit_beyond(faces, tmp_path, precision):
    tolerance = TOLERANCES[precision]
    for distance, holds in (
        (math.nextafter(tolerance, 0), True), (tolerance, True), (math.nextafter(tolerance, 1), False),
        (math.nan, False), (math.inf, False),
    ):  # fmt: skip
        parity = Parity(np.array([0.0, distance]), faces, tolerance, "it", 0.0)
        assert parity.holds == holds
        if holds:
            require(parity, what="it", image=tmp_path / "worst.png")
        else:
            with pytest.raises(ModelFormatError, match="does not embed as its reference"):
                require(parity, what="it", image=tmp_path / "worst.png")


def test_scores_are_steady_at_the_limit_and_not_a_unit_beyond(faces):
    parity = Parity(np.zeros(24), faces, 1.0, "it", SCORE_NOISE)
    require_steady_scores(parity, what="it")
    for noise in (math.nextafter(SCORE_NOISE, 1), math.nan):
        with pytest.raises(ModelFormatError, match="no file was written"):
            require_steady_scores(replace(parity, score_noise=noise), what="it")
