"""visavis convert: every way there and back keeps bytes, names, labels and pairs."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.cli import main
from visavis.data.convert import convert, to_folder
from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.errors import DataError
from visavis.vision import images

NAMES = st.text(st.sampled_from("abzÄé 0129_-"), min_size=1, max_size=6).filter(lambda s: s.strip() == s)
PEOPLE = st.dictionaries(
    NAMES, st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), min_size=1, max_size=4
)
JPEG = images.encode(np.zeros((8, 8, 3), np.uint8), ".jpg")


def laid_out(folder, people):
    """Each person's pictures: one JPEG with bytes of its own behind its end, so that every file differs."""
    for who, extras in people.items():
        (folder / who).mkdir(parents=True)
        for n, extra in enumerate(extras):
            (folder / who / f"{n}.jpg").write_bytes(JPEG + extra)
    return open_source(folder)


def content(source):
    return {name: (source.read(i), source.identities[source.labels[i]]) for i, name in enumerate(source.names)}


@settings(max_examples=10, deadline=None)
@given(PEOPLE)
def test_folder_to_records_and_back(tmp_path_factory, people):
    tmp = tmp_path_factory.mktemp("c")
    source = laid_out(tmp / "a", people)
    list(convert(source, tmp / "b", "record"))
    records = open_source(tmp / "b")
    assert content(records) == content(source)
    list(convert(records, tmp / "c", "folder"))
    assert content(open_source(tmp / "c")) == content(source)


@settings(max_examples=10, deadline=None)
@given(PEOPLE, st.data())
def test_pairs_to_bin_to_folder_and_pairs(tmp_path_factory, people, data):
    tmp = tmp_path_factory.mktemp("c")
    source = laid_out(tmp / "a", people)
    name = st.sampled_from(source.names)
    rows = data.draw(st.lists(st.tuples(name, name), min_size=1, max_size=6))
    lines = [f"{a}\t{b}\t{int(a.split('/')[0] == b.split('/')[0])}" for a, b in rows]
    (tmp / "pairs.txt").write_text("\n".join(lines))
    pairs = read_pairs(tmp / "pairs.txt")
    list(convert(source, tmp / "x.bin", "bin", pairs=pairs))
    expected = [source.read(source.index_of(n)) for row in rows for n in row]
    assert pickle.loads((tmp / "x.bin").read_bytes()) == (expected, pairs.genuine.tolist())
    list(convert(open_source(tmp / "x.bin"), tmp / "d", "folder"))
    again, back = read_pairs(tmp / "d" / "pairs.txt"), open_source(tmp / "d")
    at = check_pairs(again, back)
    ends = np.stack([at[again.reference], at[again.probe]], 1).ravel()
    assert [back.read(int(i)) for i in ends] == expected
    assert again.genuine.tolist() == pairs.genuine.tolist()
    list(convert(source, tmp / "m", "mass", pairs=pairs))
    mass, folders = read_pairs(tmp / "m" / "lfw_pair.txt"), open_source(tmp / "m")
    at = check_pairs(mass, folders)
    assert [folders.read(int(i)) for i in np.stack([at[mass.reference], at[mass.probe]], 1).ravel()] == expected
    assert mass.genuine.tolist() == pairs.genuine.tolist()


@settings(max_examples=10, deadline=None)
@given(PEOPLE)
def test_list_and_back(tmp_path_factory, people):
    tmp = tmp_path_factory.mktemp("c")
    source = laid_out(tmp / "images", people)
    list(convert(source, tmp / "list.txt", "list"))
    listed = open_source(tmp / "list.txt")
    assert [listed.read(i) for i in range(len(listed))] == [source.read(i) for i in range(len(source))]
    assert listed.labels.tolist() == source.labels.tolist()
    list(to_folder(listed, tmp / "out"))
    again = open_source(tmp / "out")
    assert sorted(v[0] for v in content(again).values()) == sorted(v[0] for v in content(source).values())
    assert len(again.identities) == len(source.identities)


def test_an_interrupted_folder_goes_on(tmp_path):
    source = laid_out(tmp_path / "a", {"Ann": [b"1", b"2"], "Bob": [b"3"]})
    list(convert(source, tmp_path / "r", "record"))
    run = convert(open_source(tmp_path / "r"), tmp_path / "b", "folder")
    next(run)
    first = next((tmp_path / "b").rglob("*.jpg"))
    stamp = first.stat().st_mtime_ns
    list(convert(open_source(tmp_path / "r"), tmp_path / "b", "folder"))
    assert first.stat().st_mtime_ns == stamp
    assert content(open_source(tmp_path / "b")) == content(source)


