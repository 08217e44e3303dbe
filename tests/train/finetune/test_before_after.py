"""The report of a fine-tuning: the paired test against plain counting, and the whole through the command line."""

import json

import numpy as np
import pytest

from visavis.cli import main
from visavis.errors import RecipeError
from visavis.metrics.verification import verify_scores
from visavis.train.finetune.before_after import compare, open_old_validation_set
from visavis.train.recipe import parse_recipe
from visavis.types import Pairs
from visavis.vision.preprocessing import PreprocessSpec


def pairs_and_scores(seed, noise):
    rng = np.random.default_rng(seed)
    names = tuple(f"p{i}/{k}.jpg" for i in range(40) for k in range(2))
    reference = np.concatenate([np.arange(0, 80, 2), np.arange(0, 80, 2)])
    probe = np.concatenate([np.arange(1, 81, 2), (np.arange(0, 80, 2) + 2) % 80])
    genuine = np.repeat([True, False], 40)
    order = rng.permutation(80)
    pairs = Pairs(names, reference[order], probe[order], genuine[order], np.arange(80) % 4)
    scores = genuine[order] * 1.0 + rng.normal(0, noise, 80)
    return pairs, verify_scores(scores.astype(np.float32), pairs.genuine, pairs.fold)


def test_a_clear_gain_is_told_from_no_change():
    pairs, poor = pairs_and_scores(0, 1.0)
    _, good = pairs_and_scores(0, 0.1)
    found = compare("own pairs", poor, good, pairs)
    assert found.gained - found.lost == round(80 * (good.accuracy - poor.accuracy))
    assert found.p_value < 0.01
    assert found.interval[0] > 0
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.verdict().endswith("better")
    assert compare("own pairs", good, poor, pairs).verdict().endswith("worse")
    same = compare("own pairs", good, good, pairs)
    assert (same.gained, same.lost, same.p_value, same.interval) == (0, 0, 1.0, (0.0, 0.0))
    assert same.verdict().endswith("no change shown")


def test_old_pairs_need_their_pictures():
    values = {"data": {"source": "x"}, "loop": {"steps": 1}, "evaluate": {"retention_pairs": "old.txt"}}
    with pytest.raises(RecipeError, match=r"evaluate\.retention_source"):
        open_old_validation_set(parse_recipe(values), PreprocessSpec())
    del values["evaluate"]
    assert open_old_validation_set(parse_recipe(values), PreprocessSpec()) is None


def test_a_fine_tuning_reports_before_and_after_and_what_was_forgotten(blob_folder, tmp_path, capsys):
    common = ["--loop.batch_size", "8", "--loop.epochs", "0", "--data.workers", "0", "--loop.device", "cpu"]
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(
        "name: tiny\npreprocess: {size: [32, 32]}\nbackbone: {name: small, dim: 16, args: {width: 8}}\n"
        f"data: {{source: {blob_folder}}}\nloop: {{steps: 4}}\n"
    )
    first, second = str(tmp_path / "first"), tmp_path / "second"
    assert main(["train", str(tiny), "--out", first, *common]) == 0
    capsys.readouterr()
    words = ["train", "finetune", "--init", first, "--data", str(blob_folder), "--out", str(second), *common]
    old = ["--evaluate.source", str(blob_folder), "--evaluate.retention_source", str(blob_folder)]
    assert main([*words, *old, "--loop.steps", "12"]) == 0
    out = capsys.readouterr().out
    assert "Before and after fine-tuning" in out
    found = json.loads((second / "before_after.json").read_text())
    assert found["own"]["before"]["accuracy"] == found["old"]["before"]["accuracy"]
    moved = found["own"]["after"]["accuracy"]["mean"] - found["own"]["before"]["accuracy"]["mean"]
    assert found["own"]["accuracy_difference"] == pytest.approx(moved)
    assert 0 <= found["own"]["p_value"] <= 1
    assert "Before and after fine-tuning" in (second / "report.html").read_text()
    assert f"p = {found['old']['p_value']:.3g}" in out
