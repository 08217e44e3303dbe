"""A photo library: found once, grouped by person, corrected for good, killed at any moment."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from deployment import BLUE, GREEN, PINK, RED, paint

from visavis.cli import main
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.photo_library import scan as scanning
from visavis.deploy.photo_library.library import run_library
from visavis.deploy.photo_library.store import LibraryStore
from visavis.errors import DataError
from visavis.vision.images import encode, read, write

MODEL = ModelIdentity("colors", 4, "d" * 64)


def checked(image):
    """With light and dark squares over what is drawn, so that there is contrast and nothing is blurred."""
    rows, columns = np.indices(image.shape[:2]) // 3 % 2
    shade = np.where(rows ^ columns, 1.25, 0.75)[..., None]
    return np.where(image > 0, np.clip(image * shade, 26, 255), 0).astype(np.uint8)


def jpeg(*people, **options):
    return encode(checked(paint(*people, **options)), ".png")


@pytest.fixture
def photos(tmp_path):
    """Two days: red alone thrice, red with green, green and blue; a note."""
    folder = tmp_path / "photos"
    (folder / "monday").mkdir(parents=True)
    for i in range(3):
        (folder / "monday" / f"red {i}.png").write_bytes(jpeg(RED, seed=i + 1))
    (folder / "both.png").write_bytes(jpeg(RED, GREEN, size=(300, 500), seed=7))
    (folder / "green.png").write_bytes(jpeg(GREEN, seed=8))
    (folder / "blue.png").write_bytes(jpeg(BLUE, seed=9))
    return folder


@pytest.fixture
def run(recognizer, photos, tmp_path):
    """A run over the photographs as they are now."""

    def go(**options):
        paths = [str(p) for p in sorted(photos.rglob("*.png"))]
        options = {"threshold": 0.9, **options}
        return run_library(recognizer, photos, paths, tmp_path / "out", **options)

    return go


def tree(out):
    """Person -> the pictures in the folder, without the faces' numbers."""
    return {
        folder.name: sorted(p.name.rsplit("-face", 1)[0] for p in folder.iterdir())
        for folder in (out / "people").iterdir()
    }


def face_of(out, image, person=None):
    found = list(out.glob(f"*/{person or '*'}/{image}-face*.jpg"))
    assert len(found) == 1, found
    return int(found[0].stem.rsplit("-face", 1)[1])


def tell(out, people=(), left_out=()):
    told = {"version": 1, "people": list(people), "left_out": list(left_out)}
    (out / "corrections.json").write_text(json.dumps(told))


def test_each_person_has_a_folder_and_a_list_to_enroll(run, tmp_path):
    done = run()
    out = tmp_path / "out"
    assert tree(out) == {"person-1": ["both", "red 0", "red 1", "red 2"], "person-2": ["both", "green"]}
    assert (done.scan.new, done.faces, done.grouping.people, done.grouping.alone) == (6, 7, 2, 1)
    assert [p.name.rsplit("-face", 1)[0] for p in (out / "others").rglob("*.jpg")] == ["blue"]
    lines = [line.split("\t") for line in (out / "enroll.tsv").read_text().splitlines()]
    assert sorted(name for _, name in lines) == ["person-1"] * 4 + ["person-2"] * 2
    assert all((out / path).is_file() for path, _ in lines)
    if os.name == "posix":
        assert out.stat().st_mode & 0o077 == 0
        assert (out / "library.db").stat().st_mode & 0o077 == 0


def test_a_known_picture_is_not_looked_at_again_under_whatever_name(run, photos, recognizer):
    run()
    looked = len(recognizer.embedder.sizes)
    again = run()
    assert (again.scan.known, again.scan.new, again.faces) == (6, 0, 7)
    (photos / "green.png").rename(photos / "monday" / "renamed.png")
    os.utime(photos / "blue.png", (1, 1))
    moved = run()
    assert (moved.scan.known, moved.scan.new, moved.faces) == (6, 0, 7)
    assert len(recognizer.embedder.sizes) == looked
    assert [Path(path).name for path in moved.missing] == ["green.png"]


