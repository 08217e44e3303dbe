"""pairs.txt in its dialects, and checking it against pictures."""

import numpy as np
import pytest
from paths import SHARED

from visavis.cli import main
from visavis.data.convert import convert
from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.dialect import Dialect
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.errors import DataError
from visavis.vision import images


def write(tmp_path, text):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    return path


def test_folds_and_names(tmp_path):
    pairs = read_pairs(write(tmp_path, "2\t1\nAnn\t1\t2\nAnn\t3\tBob\t4\nBob\t1\t4\nCy\t1\tAnn\t1\n"))
    assert pairs.images[:3] == ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Ann/Ann_0003.jpg")
    assert pairs.genuine.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert pairs.images[pairs.reference[3]] == "Cy/Cy_0001.jpg"
    assert pairs.images[pairs.probe[3]] == "Ann/Ann_0001.jpg"
    assert len(pairs.images) == len(set(pairs.images)) == 6
    assert pairs.lines == (2, 3, 4, 5)


def test_one_number_is_one_fold(tmp_path):
    pairs = read_pairs(write(tmp_path, "2\nA 1 2\nA 1 3\nA 1 B 1\nA 2 B 1\n"))
    assert pairs.fold.tolist() == [0, 0, 0, 0]


def test_without_header_every_fold_has_both_kinds(tmp_path):
    body = [f"A {i} {i + 1}" for i in range(1, 9)] + [f"A {i} B {i}" for i in range(1, 9)]
    pairs = read_pairs(write(tmp_path, "\n".join(body)), Dialect(folds=4))
    for fold in range(4):
        assert sorted(pairs.genuine[pairs.fold == fold].tolist()) == [False, False, True, True]


def test_extension_and_digits(tmp_path):
    pairs = read_pairs(write(tmp_path, "Ann 1 12"), Dialect(extension=".png", digits=2))
    assert pairs.images == ("Ann/Ann_01.png", "Ann/Ann_12.png")


def test_blanks_in_names_with_tabs(tmp_path):
    pairs = read_pairs(write(tmp_path, "Ann 3 Lee\t1\t2\nAnn 3 Lee\t1\tBob\t4\n"))
    assert pairs.images == ("Ann 3 Lee/Ann 3 Lee_0001.jpg", "Ann 3 Lee/Ann 3 Lee_0002.jpg", "Bob/Bob_0004.jpg")


def test_blanks_in_names_without_tabs(tmp_path):
    pairs = read_pairs(write(tmp_path, "Ann Lee 1 2\nAnn Lee 1 Bob Ray 4\n"))
    assert pairs.genuine.tolist() == [True, False]
    assert pairs.images[-1] == "Bob Ray/Bob Ray_0004.jpg"
    with pytest.raises(DataError, match=r"line 1: .*several readings"):
        read_pairs(write(tmp_path, "Ann 1 Agent 47 2\n"))


def test_path_lines(tmp_path):
    pairs = read_pairs(
        write(tmp_path, "Ann/clip/1.jpg\tBob B/2.png\t0\nAnn\\1.jpg\t./Ann/2.jpg\t1\n"), Dialect(folds=1)
    )
    assert pairs.images == ("Ann/clip/1.jpg", "Bob B/2.png", "Ann/1.jpg", "Ann/2.jpg")
    assert pairs.genuine.tolist() == [False, True]


@pytest.mark.parametrize(
    ("separator", "text"),
    [
        ("comma", "1,1\nAnn Lee,1,2\nAnn Lee,1,Bob,4\n"),
        ("semicolon", "1;1\nAnn Lee; 1; 2\nAnn Lee; 1; Bob; 4\n"),
        ("tab", "1\t1\nAnn Lee\t1\t2\nAnn Lee\t1\tBob\t4\n"),
        ("blank", "1 1\nAnn\tLee 1 2\nAnn\tLee 1 Bob 4\n"),
    ],
)
def test_separators(tmp_path, separator, text):
    pairs = read_pairs(write(tmp_path, text), Dialect(separator=separator))
    assert pairs.images == ("Ann Lee/Ann Lee_0001.jpg", "Ann Lee/Ann Lee_0002.jpg", "Bob/Bob_0004.jpg")
    assert pairs.genuine.tolist() == [True, False]


