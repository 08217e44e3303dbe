"""One walker for all verbs: what a system leaves behind is no identity, and everything left out is counted."""

import json
import logging
import unicodedata

import cv2
import numpy as np
import pytest

from visavis.cli import main
from visavis.data.convert import convert
from visavis.data.pair_lists.base import build_pairs, write_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source, read_identities
from visavis.data.sources.lists import read_list, write_list
from visavis.data.sources.system_files import left_by_a_system
from visavis.errors import DataError
from visavis.types import Pairs
from visavis.vision import images

DOT = images.encode(np.full((8, 8, 3), 90, np.uint8), ".png")


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(DOT)
    return root


LEFT = ["A/.ipynb_checkpoints/1-checkpoint.png", "@eaDir/A/1.png", "__MACOSX/A/._1.png", "A/._1.png", "A/Thumbs.db"]


def test_what_a_system_leaves_is_no_identity_and_no_picture(tmp_path):
    put(tmp_path, "A/1.png", "A/deeper/2.png", "B/1.png", *LEFT)
    source = open_source(tmp_path)
    assert source.identities == ("A", "B")
    assert source.names == ("A/1.png", "A/deeper/2.png", "B/1.png")
    said = dict(source.skipped)
    assert said["__MACOSX"] == "written by macOS"
    assert said["@eaDir"] == "written by a Synology"
    assert said["A/.ipynb_checkpoints"] == said["A/._1.png"] == "hidden"
    assert said["A/Thumbs.db"] == "written by Windows"
    flat = put(tmp_path / "flat", "1.png", "._1.png", "Thumbs.db")
    assert open_source(flat, kind="flat").names == ("1.png",)
    assert left_by_a_system("Anna") is None


def test_enroll_descends_and_lists_what_it_left_out():
    # The walker is the sources' own: enrolling sees what training sees.
    import tempfile
    from pathlib import Path

    from visavis.cli.enroll import _people

    with tempfile.TemporaryDirectory() as folder:
        root = put(Path(folder), "A/1.png", "A/deeper/2.png", "B/c/3.png", "notes.txt", *LEFT)
        people, skipped = _people([str(root)], None)
        assert {name: len(found) for name, found in people.items()} == {"A": 2, "B": 1}
        assert ("notes.txt", "not a picture") in skipped
        people, skipped = _people([str(root / "A"), str(root / "B" / "c" / "3.png")], "Ada")
        assert len(people["Ada"]) == 3
        assert ("._1.png", "hidden") in skipped
        with pytest.raises(DataError, match="whose pictures"):
            _people([str(root / "A" / "1.png")], None)