def test_people_keep_their_numbers_when_pictures_are_added(run, photos, tmp_path):
    run()
    before = (tmp_path / "out" / "people" / "person-2").stat().st_ino
    for i in range(4):
        (photos / f"blue again {i}.png").write_bytes(jpeg(BLUE, seed=20 + i))
        (photos / f"a green {i}.png").write_bytes(jpeg(GREEN, seed=30 + i))
    done = run()
    found = tree(tmp_path / "out")
    assert {name: len(images) for name, images in found.items()} == {"person-1": 4, "person-2": 6, "person-3": 5}
    assert (tmp_path / "out" / "people" / "person-2").stat().st_ino == before
    assert (done.scan.new, done.scan.known, done.grouping.alone) == (8, 6, 0)
    assert not list((tmp_path / "out" / "others").rglob("*.jpg"))


def test_a_picture_that_changed_loses_its_former_faces(run, photos, tmp_path):
    run()
    (photos / "green.png").write_bytes(jpeg(BLUE, seed=40))
    assert run().faces == 7
    assert tree(tmp_path / "out") == {"person-1": ["both", "red 0", "red 1", "red 2"], "person-3": ["blue", "green"]}


def test_an_unread_picture_is_said_and_tried_again(run, photos):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert [Path(path).name for path, _ in run().scan.unread] == ["broken.png"]
    (photos / "broken.png").write_bytes(jpeg(RED, seed=50))
    assert run().scan.new == 1


def test_what_is_gone_is_said_and_erased_when_asked(run, photos, tmp_path):
    run()
    (photos / "both.png").unlink()
    assert run().faces == 7
    done = run(prune=True)
    assert (done.erased, done.faces) == (2, 5)
    assert tree(tmp_path / "out") == {"person-1": ["red 0", "red 1", "red 2"]}


def test_corrections_merge_split_name_and_leave_out_for_good(run, photos, tmp_path):
    run()
    out = tmp_path / "out"
    reds = {name: face_of(out, name, "person-1") for name in ("red 0", "red 1", "red 2", "both")}
    green, blue = face_of(out, "green"), face_of(out, "blue")
    tell(
        out,
        [
            {"person": 1, "name": "Ada", "faces": [reds["red 0"], reds["red 1"], blue]},  # merge
            {"person": None, "name": None, "faces": [reds["red 2"]]},  # split
        ],
        [green],
    )
    corrected = run()
    assert corrected.corrected == 5
    assert not (out / "corrections.json").exists()
    assert (out / "corrections.applied.json").is_file()
    found = tree(out)
    assert set(found["Ada"]) >= {"red 0", "red 1", "blue"}
    alone = next(name for name, images in found.items() if "red 2" in images)
    assert alone != "Ada"
    assert "green" not in str(found)
    for i in range(3):  # more of everybody: what was said stays
        (photos / f"more red {i}.png").write_bytes(jpeg(RED, seed=60 + i))
        (photos / f"more green {i}.png").write_bytes(jpeg(GREEN, seed=70 + i))
    run()
    later = tree(out)
    assert {"red 0", "red 1", "blue"} <= set(later["Ada"])
    assert "red 2" in later[alone]
    assert not any("green" in images for images in later.values())
    assert {"Ada"} <= {line.split("\t")[1] for line in (out / "enroll.tsv").read_text().splitlines()}


def test_poor_faces_make_no_person_until_somebody_says_so(run, photos, tmp_path):
    """Small ones are all alike; told whose they are, they are."""
    for i in range(3):
        (photos / f"small {i}.png").write_bytes(jpeg(PINK, seed=90 + i, size=(200, 200), side=30))
    done = run()
    out = tmp_path / "out"
    assert (done.grouping.poor, done.grouping.alone) == (3, 1)
    assert not any("small" in str(images) for images in tree(out).values())
    tell(out, [{"person": 1, "name": None, "faces": [face_of(out, "red 0"), face_of(out, "small 1")]}])
    assert run().grouping.poor == 2
    assert "small 1" in tree(out)["person-1"]
    assert not any("small" in line for line in (out / "enroll.tsv").read_text().splitlines())