def test_the_separator_is_named_where_it_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"line 1: .*choose its separator: --pairs-separator comma"):
        read_pairs(write(tmp_path, "Ann,1,2\n"))
    with pytest.raises(DataError, match=r"line 1: expected .*got 'Ann 1 2'"):
        read_pairs(write(tmp_path, "Ann 1 2\n"), Dialect(separator="tab"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extension": "exe"}, "the extension of a picture"),
        ({"digits": 99}, "0 … 12 digits, got 99"),
        ({"separator": "pipe"}, "auto, tab, blank, comma, semicolon"),
        ({"folds": 0}, "at least 1"),
    ],
)
def test_impossible_dialects(values, message):
    with pytest.raises(DataError, match=message):
        Dialect(**values)
    assert Dialect(extension="png").extension == ".png"


def test_dialects_from_the_command_line(tmp_path, capsys):
    """Another extension, unpadded numbers and commas, through each verb that reads pairs without training."""
    for who in ("Ann", "Bob"):
        (tmp_path / "set" / who).mkdir(parents=True)
        for n in range(1, 4):
            image = np.full((8, 8, 3), 40 * n + len(who), np.uint8)
            images.write(tmp_path / "set" / who / f"{who}_{n}.png", image)
    listed = str(write(tmp_path, "Ann,1,2\nBob,1,3\nAnn,1,Bob,2\nAnn,3,Bob,3\n"))
    said = ["--pairs-extension", "png", "--pairs-digits", "0", "--pairs-separator", "comma", "--pairs-folds", "2"]
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "a.bin"), "--pairs", listed, *said]) == 0
    assert "8 pictures" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "b.bin"), "--pairs", listed]) == 2
    assert "--pairs-separator comma" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "b.bin"), "--pairs", listed, *said[:-1], "0"]) == 2
    list(convert(open_source(tmp_path / "a.bin"), tmp_path / "back", "folder"))
    assert len(read_pairs(tmp_path / "back" / "pairs.txt")) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("10 300\n", "got none"),
        ("1 2\nA 1 2\n", r"promises 1 × 2 × 2 = 4 pairs, got 1"),
        ("A 1\n", "line 1: expected .*name n1 n2"),
        ("A 1 2\nA one 2\n", "line 2"),
        ("../x\t1\t2\n", "a name that is a folder's"),
        ("/etc/a.jpg\tb.jpg\t1\n", "inside the picture folder"),
        ("a/../../b.jpg\tb.jpg\t1\n", "inside the picture folder"),
        ("A 1 2\x00\n", "binary file"),
    ],
)
def test_bad_lists_name_the_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_pairs(write(tmp_path, text))


def test_missing_pictures_name_the_line(tmp_path):
    for who in ("Ann", "Bob"):
        (tmp_path / who).mkdir()
        images.write(tmp_path / who / f"{who}_0001.png", np.zeros((8, 8, 3), np.uint8))
    source = open_source(tmp_path)
    pairs = read_pairs(write(tmp_path, "1 1\n\nAnn 1 1\nAnn 1 Bob 1\n"))
    assert check_pairs(pairs, source).tolist() == [0, 1]
    pairs = read_pairs(write(tmp_path, "1 1\n\nAnn 1 1\nAnn 1 Bob 2\n"))
    with pytest.raises(
        DataError, match=r"line 4: .*no picture 'Bob/Bob_0002.jpg'; nearest is 'Bob/Bob_0001.png' \(1 of 2"
    ):
        check_pairs(pairs, source)


@pytest.mark.skipif(not (SHARED / "lfw-dev").is_dir(), reason="needs ../shared/lfw-dev")
def test_lfw_dev():
    source = open_source(SHARED / "lfw-dev")
    assert (len(source), len(source.identities)) == (9502, 4416)
    pairs = read_pairs(SHARED / "lfw-dev" / "pairs.txt")
    assert len(pairs) == 4200
    assert np.bincount(pairs.fold).tolist() == [600] * 7
    assert pairs.genuine.sum() == 2100
    found = check_pairs(pairs, source)
    same = source.labels[found[pairs.reference]] == source.labels[found[pairs.probe]]
    assert np.array_equal(same, pairs.genuine)
