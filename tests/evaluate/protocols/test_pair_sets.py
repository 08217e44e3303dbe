"""Sets as their authors ship them: folders of any name, lists of any dialect, pictures that are missing."""

import json

import numpy as np
import pytest

from visavis.cli import main
from visavis.data.pair_lists.base import build_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.errors import DataError, ProtocolError
from visavis.evaluate.protocols.pairs import subjects_of
from visavis.evaluate.protocols.registry import load_protocol
from visavis.vision import images

PEOPLE = ("Ann_Lee", "Bob", "Cy_Young")


def put(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, np.full((8, 8, 3), shade, np.uint8))


def pairs_of(root, name, lines):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")
    return root


def subjects(task):
    return [int(s) for s in task.protocol.subjects]


def test_pictures_one_folder_down_are_found(tmp_path):
    """XQLFW: pairs.txt beside xqlfw_aligned_112/NAME/NAME_0001.jpg."""
    root = pairs_of(tmp_path, "xqlfw_pairs.txt", ["1\t1", "Ann_Lee\t1\t2", "Ann_Lee\t1\tBob\t1"])
    for file in ("Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0002", "Bob/Bob_0001"):
        put(root / f"xqlfw_aligned_112/{file}.png", 9)
    task = load_protocol("xqlfw", root)
    assert subjects(task) == [0, 0, 1]
    assert [task.images(n).shape for n in task.protocol.images] == [(8, 8, 3)] * 3


def test_flat_pictures_have_their_subjects_from_their_names(tmp_path):
    """CALFW: `aligned images/NAME_0001.jpg` side by side, two lines a pair."""
    lines = ["Ann_Lee_0001.jpg 1", "Ann_Lee_0002.jpg 1", "Ann_Lee_0001.jpg 0", "Bob_0001.jpg 0"]
    root = pairs_of(tmp_path, "pairs_CALFW.txt", lines)
    for shade, file in enumerate(("Ann_Lee_0001", "Ann_Lee_0002", "Bob_0001")):
        put(root / f"aligned images/{file}.png", shade)
    task = load_protocol("calfw", root)
    assert subjects(task) == [0, 0, 1]
    assert task.images("Bob_0001.jpg")[0, 0, 0] == 2


def test_agedb_and_its_list_as_it_circulates(tmp_path):
    names = ["1_AnnLee_30_f", "2_AnnLee_62_f", "3_Bob_41_m"]
    lines = [f"1 agedb_30_112x112/{names[0]}.jpg agedb_30_112x112/{names[1]}.jpg"]
    lines.append(f"0 agedb_30_112x112/{names[0]}.jpg agedb_30_112x112/{names[2]}.jpg")
    root = pairs_of(tmp_path, "agedb_30_ann.txt", lines)
    for name in names:
        put(root / f"agedb_30_112x112/{name}.png", 9)
    task = load_protocol("agedb-30", root)
    assert task.protocol.pairs.genuine.tolist() == [True, False]
    assert subjects(task) == [0, 0, 1]  # one folder for all of them is not read as one subject


def test_names_that_contradict_the_list_say_nothing_of_subjects():
    rows = [("a/1.jpg", "a/2.jpg", False), ("a/1.jpg", "b/1.jpg", True)]
    assert subjects_of(build_pairs(rows, np.zeros(2, int))).tolist() == [-1, -1, -1]


def test_tinyface_and_youtube_faces_in_their_own_roots(tmp_path):
    for person in range(3):
        put(tmp_path / f"tiny/Testing_Set/Gallery_Match/{person}_1.png", person)
        put(tmp_path / f"tiny/Testing_Set/Probe/{person}_2.png", person)
        for video in range(2):
            put(tmp_path / f"ytf/aligned_images_DB/p{person}/{video}/{video}.7.png", person)
    put(tmp_path / "tiny/Testing_Set/Gallery_Distractor/9.png", 9)
    assert len(load_protocol("tinyface", tmp_path / "tiny").protocol.gallery) == 4
    pairs_of(tmp_path / "ytf", "splits.txt", ["split, a, b, s, same", "1, p0/0, p0/1, 1, 1", "2, p0/0, p1/1, 0, 0"])
    task = load_protocol("youtube-faces", tmp_path / "ytf")
    assert task.protocol.describe()["videos"] == 3
    assert subjects(task) == [0, 0, 1]


