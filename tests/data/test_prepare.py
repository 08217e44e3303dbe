"""visavis prepare: crops from listed and detected landmarks, the account of every picture, resuming, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from paths import SHARED

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.data.prepare import PrepareSettings, prepare, read_manifest
from visavis.data.sources import open_source
from visavis.data.sources.lists import read_list
from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError
from visavis.models.card import ModelCard
from visavis.models.torch import TorchEmbedder, save_model
from visavis.types import Faces
from visavis.vision import images
from visavis.vision.alignment import align, template_points
from visavis.vision.preprocessing import PreprocessSpec

POINTS = template_points("arcface", (112, 112)) + np.array([30, 20])


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for who, count in (("Ann Lee", 3), ("Bob", 2)):
        (tmp_path / "src" / who).mkdir(parents=True)
        for n in range(count):
            image = np.kron(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8), np.ones((18, 18, 1), np.uint8))
            images.write(tmp_path / "src" / who / f"{n}.png", image)
            lines.append(f"{who}/{n}.png\t" + "\t".join(f"{v:.3f}" for v in (POINTS + n).ravel()))
    (tmp_path / "src" / "pairs.txt").write_text("1 1\nBob 0 1\nBob 1 Ann 1\n")
    (tmp_path / "five.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


SETTINGS = PrepareSettings(extension=".png")


def test_crops_from_listed_landmarks(photos):
    source, listed = open_source(photos / "src"), read_list(photos / "five.txt")
    accounts = list(prepare(source, photos / "out", SETTINGS, landmarks=listed))
    assert [a.source for a in accounts] == list(source.names)
    assert [a.outputs for a in accounts] == [(name,) for name in source.names]
    crops = open_source(photos / "out")
    assert crops.names == source.names
    expected = align(source.image(1), np.round(POINTS + 1, 3))
    assert np.array_equal(crops.image(1), expected)


def test_two_workers_make_the_same(photos):
    source, listed = open_source(photos / "src"), read_list(photos / "five.txt")
    one = list(prepare(source, photos / "one", SETTINGS, landmarks=listed))
    two = list(prepare(source, photos / "two", SETTINGS, landmarks=listed, workers=2))
    assert one == two
    assert (photos / "one" / "manifest.jsonl").read_bytes() == (photos / "two" / "manifest.jsonl").read_bytes()


def test_an_interrupted_run_goes_on(photos):
    source, listed = open_source(photos / "src"), read_list(photos / "five.txt")
    whole = list(prepare(source, photos / "whole", SETTINGS, landmarks=listed))
    run = prepare(source, photos / "out", SETTINGS, landmarks=listed)
    next(run)
    next(run)
    run.close()
    manifest = photos / "out" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-7])  # the last line was cut off
    first = photos / "out" / "images" / whole[0].outputs[0]
    stamp = first.stat().st_mtime_ns
    assert list(prepare(source, photos / "out", SETTINGS, landmarks=listed)) == whole
    assert first.stat().st_mtime_ns == stamp
    settings, accounts = read_manifest(manifest)
    assert settings["size"] == [112, 112]
    assert sorted(a.source for a in accounts) == sorted(source.names)


def test_other_settings_need_another_folder(photos):
    source, listed = open_source(photos / "src"), read_list(photos / "five.txt")
    list(prepare(source, photos / "out", SETTINGS, landmarks=listed))
    with pytest.raises(DataError, match=r"made with other settings \(quality, size\)"):
        list(
            prepare(
                source, photos / "out", PrepareSettings(size=(112, 96), quality=9, extension=".png"), landmarks=listed
            )
        )


def test_every_reject_has_its_reason(photos):
    (photos / "src" / "Bob" / "0.png").write_bytes(b"no picture")
    lines = (photos / "five.txt").read_text().splitlines()
    (photos / "five.txt").write_text("\n".join(line for line in lines if "Ann Lee/2" not in line))
    source, listed = open_source(photos / "src"), read_list(photos / "five.txt")
    accounts = {a.source: a for a in prepare(source, photos / "out", SETTINGS, landmarks=listed)}
    assert accounts["Ann Lee/2.png"].reject == "no landmarks in the list"
    assert "expected a JPEG, PNG" in accounts["Bob/0.png"].reject
    assert accounts["Bob/1.png"].reject == ""


def test_two_pictures_with_one_name(photos):
    images.write(photos / "src" / "Bob" / "1.jpg", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"'Bob/1.jpg' and 'Bob/1.png' would be written to one name"):
        list(prepare(open_source(photos / "src"), photos / "out", SETTINGS))


def test_a_damaged_manifest_names_its_line(photos):
    path = photos / "manifest.jsonl"
    path.write_text('{"settings": {}}\n{"source": "a", "nonsense": 1}\n')
    with pytest.raises(DataError, match="line 2: not a line of a manifest"):
        read_manifest(path)


def test_command_line(photos, capsys):
    arguments = ["prepare", str(photos / "src"), str(photos / "out"), "--workers", "1"]
    (photos / "src" / "Bob" / "0.png").write_bytes(b"no picture")
    assert main([*arguments, "--landmarks", str(photos / "five.txt"), "--size", "112x96", "--format", "png"]) == 0
    out = capsys.readouterr().out
    assert "5 pictures of 2 identities -> 4 crops" in out
    assert "copied beside them: pairs.txt" in out
    assert images.read(photos / "out" / "images" / "Bob" / "1.png").shape == (112, 96, 3)
    assert images.read(photos / "out" / "rejects.jpg").shape[1] == 1024
    assert main([*arguments, "--size", "112"]) == 2
    assert "--size wants HEIGHTxWIDTH" in capsys.readouterr().err
    assert main(["prepare", str(photos / "src"), str(photos / "src")]) == 2
    assert main([*arguments, "--detector", "scrfd"]) == 2


@pytest.mark.skipif(not (SHARED / "lfw-raw").is_dir(), reason="needs ../shared/lfw-raw")
def test_real_faces_are_found_and_aligned(tmp_path):
    source = open_source(SHARED / "lfw-raw").subset(range(0, 60, 5))
    accounts = list(prepare(source, tmp_path / "out", PrepareSettings()))
    assert not [a for a in accounts if a.reject]
    for account in accounts:
        middle = np.array(account.box[0]).reshape(2, 2).mean(0)
        assert np.abs(middle - 124.5).max() < 40
        assert account.score[0] > 0.9
    every = list(prepare(source, tmp_path / "all", PrepareSettings(all_faces=True)))
    assert all(len(a.outputs) == a.faces for a in every)
    assert json.loads((tmp_path / "all" / "manifest.jsonl").read_text().split("\n")[0])["settings"]["all_faces"]


@pytest.mark.skipif(not (SHARED / "lfw-raw").is_dir(), reason="needs ../shared/lfw-raw")
def test_found_landmarks_can_be_used_again(tmp_path, capsys):
    who = tmp_path / "src" / "Adam_Scott"
    who.mkdir(parents=True)
    for path in sorted((SHARED / "lfw-raw" / "images" / "Adam_Scott").iterdir()):
        (who / path.name).write_bytes(path.read_bytes())
    (tmp_path / "src" / "landmarks.txt").write_text("of the photographs")
    src, found, again = str(tmp_path / "src"), tmp_path / "found", tmp_path / "again"
    assert main(["prepare", src, str(found), "--workers", "1", "--format", "png"]) == 0
    assert not (found / "landmarks.txt").exists()
    arguments = ["--workers", "1", "--format", "png", "--landmarks", str(found / "source_landmarks.txt")]
    assert main(["prepare", src, str(again), *arguments]) == 0
    capsys.readouterr()
    for one, two in zip(open_source(found).names, open_source(again).names, strict=True):
        first, second = images.read(found / "images" / one), images.read(again / "images" / two)
        assert np.abs(first.astype(int) - second).mean() < 1  # the list keeps two decimals


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "lfw-raw").is_dir(), reason="needs ../shared/lfw-raw")
def test_at_least_99_percent_of_the_raw_pictures(tmp_path):
    source = open_source(SHARED / "lfw-raw")
    right = 0
    for account in prepare(source, tmp_path / "out", PrepareSettings(), workers=2):
        middle = np.array(account.box[0]).reshape(2, 2).mean(0) if account.box else np.zeros(2)
        right += np.abs(middle - 124.5).max() < 40
    assert right / len(source) >= 0.99


@pytest.mark.parametrize("more", [["scrfd"], ["yunet", "--detector-model", "nowhere.onnx"]])
def test_a_detector_that_cannot_be_loaded_is_said_before_anything_is_written(photos, capfd, more):
    """From the command line with several workers: one line, no worker's traceback, no manifest that blocks the next."""
    assert main(["prepare", str(photos / "src"), str(photos / "out"), "--workers", "2", "--detector", *more]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "--detector-model FILE" in said or "nowhere.onnx" in said
    assert not (photos / "out").exists()


def test_a_damaged_photograph_is_named_with_its_reason(photos, capsys):
    photo = photos / "src" / "Bob" / "0.png"
    photo.write_bytes(photo.read_bytes()[:300])
    listed = ["--landmarks", str(photos / "five.txt"), "--workers", "1"]
    assert main(["prepare", str(photos / "src"), str(photos / "out"), *listed]) == 0
    assert "rejected 1: damaged or truncated picture" in capsys.readouterr().out
    _, accounts = read_manifest(photos / "out" / "manifest.jsonl")
    assert accounts[3].reject.startswith("damaged or truncated picture (")


class _Framed:
    """A detector that knows where the face of a picture lies: at 1,000 pixels, turned and off the center."""

    def detect(self, image):
        turn = np.array([[0.98, -0.2], [0.2, 0.98]])
        points = template_points("arcface", (1000, 1000)) @ turn.T + [150, -40]
        return Faces(np.array([[0, 0, 999, 999]], np.float32), np.ones(1, np.float32), points[None].astype(np.float32))


@pytest.mark.parametrize("antialias", ["box", "area", "none"])
def test_prepared_crops_answer_as_verify_does(tmp_path, monkeypatch, capsys, antialias):
    """What `--aligned` says of prepared crops is what `verify` says of the photographs of a 1,000-pixel face."""
    monkeypatch.setattr("visavis.data.prepare.load_detector", lambda *args, **given: _Framed())
    rng = np.random.default_rng(0)
    for who in "ab":
        (tmp_path / "src" / who).mkdir(parents=True)
        blocks = rng.integers(0, 256, (260, 300, 3), dtype=np.uint8)
        images.write(tmp_path / "src" / who / "1.png", np.kron(blocks, np.ones((4, 4, 1), np.uint8)))
    spec = PreprocessSpec((32, 32), flip="sum", antialias=antialias)
    network = build_backbone("small", size=(32, 32), dim=16, width=8)
    save_model(tmp_path / "model", network, ModelCard("m", "small", 16, spec, backbone_args={"width": 8}))
    out = tmp_path / "out"
    done = ["prepare", str(tmp_path / "src"), str(out), "--model", str(tmp_path / "model"), "--format", "png"]
    assert main([*done, "--workers", "1"]) == 0
    verifier = Recognizer.load(tmp_path / "model", detector=_Framed())
    photos = verifier.verify(tmp_path / "src/a/1.png", tmp_path / "src/b/1.png")
    crops = verifier.verify(out / "images/a/1.png", out / "images/b/1.png", aligned=True)
    assert crops.similarity == pytest.approx(photos.similarity, abs=1e-6)
    other = replace(spec, antialias={"box": "none", "area": "none", "none": "area"}[antialias])
    card = ModelCard("m", "small", 16, other, backbone_args={"width": 8})
    differs = Recognizer(TorchEmbedder(network, other), spec=other, card=card, detector=_Framed())
    assert abs(differs.verify(tmp_path / "src/a/1.png", tmp_path / "src/b/1.png").similarity - photos.similarity) > 1e-4
    capsys.readouterr()
    assert main([*done, "--size", "112x112", "--padding", "2"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "leave out --size, --padding" in said


def test_a_folder_made_before_the_reduction_was_a_setting_was_sampled(photos):
    """A manifest without `antialias` is one of plain bilinear crops: it goes on as such, and as nothing else."""
    source, listed = open_source(photos / "src"), read_list(photos / "five.txt")
    sampled = replace(SETTINGS, antialias="none")
    list(prepare(source, photos / "out", sampled, landmarks=listed))
    manifest = photos / "out" / "manifest.jsonl"
    head, _, rest = manifest.read_text().partition("\n")
    values = json.loads(head)
    assert values["settings"].pop("antialias") == "none"
    manifest.write_text(json.dumps(values) + "\n" + rest)
    assert len(list(prepare(source, photos / "out", sampled, landmarks=listed))) == 5
    manifest.write_text(json.dumps(values) + "\n" + rest)
    with pytest.raises(DataError, match=r"other settings \(antialias\)"):
        list(prepare(source, photos / "out", SETTINGS, landmarks=listed))