def test_corrections_applied_twice_change_nothing(run, tmp_path):
    run()
    out = tmp_path / "out"
    red, blue = face_of(out, "red 2"), face_of(out, "blue")
    told = [{"person": None, "name": None, "faces": [red]}, {"person": None, "name": "Eve", "faces": [blue]}]
    tell(out, told)
    run()
    first = tree(out)
    tell(out, told)
    run()
    assert tree(out) == first
    assert first["Eve"] == ["blue"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "got no JSON"),
        ("[]", "expected {"),
        ('{"version": 2, "people": []}', "expected {"),
        ('{"version": 1, "people": [{"faces": [0]}]}', "got {"),
        ('{"version": 1, "people": [{"faces": [true]}]}', "got {"),
        ('{"version": 1, "people": [{"faces": []}]}', "got {"),
        ('{"version": 1, "people": [{"faces": [999]}]}', "no face 999"),
        ('{"version": 1, "people": [{"faces": [1]}, {"faces": [1]}]}', "listed twice"),
        ('{"version": 1, "people": [{"faces": [1]}], "left_out": [1]}', "listed twice"),
        ('{"version": 1, "people": [{"person": 77, "faces": [1]}]}', "no person 77"),
        ('{"version": 1, "people": [{"person": 1, "name": "../x", "faces": [1]}]}', "name of a folder"),
        ('{"version": 1, "people": [{"person": 1, "name": "person-9", "faces": [1]}]}', "not person-N"),
        ('{"version": 1, "people": [{"person": 1, "name": "CON\\u0007", "faces": [1]}]}', "control characters"),
        ('{"version": 1, "people": [{"person": 1, "name": "A", "faces": [1]}, '
         '{"person": 2, "name": "a", "faces": [2]}]}', "person 1 already"),
    ],
)  # fmt: skip
def test_a_wrong_corrections_file_changes_nothing(run, tmp_path, text, said):
    run()
    out = tmp_path / "out"
    before = tree(out)
    (out / "corrections.json").write_text(text)
    with pytest.raises(DataError) as caught:
        run()
    assert said in str(caught.value)
    (out / "corrections.json").unlink()
    run()
    assert tree(out) == before


def test_other_files_in_the_folders_stay(run, photos, tmp_path):
    run()
    own = tmp_path / "out" / "people" / "person-2" / "letter.txt"
    own.write_text("dear")
    (photos / "green.png").unlink()
    run(prune=True)
    assert own.read_text() == "dear"
    assert [p.name for p in own.parent.iterdir()] == ["letter.txt"]


def test_what_is_held_in_memory_is_bounded_by_the_batch(run, photos, monkeypatch):
    for i in range(150):
        (photos / f"many {i}.png").write_bytes(jpeg(RED, seed=100 + i, size=(60, 60), side=30))
    held = []
    keep = LibraryStore.keep
    monkeypatch.setattr(scanning, "_SECONDS", 1e9)
    monkeypatch.setattr(LibraryStore, "keep", lambda self, some: (held.append(len(some)), keep(self, some))[1])
    run()
    assert max(held) == 64
    assert sum(held) == 156


def test_another_model_other_settings_and_a_newer_format_are_refused(run, recognizer, tmp_path):
    run(settings={"turn": "auto"})
    out = tmp_path / "out"
    with pytest.raises(DataError, match="made with model 'colors'"):
        LibraryStore(out, MODEL, {"turn": "auto"})
    with pytest.raises(DataError, match="made with --turn 'auto', got 'never'"):
        LibraryStore(out, recognizer.identity, {"turn": "never"})
    with sqlite3.connect(out / "library.db") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    before = (out / "library.db").read_bytes()
    with pytest.raises(DataError, match="newer visavis"):
        LibraryStore(out, recognizer.identity, {"turn": "auto"})
    assert (out / "library.db").read_bytes() == before