def test_a_name_is_found_in_either_form_of_unicode(tmp_path):
    decomposed = unicodedata.normalize("NFD", "José")
    source = open_source(put(tmp_path, f"{decomposed}/1.png", "Zoe/1.png"))
    assert source.position(unicodedata.normalize("NFC", "José") + "/1.png") == source.position(f"{decomposed}/1.png")
    assert source.only([unicodedata.normalize("NFC", "José")]).identities == (decomposed,)
    assert source.without([unicodedata.normalize("NFC", "José")]).identities == ("Zoe",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_one_reader_for_identity_lists(tmp_path, caplog, encoding):
    (tmp_path / "people.txt").write_text("# chosen by hand\nAnn\nBéa\n\nAnn\n", encoding=encoding)
    assert read_identities(tmp_path / "people.txt") == ("Ann", "Béa")
    assert "1 names stand there more than once" in caplog.text


@pytest.mark.parametrize("name", ["A/with\ttab.png", "A/two\nlines.png", "A/\udcff.png"])
def test_names_no_list_can_hold_are_refused_before_anything_is_written(tmp_path, name):
    source = open_source(put(tmp_path / "set", "A/1.png", name))
    for target, kind in ((tmp_path / "set" / "list.txt", "list"), (tmp_path / "rec", "record")):
        with pytest.raises(DataError, match="1 names cannot stand in"):
            list(convert(source, target, kind))
        assert not target.exists()
    pairs = Pairs((name, "A/1.png"), np.array([0]), np.array([1]), np.array([True]), np.array([0]))
    with pytest.raises(DataError, match="rename the file or folder"):
        write_pairs(pairs, tmp_path / "pairs.txt")
    assert not (tmp_path / "pairs.txt").exists()


def test_what_convert_writes_convert_reads(tmp_path):
    names = ["Ann Lee/a, b.png", "O'Brien/1.png", "名前/1.png", "A/x 1.png"]
    source = open_source(put(tmp_path, *names))
    write_list(source, tmp_path / "list.txt")
    assert read_list(tmp_path / "list.txt").names == source.names
    pairs = build_pairs([(names[0], names[2], False), (names[1], names[1], True)], np.zeros(2, np.int64))
    write_pairs(pairs, tmp_path / "pairs.txt")
    assert read_pairs(tmp_path / "pairs.txt").images == pairs.images


def test_insightfaces_own_list_and_absolute_paths_inside_the_root(tmp_path):
    put(tmp_path, "images/A/1.png", "images/B/1.png")
    (tmp_path / "faces.lst").write_text(f"1\t{tmp_path}/images/A/1.png\t0\t1 2 3 4\n0\t{tmp_path}/images/B/1.png\t1\n")
    source = open_source(tmp_path / "faces.lst")
    assert source.names == ("A/1.png", "B/1.png")
    assert source.labels.tolist() == [0, 1]
    (tmp_path / "outside.txt").write_text("/etc/A/1.png 0\n")
    with pytest.raises(DataError, match="a path inside the picture folder"):
        open_source(tmp_path / "outside.txt")


def test_list_entries_that_name_no_picture_are_reported(tmp_path):
    put(tmp_path, "A/1.png", "B/1.png")
    (tmp_path / "list.txt").write_text("A/1.png 0\nA/2.png 0\nB/1.png 1\n")
    source = open_source(tmp_path / "list.txt")
    assert source.names == ("A/1.png", "B/1.png")
    assert source.skipped == (("A/2.png", "listed, but there is no such file"),)


def test_a_pair_listed_as_genuine_and_impostor_is_noted(tmp_path, caplog):
    (tmp_path / "pairs.txt").write_text("a/1.jpg b/1.jpg 1\nb/1.jpg a/1.jpg 0\na/1.jpg a/2.jpg 1\nc/1.jpg b/1.jpg 0\n")
    assert len(read_pairs(tmp_path / "pairs.txt")) == 4
    assert "1 pairs are listed as genuine and as impostor, first b/1.jpg and a/1.jpg" in caplog.text


def test_labels_beyond_float32_are_said(tmp_path, caplog):
    from visavis.data.sources.recordio import RecordWriter, pack

    with (tmp_path / "t.rec").open("wb") as record, (tmp_path / "t.idx").open("wb") as index:
        writer = RecordWriter(record, index)
        for key, label in enumerate((0, 2**24, 2**24 + 2), 1):
            writer.write(key, pack(DOT, float(label), id=key))
    with caplog.at_level(logging.WARNING):
        open_source(tmp_path / "t.rec")
    assert "two people may have become one (the largest is 16777218)" in caplog.text


def test_validate_finds_the_shape_that_training_refuses(tmp_path, capsys):
    put(tmp_path, "A/1.png", "A/2.png", "B/1.png")
    (tmp_path / "B/2.png").write_bytes(images.encode(np.zeros((9, 8, 3), np.uint8), ".png"))
    assert main(["validate", str(tmp_path), "--workers", "1", "--json", str(tmp_path / "found.json")]) == 1
    problems = json.loads((tmp_path / "found.json").read_text())["problems"]
    assert "1 pictures of another aspect ratio than the first, which training refuses" in problems


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([[900, 10], [930, 10], [915, 30], [905, 50], [925, 50]], "outside the picture of 112×112"),
        ([[70, 50], [40, 50], [56, 70], [70, 90], [42, 90]], "left and right eye are exchanged"),
        ([[38, 52], [74, 52], [56, 72], [41, 92], [71, 92]], None),
        ([[74, 60], [38, 60], [56, 40], [71, 20], [41, 20]], None),  # upside down is a turn
    ],
)
def test_implausible_landmarks_are_told(points, reason):
    from visavis.vision.alignment import implausible

    said = implausible(points, (112, 112, 3))
    assert said is None if reason is None else reason in said


