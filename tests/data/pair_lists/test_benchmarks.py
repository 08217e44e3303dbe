"""The lists benchmarks come with: CALFW and CPLFW, CFP, AgeDB-30, MassFace's folders."""

import numpy as np
import pytest

from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.benchmarks import read_cfp, read_two_lines, read_video_pairs
from visavis.data.pair_lists.dialect import Dialect
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.errors import DataError
from visavis.vision import images


def test_calfw_with_folds(tmp_path):
    lines = [f"A_{k:04d}.jpg {fold}\nA_{k + 1:04d}.jpg {fold}" for k, fold in enumerate([1, 1, 2, 2])]
    lines += [f"B_{k:04d}.jpg 0\nC_{k:04d}.jpg 0" for k in range(4)]
    (tmp_path / "pairs_CALFW.txt").write_text("\n".join(lines))
    pairs = read_pairs(tmp_path / "pairs_CALFW.txt")
    assert pairs.genuine.tolist() == [True] * 4 + [False] * 4
    assert pairs.fold.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert pairs.images[pairs.probe[4]] == "C/C_0000.jpg"
    assert pairs.lines[1] == 3


def test_cplfw_without_folds_and_names_without_folder(tmp_path):
    body = "".join(f"Ann_{k}.jpg 1\nAnn_{k + 1}.jpg 1\n" for k in range(20))
    body += "".join(f"Ann_{k}.jpg 0\nBob_0.jpg 0\n" for k in range(20))
    (tmp_path / "pairs_CPLFW.txt").write_text(body)
    pairs = read_pairs(tmp_path / "pairs_CPLFW.txt")
    assert np.bincount(pairs.fold).tolist() == [4] * 10
    for who, count in (("Ann", 21), ("Bob", 1)):
        (tmp_path / "set" / who).mkdir(parents=True)
        for k in range(count):
            (tmp_path / "set" / who / f"{who}_{k}.png").write_bytes(b"x")
    assert (check_pairs(pairs, open_source(tmp_path / "set")) >= 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 1\nb.jpg 0\n", "line 2: the two lines of a pair must say the same"),
        ("a.jpg 1\nb.jpg 1\nc.jpg 1\n", "line 3: expected two lines a pair"),
        ("a.jpg 1\nb.jpg one\n", "line 2: expected `picture fold`"),
        ("a.jpg 1\n../b.jpg 1\n", "inside the picture folder"),
    ],
)
def test_bad_two_line_lists(tmp_path, text, message):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_two_lines(tmp_path / "p.txt")


def test_agedb_lists(tmp_path):
    """The list in use has paths and 1 or −1."""
    (tmp_path / "agedb_30_pair.txt").write_text("a/1.jpg a/2.jpg 1\na/1.jpg b/1.jpg -1\n")
    assert read_pairs(tmp_path / "agedb_30_pair.txt", Dialect(folds=1)).genuine.tolist() == [True, False]


def cfp(tmp_path):
    folder = tmp_path / "Protocol"
    for kind in ("FF", "FP"):
        for fold in ("01", "02", "10"):
            part = folder / "Split" / kind / fold
            part.mkdir(parents=True)
            (part / "same.txt").write_text("1,2\n2,1\n")
            (part / "diff.txt").write_text("1,3\n3,1\n")
    (folder / "Pair_list_F.txt").write_text("".join(f"{k} ../Data/Images/{k:03d}/frontal/01.jpg\n" for k in (1, 2, 3)))
    (folder / "Pair_list_P.txt").write_text("".join(f"{k} ../Data/Images/{k:03d}/profile/01.jpg\n" for k in (1, 2, 3)))
    return folder


def test_cfp(tmp_path):
    folder = cfp(tmp_path)
    pairs = read_pairs(folder)
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert pairs.genuine[:4].tolist() == [True, True, False, False]
    assert pairs.images[pairs.reference[2]] == "001/frontal/01.jpg"
    assert pairs.images[pairs.probe[2]] == "003/profile/01.jpg"
    ff = read_pairs(folder / "Split" / "FF")
    assert ff.images[ff.probe[2]] == "003/frontal/01.jpg"
    assert read_cfp(tmp_path, kind="FF").images == ff.images