def test_several_lists_want_a_choice(tmp_path):
    pairs_of(tmp_path, "a_pairs.txt", ["x"])
    pairs_of(tmp_path, "b_pairs.txt", ["x"])
    with pytest.raises(ProtocolError, match=r"a_pairs\.txt, b_pairs\.txt; choose with --pairs FILE"):
        load_protocol("pairs", tmp_path)


@pytest.mark.parametrize("line", ["2 a.jpg b.jpg", "1 a.jpg ../b.jpg", "1 a.jpg /b.jpg", "1 a.jpg b.doc"])
def test_damaged_annotation_lists_are_refused(tmp_path, line):
    path = pairs_of(tmp_path, "x_ann.txt", ["1 a.jpg b.jpg", line]) / "x_ann.txt"
    with pytest.raises(DataError, match="line 2"):
        read_pairs(path)


def many_missing(root, people=3000):
    lines = [f"Person_{k:05d}\t1\t2" for k in range(people)]
    lines += [f"Person_{k:05d}\t1\tPerson_{(k + 1) % people:05d}\t1" for k in range(people)]
    root = pairs_of(root, "pairs.txt", lines)
    for k in range(0, people, 100):
        put(root / f"images/Other_{k:05d}/Other_{k:05d}_0001.png", 9)
    return root


def test_thousands_of_missing_pictures_are_told_at_once(tmp_path):
    import time

    root = many_missing(tmp_path)
    started = time.process_time()
    with pytest.raises(DataError, match=r"line 1: .*6000 of 6000 pictures are missing.*--allow-missing"):
        load_protocol("pairs", root)
    assert time.process_time() - started < 5  # a nearest name was once looked for 6,000 times: minutes


def test_allowed_missing_pictures_are_failures_to_acquire(tmp_path, monkeypatch, capsys, write_color_model):
    from visavis.evaluate.pixel_baseline import PixelEmbedder

    lines = ["2\t2"]
    for fold in range(2):
        a, b = PEOPLE[fold], PEOPLE[fold + 1]
        lines += [f"{a}\t1\t2", f"{b}\t1\t2", f"{a}\t1\t{b}\t1", f"{a}\t2\t{b}\t2"]
    root = pairs_of(tmp_path, "pairs.txt", lines)
    rng = np.random.default_rng(0)
    for person in PEOPLE:
        for k in (1, 2):
            path = root / f"images/{person}/{person}_{k:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, rng.integers(0, 255, (8, 8, 3)).astype(np.uint8))
    (root / "images/Bob/Bob_0002.png").unlink()
    monkeypatch.setattr("visavis.models.load.load_embedder", lambda *_, **__: PixelEmbedder())
    argv = ["evaluate", str(root / "none"), "--data", str(root), "--bootstrap", "0", "--no-baseline"]
    write_color_model(root / "none")
    monkeypatch.setattr("visavis.cli.evaluate._about", lambda *_: {})
    monkeypatch.setattr("visavis.data.validate.trained_on.read_trained_on", lambda _: None)
    assert main(argv) == 2
    assert "--allow-missing" in capsys.readouterr().err
    out = tmp_path / "r.json"
    assert main([*argv, "--allow-missing", "--json", str(out)]) == 0
    body = json.loads(out.read_text())
    assert body["failures_to_acquire"]["reasons"] == {"Bob/Bob_0002.jpg": "missing from the data"}
    assert body["comparisons"] == {"total": 8, "genuine": 4, "impostor": 4, "failed_to_acquire": 4}