def test_prepare_rejects_implausible_landmarks_with_the_reason(tmp_path):
    face = np.zeros((112, 112, 3), np.uint8)
    (tmp_path / "A").mkdir()
    for name in ("1", "2"):
        cv2.imwrite(str(tmp_path / "A" / f"{name}.png"), face)
    good = "38 52 74 52 56 72 41 92 71 92"
    (tmp_path / "marks.txt").write_text(f"A/1.png {good}\nA/2.png 74 52 38 52 56 72 71 92 41 92\n")
    assert main(["prepare", str(tmp_path), str(tmp_path / "out"), "--landmarks", str(tmp_path / "marks.txt")]) == 0
    manifest = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert {row["source"]: row["reject"] for row in manifest if "source" in row} == {
        "A/1.png": "",
        "A/2.png": "left and right eye are exchanged, or the landmarks are in another order",
    }


def test_photographs_are_told_from_aligned_crops(tmp_path, caplog):
    """Generated faces in scenes and as crops, through the measurement alone: one is said, the other is not."""
    pytest.importorskip("onnxruntime")
    from visavis.data.photographs import look_like_photographs
    from visavis.synthetic import face
    from visavis.types import Faces
    from visavis.vision.preprocessing import PreprocessSpec

    class Sees:
        """Finds the face where a test has put it: `share` of the crop's size, in the middle."""

        def __init__(self, share):
            self.share = share

        def detect(self, image):
            side = image.shape[0] / 2
            points = np.array([[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]) / 112 * side
            points = (points - side / 2) * self.share + image.shape[0] / 2
            box = np.array([[0, 0, side, side]], np.float32)
            return Faces(box, np.ones(1, np.float32), points[None].astype(np.float32))

    crop = face(0, 0, 0, size=64)[0]
    spec = PreprocessSpec((112, 112))
    names = [f"{i}.png" for i in range(20)]
    assert look_like_photographs(lambda _: crop, names, spec, detector=Sees(0.5))
    assert not look_like_photographs(lambda _: crop, names, spec, detector=Sees(0.95))
    exact = np.zeros((112, 112, 3), np.uint8)
    assert not look_like_photographs(lambda _: exact, names, spec, detector=Sees(0.5))


def test_real_photographs_are_told_from_real_crops(shared):
    from visavis.data.photographs import look_like_photographs
    from visavis.vision.preprocessing import PreprocessSpec

    raw, crops = open_source(shared / "lfw-raw"), open_source(shared / "lfw-dev")
    of = lambda source: lambda name: source.image(source.index_of(name))  # noqa: E731
    assert look_like_photographs(of(raw), raw.names, PreprocessSpec((112, 112)))
    assert not look_like_photographs(of(crops), crops.names, PreprocessSpec((64, 64)))
    left = PreprocessSpec((56, 48), template="sphereface-left")
    assert not look_like_photographs(of(crops), crops.names, left)


def test_crops_with_padding_around_train_as_row_s2_has_them(tmp_path, caplog):
    """116 × 100 crops, of which training cuts 112 × 96: told neither from photographs nor refused before the cut."""
    rng = np.random.default_rng(0)
    for person in range(3):
        (tmp_path / "casia" / f"p{person}").mkdir(parents=True)
        for k in range(4):
            images.write(tmp_path / "casia" / f"p{person}" / f"{k}.png", rng.integers(0, 256, (116, 100, 3), np.uint8))
    words = ["--data", tmp_path / "casia", "--out", tmp_path / "run", "--loop.steps=1", "--loop.batch_size=4"]
    words += ["--loop.device=cpu", "--data.workers=0", "--loop.precision=fp32"]
    assert main([str(word) for word in ("train", "sphereface", *words)]) == 0
    assert "photographs" not in caplog.text