def test_a_foreign_or_damaged_file_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "library.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(DataError, match="no photo library"):
        LibraryStore(tmp_path, MODEL, {})
    (tmp_path / "library.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match="damaged"):
        LibraryStore(tmp_path, MODEL, {})


def test_one_run_at_a_time(tmp_path):
    with LibraryStore(tmp_path, MODEL, {}), pytest.raises(DataError, match="another visavis people is at work"):
        LibraryStore(tmp_path, MODEL, {})
    LibraryStore(tmp_path, MODEL, {}).close()


CHILD = """
import sys, time
import numpy as np
from pathlib import Path
from visavis.deploy.photo_library.library import run_library
from visavis.deploy.recognizer import Recognizer
from visavis.models.card import ModelCard
from visavis.vision.preprocessing import PreprocessSpec

class Slow:
    dim = 4
    def embed(self, crops):
        time.sleep(0.002)
        rows = np.concatenate([crops.mean((1, 2)) - 127.5, np.full((len(crops), 1), 5.0)], 1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

card = ModelCard("colors", "fake", 4, PreprocessSpec(), weights_digest="c" * 64)
photos, out = map(Path, sys.argv[1:])
paths = sorted(map(str, photos.glob("*.png")))
done = run_library(Recognizer(Slow(), spec=card.preprocess, card=card), photos, paths, out, threshold=0.9, aligned=True)
print(done.scan.new, done.scan.known)
"""


def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path):
    """SIGKILL while pictures are looked at and while folders are written: nothing is lost, nothing doubled."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i in range(200):
        image = checked(np.full((112, 112, 3), (RED, GREEN, BLUE)[i % 3], np.uint8))
        image[0, :8] = i
        write(photos / f"{i:03d}.png", image)
    command = [sys.executable, "-c", CHILD, str(photos), str(out)]
    kept, kills = [], 0
    for moment, later in ((64, 0), (128, 0.02), (200, 0), (200, 0.05)):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until and child.poll() is None and count(out) < moment:
            time.sleep(0.002)
        time.sleep(later)
        kills += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept.append(count(out))
    assert kills >= 2
    assert kept == sorted(kept)
    assert 0 < kept[0] < 200
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    new, known = map(int, last.stdout.split())
    assert new + known == 200
    assert known >= kept[-1]
    found = tree(out)
    assert sorted(map(len, found.values())) == [66, 67, 67]
    assert len({name for images in found.values() for name in images}) == 200
    with sqlite3.connect(f"{(out / 'library.db').as_uri()}?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*), count(DISTINCT digest) FROM faces").fetchone() == (200, 200)
    db.close()
    assert all(p.stat().st_size for p in out.rglob("*.jpg"))


def count(out):
    """Faces that are kept for good."""
    try:
        db = sqlite3.connect(f"{(out / 'library.db').as_uri()}?mode=ro", uri=True, timeout=5)
    except (sqlite3.OperationalError, ValueError):
        return 0
    try:
        return db.execute("SELECT count(*) FROM faces").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()


def test_the_verb_from_photographs_to_a_gallery(color_model, colored_people, tmp_path, monkeypatch, capsys):
    """As somebody types it, with the library inside the folder of photographs."""
    monkeypatch.chdir(tmp_path)
    for crop in colored_people.rglob("*.png"):
        write(crop, checked(read(crop)))
    words = ["people", "people", "--out", "people/sorted", "--model", str(color_model), "--aligned", "--workers", "1"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["new"], said["faces"], said["people"], said["like_no_other"]) == (6, 6, 3, 0)
    assert main(words) == 0
    assert "0 pictures looked at, 6 known" in capsys.readouterr().out
    gallery = ["enroll", "g.db", "people/sorted/enroll.tsv", "--model", str(color_model), "--aligned", "--json"]
    assert main(gallery) == 0
    assert sorted(e["name"] for e in json.loads(capsys.readouterr().out)["enrolled"]) == [
        "person-1", "person-2", "person-3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["people", "nowhere", "--out", "o", "--model", "M"], "expected a folder of photographs"),
        (["people", "people", "--out", ".", "--model", "M"], "another folder than PHOTOS"),
        (["people", "people", "--out", "people", "--model", "M"], "another folder than PHOTOS"),
        (["people", "people", "--out", "o", "--model", "M", "--min-faces", "1"], "--min-faces must be at least 2"),
        (["people", "people", "--out", "o", "--model", "M", "--workers", "0"], "--workers must be 1 or more"),
        (["people", "people", "--out", "o", "--model", "M", "--fmr", "1e-6"], "calibrated at the false match rates"),
    ],
)
def test_a_mistake_is_one_line(words, said, color_model, colored_people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(color_model) if word == "M" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_threshold_decides_at_its_very_boundary(run, photos, tmp_path):
    for image in photos.rglob("*.png"):
        image.unlink()
    (photos / "red.png").write_bytes(jpeg(RED, seed=1))
    (photos / "pink.png").write_bytes(jpeg(PINK, seed=80))
    run()
    with sqlite3.connect(tmp_path / "out" / "library.db") as db:
        a, b = (np.frombuffer(row[0], np.float32) for row in db.execute("SELECT embedding FROM faces"))
    db.close()
    run(threshold=float(a @ b) + 1e-4)
    assert list((tmp_path / "out").glob("people/*/*")) == []
    run(threshold=float(a @ b) - 1e-4)
    assert list(tree(tmp_path / "out").values()) == [["pink", "red"]]