def test_bad_cfp(tmp_path):
    folder = cfp(tmp_path)
    (folder / "Split" / "FP" / "02" / "diff.txt").write_text("1,3\n9,1\n")
    with pytest.raises(DataError, match=r"02/diff.txt, line 2: expected `number,number`"):
        read_pairs(folder)
    with pytest.raises(DataError, match="FF and FP"):
        read_cfp(folder, kind="PP")
    with pytest.raises(DataError, match="cannot read the list"):
        read_cfp(tmp_path / "none")


def test_massface_folders(tmp_path):
    """Row M1; the two pictures in natural order, not the file system's (row M20)."""
    for pair in ("0", "1"):
        (tmp_path / "lfw_112x112" / pair).mkdir(parents=True)
        for name in ("10.png", "9.png"):
            images.write(tmp_path / "lfw_112x112" / pair / name, np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "lfw_pair.txt").write_text("0 1\n1 0\n")
    pairs = read_pairs(tmp_path / "lfw_pair.txt", Dialect(folds=1))
    assert pairs.images == ("0/9.png", "0/10.png", "1/9.png", "1/10.png")
    assert pairs.genuine.tolist() == [True, False]
    (tmp_path / "lfw_112x112" / "1" / "10.png").unlink()
    with pytest.raises(DataError, match=r"line 2: expected two pictures in .*, got 1 pictures"):
        read_pairs(tmp_path / "lfw_pair.txt")
    (tmp_path / "lfw_pair.txt").write_text("0 1\n1 2\n")
    with pytest.raises(DataError, match=r"line 2: expected `PAIR 0\|1`"):
        read_pairs(tmp_path / "lfw_pair.txt")


def test_video_pairs(tmp_path):
    path = tmp_path / "splits.txt"
    path.write_text("split, first, second, similarity, same\n1, Ann/0, Bob/1, 0.25, 0\n2, Ann/0, Ann/1, 0.5, 1\n")
    pairs = read_video_pairs(path)
    assert (pairs.images, pairs.genuine.tolist(), pairs.fold.tolist()) == (
        ("Ann/0", "Bob/1", "Ann/1"),
        [False, True],
        [1, 2],
    )
    path.write_text("1, Ann/0, Bob/1, 0.25, 0\n2, Ann/0, Ann/1, 0.5, yes\n")
    with pytest.raises(DataError, match=r"line 2: expected `split, video, video, similarity, 0\|1`"):
        read_video_pairs(path)
    path.write_text("split, first, second, similarity, same\n")
    with pytest.raises(DataError, match="got none"):
        read_video_pairs(path)


def test_calfw_as_it_is_distributed(tmp_path):
    """All pictures side by side in one folder whose name has a blank, the list beside it."""
    from visavis.evaluate.protocols.pairs import PairProtocol
    from visavis.evaluate.protocols.registry import load_protocol

    rng = np.random.default_rng(0)
    (tmp_path / "aligned images").mkdir()
    lines = []
    for k in range(20):
        for n in (1, 2):
            image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            images.write(tmp_path / "aligned images" / f"P{k:02d}_{n:04d}.jpg", image)
        other = f"P{k:02d}_0002.jpg" if k % 2 else f"P{(k + 1) % 20:02d}_0002.jpg"
        lines += [f"P{k:02d}_0001.jpg {k // 2 + 1 if k % 2 else 0}", f"{other} {k // 2 + 1 if k % 2 else 0}"]
    (tmp_path / "pairs_CALFW.txt").write_text("\n".join(lines))
    task = load_protocol("calfw", tmp_path)
    assert task.images(task.protocol.images[0]).shape == (16, 16, 3)
    assert isinstance(task.protocol, PairProtocol)
    assert len(np.unique(task.protocol.subjects)) == 20