def test_extensions_follow_the_bytes(tmp_path):
    (tmp_path / "a" / "Ann").mkdir(parents=True)
    (tmp_path / "a" / "Ann" / "1.jpg").write_bytes(images.encode(np.zeros((8, 8, 3), np.uint8), ".png"))
    list(to_folder(open_source(tmp_path / "a"), tmp_path / "b"))
    assert open_source(tmp_path / "b").names == ("Ann/1.png",)


def test_names_that_would_leave_the_folder(tmp_path):
    source = laid_out(tmp_path / "a", {"Ann": [b"1"]})
    (tmp_path / "evil.jpg").write_bytes(JPEG)
    source.names = ("../evil.jpg",)
    with pytest.raises(DataError, match="outside the folder"):
        list(to_folder(source, tmp_path / "b"))


def test_command_line(tmp_path, capsys):
    laid_out(tmp_path / "src" / "images", {"Ann": [b"1", b"2"], "Bob": [b"3"]})
    (tmp_path / "src" / "pairs.txt").write_text("1 1\nAnn/0.jpg Ann/1.jpg 1\nAnn/0.jpg Bob/0.jpg 0\n")
    src, out = str(tmp_path / "src"), tmp_path / "out"
    assert main(["convert", src, str(out / "train.rec")]) == 0
    assert "3 pictures of 2 identities" in capsys.readouterr().out
    assert main(["convert", str(out), str(tmp_path / "back")]) == 0
    assert main(["convert", src, str(tmp_path / "lfw.bin")]) == 0
    assert main(["convert", str(tmp_path / "lfw.bin"), str(tmp_path / "from_bin")]) == 0
    assert len(read_pairs(tmp_path / "from_bin" / "pairs.txt")) == 2
    assert main(["convert", src, str(tmp_path / "src" / "list.txt")]) == 0
    capsys.readouterr()
    assert main(["convert", str(out), str(tmp_path / "b.bin")]) == 2
    assert "--pairs FILE" in capsys.readouterr().err
    assert main(["convert", src, src]) == 2
    capsys.readouterr()
    assert main(["convert", str(out), str(tmp_path / "x.tfrecord")]) == 2
    assert "cannot write .tfrecord files; DST is a folder, .rec, .bin" in capsys.readouterr().err


def test_damaged_records_are_counted(tmp_path, capsys):
    source = laid_out(tmp_path / "a", {"Ann": [b"1", b"2"], "Bob": [b"3"]})
    list(convert(source, tmp_path / "r", "record"))
    data = bytearray((tmp_path / "r" / "train.rec").read_bytes())
    offset = int((tmp_path / "r" / "train.idx").read_text().split("\n")[2].split("\t")[1])
    data[offset] ^= 255
    (tmp_path / "r" / "train.rec").write_bytes(data)
    assert main(["convert", str(tmp_path / "r"), str(tmp_path / "b")]) == 2
    assert f"damaged at byte {offset}" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "r"), str(tmp_path / "b"), "--skip-damaged"]) == 0
    assert "left out: record 2: damaged at byte" in capsys.readouterr().out
    assert len(open_source(tmp_path / "b")) == 2


KILLED = """
import os, sys
from pathlib import Path
from visavis.data.convert import convert
from visavis.data.sources import open_source
for done in convert(open_source(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]):
    if done == 7:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["record", "folder"])
def test_killed_and_run_again_gives_the_same_bytes(tmp_path, kind):
    """SIGKILL midway, nothing flushed: what an uninterrupted run writes comes out, and nothing is left over."""
    people = {f"P{k}": [bytes([k, n]) * 5000 for n in range(4)] for k in range(3)}
    source = laid_out(tmp_path / "a", people)
    if kind == "folder":
        list(convert(source, tmp_path / "r", "record"))
        source = open_source(tmp_path / "r")
    run = subprocess.run([sys.executable, "-c", KILLED, str(source.path), str(tmp_path / "b"), kind], check=False)
    assert run.returncode == -9
    list(convert(source, tmp_path / "b", kind))
    list(convert(source, tmp_path / "whole", kind))
    files = [
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "b", tmp_path / "whole")
    ]
    assert files[0] == files[1]
    assert len(files[1]) in (4, 12)
