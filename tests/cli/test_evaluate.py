"""visavis evaluate from the command line, on a tiny ONNX model of the mean color."""

import csv
import json

import numpy as np
import pytest

from visavis.cli import evaluate as evaluate_verb
from visavis.cli import main
from visavis.evaluate.presets import PRESETS
from visavis.evaluate.protocols.registry import PROTOCOLS
from visavis.models.card import read_card
from visavis.vision import images


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_color_model):
    root = tmp_path_factory.mktemp("command")
    model = write_color_model(root / "model")
    rng = np.random.default_rng(0)
    colors = rng.integers(20, 236, (20, 3))
    for i in range(20):
        (root / f"data/images/p{i:02d}").mkdir(parents=True)
        for p in range(4):
            crop = np.clip(colors[i] + rng.normal(0, 12, 3) + rng.normal(0, 2, (16, 16, 3)), 0, 255).astype(np.uint8)
            images.write(root / f"data/images/p{i:02d}/p{i:02d}_{p + 1:04d}.png", crop)
    lines = ["5\t20"]
    for _ in range(5):
        for _ in range(20):
            a, b = rng.choice(4, 2, replace=False) + 1
            lines.append(f"p{rng.integers(20):02d}\t{a}\t{b}")
        for _ in range(20):
            i, j = rng.choice(20, 2, replace=False)
            lines.append(f"p{i:02d}\t1\tp{j:02d}\t2")
    (root / "data/pairs.txt").write_text("\n".join(lines) + "\n")
    return root, model


def test_writes_every_form_and_calibrates(made, tmp_path, capsys):
    root, model = made
    out = {k: tmp_path / f"r.{k}" for k in ("json", "html", "md", "tex")}
    argv = [
        "evaluate",
        str(model),
        "--data",
        str(root / "data"),
        "--json",
        str(out["json"]),
        "--html",
        str(out["html"]),
    ]
    argv += ["--markdown", str(out["md"]), "--latex", str(out["tex"]), "--cache", str(tmp_path / "cache")]
    assert main([*argv, "--calibrate", "0.1", "0.05", "--bootstrap", "50"]) == 0
    said = capsys.readouterr().out
    assert "Calibrated thresholds" in said
    assert "raw pixels" in said
    body = json.loads(out["json"].read_text())
    assert body["accuracy"]["mean"] > 0.8
    assert body["model"]["card"]["name"] == "colors"
    assert (tmp_path / body["scores"]).is_file()
    page = out["html"].read_text()
    assert page.count("<svg") == 4
    assert "http" not in page.replace("http://www.w3.org", "")  # namespaces only
    assert "<script" not in page
    entry = read_card(model).thresholds["5e-2"]
    assert entry["digest"] == "d" * 64
    assert entry["set_digest"] == body["data"]["comparisons_digest"]
    assert entry["calibration"]["slope"] > 0
    # again, from the cache and with a preset: the same scores
    assert main([*argv, "--preset", "sphereface", "--bootstrap", "0"]) == 0
    again = json.loads(out["json"].read_text())
    assert again["seconds"]["cached_embeddings"] == again["data"]["images"]
    assert again["auc"] == body["auc"]
    assert again["preset"]["name"] == "sphereface"
    assert again["accuracy"] == body["accuracy"]  # a preset's figure stands under its own name
    low, high = again["preset"]["accuracy"]["interval"]
    assert low <= again["preset"]["accuracy"]["mean"] <= high


def test_a_calibrated_model_decides(made, capsys):
    """What --calibrate writes is what deployment reads."""
    from visavis.deploy.operating_point import operating_point

    root, model = made
    assert main(["evaluate", str(model), "--data", str(root / "data"), "--calibrate", "--bootstrap", "0"]) == 0
    capsys.readouterr()
    card = read_card(model)
    point = operating_point(card, fmr=0.1)
    assert point.threshold == card.thresholds["1e-1"]["threshold"]
    assert 0 < point.probability(point.threshold) < 1
    assert point.probability(1.0) > point.probability(0.0)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--protocol", "pears"], "did you mean 'pairs'"),
        (["--preset", "arcfacs"], "did you mean 'arcface'"),
        (["--pairs", "none.txt"], "none.txt: expected a pair list"),
        (["--calibrate", "1e-6"], "at least 1,000,000 impostor"),
        (["--calibrate", "0.1", "--flip", "sum"], "would not hold"),
        (["--calibrate", "0.1", "--preset", "arcface"], "add --flip none"),
    ],
)
def test_mistakes_are_one_line(made, extra, said, capsys):
    root, model = made
    assert main(["evaluate", str(model), "--data", str(root / "data"), *extra]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert "Traceback" not in err


def test_thresholds_that_cannot_be_had_are_refused_before_embedding(made, monkeypatch, capsys):
    from types import SimpleNamespace

    from visavis.errors import ProtocolError
    from visavis.evaluate.calibrate import check_rates

    def never(*_, **__):
        raise AssertionError("the model was loaded")

    root, model = made
    monkeypatch.setattr("visavis.models.load.load_embedder", never)
    assert main(["evaluate", str(model), "--data", str(root / "data"), "--calibrate", "1e-6"]) == 2
    assert "at least 1,000,000 impostor" in capsys.readouterr().err
    with pytest.raises(ProtocolError, match="'tinyface' has none"):
        check_rates(SimpleNamespace(name="tinyface"), ())


def test_a_damaged_picture_is_counted_and_named(made, tmp_path, capsys):
    import shutil

    root, model = made
    shutil.copytree(root / "data", tmp_path / "data")
    bad = tmp_path / "data/images/p03/p03_0001.png"
    bad.write_bytes(bad.read_bytes()[:60])
    out = tmp_path / "r.json"
    assert main(["evaluate", str(model), "--data", str(tmp_path / "data"), "--json", str(out), "--bootstrap", "0"]) == 0
    assert "1 pictures could not be acquired" in capsys.readouterr().out
    body = json.loads(out.read_text())
    assert list(body["failures_to_acquire"]["reasons"]) == ["p03/p03_0001.jpg"]  # as the list says
    assert body["comparisons"]["failed_to_acquire"] > 0


def test_scores_are_written_in_the_columns_of_bob_bio(made, tmp_path):
    root, model = made
    argv = ["evaluate", str(model), "--data", str(root / "data"), "--bootstrap", "0", "--no-baseline"]
    argv += ["--json", str(tmp_path / "r.json"), "--scores-csv", str(tmp_path / "s.csv")]
    assert main(argv) == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    scores = np.load(tmp_path / "r.scores.npz")
    assert list(rows[0]) == ["claimed_id", "model_label", "real_id", "test_label", "score"]
    assert len(rows) == len(scores["genuine"])
    assert [float(r["score"]) for r in rows] == scores["similarity"].astype(float).tolist()
    assert [r["claimed_id"] == r["real_id"] for r in rows] == scores["genuine"].tolist()
    names = scores["names"]
    assert [r["model_label"] for r in rows] == names[scores["reference"]].tolist()
    assert main([*argv, "--score-columns", "4"]) == 0
    assert (tmp_path / "s.csv").read_text().startswith("claimed_id,real_id,test_label,score\n")


def test_help_names_every_protocol_and_preset(capsys):
    assert evaluate_verb.PROTOCOLS.replace("\n", " ").split(", ") == list(PROTOCOLS)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--help"])
    assert stopped.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f" {name}" in said for name in [*PROTOCOLS, *PRESETS])
