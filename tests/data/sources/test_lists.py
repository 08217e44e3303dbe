"""Lists of pictures: dialects, errors with lines, sources and round trips."""

import numpy as np
import pytest

from visavis.data.sources import open_source
from visavis.data.sources.lists import open_list, read_list, write_list
from visavis.errors import DataError
from visavis.vision import images

FIVE = "30 50 65 51 48 71 33 92 62 93"


def listing(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    return read_list(tmp_path / "list.txt")


def test_sphereface_lists(tmp_path):
    """Row S1: CASIA's has a label, LFW's has none; both are TAB-separated."""
    five = FIVE.replace(" ", "\t")
    found = listing(tmp_path, f"0000045/001.jpg\t7\t{five}\nAnn Lee/Ann Lee_0001.jpg\t{five}\n")
    assert found.names == ("0000045/001.jpg", "Ann Lee/Ann Lee_0001.jpg")
    assert found.labels == ("7", None)
    points = found.landmarks[1]
    assert points is not None
    assert points.tolist() == [[30, 50], [65, 51], [48, 71], [33, 92], [62, 93]]


@pytest.mark.parametrize(
    ("line", "name", "label"),
    [
        ("a/b.jpg 3", "a/b.jpg", "3"),
        ("a/b.jpg,3", "a/b.jpg", "3"),
        ("Ann Lee/b c.png 12", "Ann Lee/b c.png", "12"),
        ("a.jpg/b 1.jpg 4", "a.jpg/b 1.jpg", "4"),
        ("a/b.JPG", "a/b.JPG", None),
        ("17\t3.000000\ta/b.jpg", "a/b.jpg", "3.000000"),
        ("./a\\b.jpg\tAnn", "a/b.jpg", "Ann"),
    ],
)
def test_dialects(tmp_path, line, name, label):
    found = listing(tmp_path, line)
    assert (found.names, found.labels) == ((name,), (label,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("a/b.jpg 1\nnonsense\n", "line 2: expected `path`"),
        ("a/b.jpg 1 2 3\n", "line 1: expected `path`"),
        (f"a/b.jpg {FIVE} 1 2\n", "line 1: expected `path`"),
        (f"a/b.jpg {FIVE.replace('30', 'x')}\n", "ten finite coordinates"),
        (f"a/b.jpg {FIVE.replace('30', 'nan')}\n", "ten finite coordinates"),
        ("a/b.jpg 1\na/b.jpg 2\n", "line 2: 'a/b.jpg' is already on line 1"),
        ("../b.jpg 1\n", "inside the picture folder"),
        ("/b.jpg 1\n", "inside the picture folder"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        listing(tmp_path, text)


def test_a_list_is_a_source(tmp_path):
    for name in ("x/1.png", "x/2.png", "y/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        images.write(tmp_path / "images" / name, np.full((8, 8, 3), 9, np.uint8))
    (tmp_path / "list.txt").write_text("y/1.png 10\nx/1.png 9\nx/2.png 10\n")
    source = open_source(tmp_path / "list.txt")
    assert source.identities == ("9", "10")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.image(2)[0, 0].tolist() == [9, 9, 9]
    (tmp_path / "bare.txt").write_text("y/1.png\nx/1.png\n")
    assert open_list(tmp_path / "bare.txt").identities == ("x", "y")
    (tmp_path / "off.txt").write_text("z/1.png 1\n")
    with pytest.raises(DataError, match=r"'z/1.png' is neither in"):
        open_source(tmp_path / "off.txt")


def test_round_trip(tmp_path):
    folder = tmp_path / "images" / "Ann Lee"
    folder.mkdir(parents=True)
    images.write(folder / "1.png", np.zeros((8, 8, 3), np.uint8))
    source = open_source(tmp_path)
    points = np.array([float(v) for v in FIVE.split()]).reshape(5, 2)
    write_list(source, tmp_path / "list.txt", landmarks=[points])
    found = read_list(tmp_path / "list.txt")
    assert (found.names, found.labels) == (("Ann Lee/1.png",), ("0",))
    assert np.array_equal(found.landmarks[0], points)
