"""`visavis synth`, as typed."""

import csv
from pathlib import Path

import numpy as np
import pytest

from visavis import synthetic
from visavis.cli import main
from visavis.data.sources import open_source
from visavis.vision import images

FEW = ["--identities", "3", "--images-per-identity", "2", "--size", "48", "--workers", "1"]


def test_a_folder_per_identity_with_landmarks_and_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, sheet = tmp_path / "faces", tmp_path / "sheet.png"
    more = ["--seed", "4", "--first-identity", "20", "--pairs", "6", "--folds", "1", "--contact-sheet", str(sheet)]
    assert main(["synth", str(out), *FEW, *more]) == 0
    assert "per core" in capsys.readouterr().out
    source = open_source(out)
    assert source.identities == ("id_000020", "id_000021", "id_000022")
    assert len(source) == 6
    crop, points = synthetic.face(4, 21, 1, size=48)
    assert np.abs(source.image(3).astype(int) - crop).mean() < 6  # JPEG
    row = (out / "landmarks.txt").read_text().splitlines()[3].split("\t")
    assert row[0] == "id_000021/001.jpg"
    np.testing.assert_allclose(np.array(row[1:], float), points.ravel(), atol=0.006)
    assert len((out / "pairs.txt").read_text().splitlines()) == 7
    assert images.read(sheet).shape[2] == 3


def test_its_own_folder_is_made_anew_and_anothers_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "faces"
    assert main(["synth", str(out), *FEW]) == 0
    assert main(["synth", str(out), "--identities", "1", *FEW[2:]]) == 0
    assert len(open_source(out)) == 2
    (out / "synthetic.json").unlink()
    assert main(["synth", str(out), *FEW]) == 2
    assert "not empty" in capsys.readouterr().err
    assert len(open_source(out)) == 2


def test_scenes_list_every_face(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    assert main(["synth", str(out), "--identities", "3", "--images-per-identity", "1", "--scenes"]) == 0
    with (out / "scenes.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["image"] for row in rows} == {path.name for path in (out / "images").iterdir()}
    for row in rows:
        image = images.read(out / "images" / row["image"])
        assert 0 < float(row["nose_x"]) < image.shape[1]
        assert float(row["x1"]) < float(row["nose_x"]) < float(row["x2"])
        assert float(row["left_eye_y"]) < float(row["left_mouth_y"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "how many"),
        (["--identities", "0", "--images-per-identity", "2"], "how many"),
        ([*FEW, "--difficulty", "7"], "[0, 3]"),
        ([*FEW, "--size", "1025"], "[16, 1024]"),
        ([*FEW, "--size", "513", "--youtube-faces"], "[16, 512]"),
        ([*FEW, "--pairs", "7"], "multiple"),
        ([*FEW, "--pairs", "6000"], "ask for fewer"),
        ([*FEW, "--scenes", "--pairs", "20"], "--pairs belongs to aligned faces"),
    ],
)
def test_bad_requests_end_in_one_line_and_write_nothing(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "faces"
    assert main(["synth", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()
