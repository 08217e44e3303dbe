"""Folders of pictures as sources: order, labels, what is skipped, filters, bad folders."""

import os
import pickle

import numpy as np
import pytest

from visavis.data.sources import open_source, read_identities
from visavis.data.sources.folder import holds_only_images
from visavis.errors import DataError
from visavis.vision import images


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def faces(tmp_path):
    for who, count in (("Zoe", 1), ("Ann", 11), ("Bob 2", 2), ("Bob 10", 1)):
        (tmp_path / who).mkdir()
        for n in range(1, count + 1):
            images.write(tmp_path / who / f"{who}_{n}.png", image(n))
    return tmp_path


def test_order_is_natural_and_labels_are_contiguous(faces):
    source = open_source(faces)
    assert source.identities == ("Ann", "Bob 2", "Bob 10", "Zoe")
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0] * 11 + [1, 1, 2, 3]
    assert source.names[:11] == tuple(f"Ann/Ann_{n}.png" for n in range(1, 12))
    assert len(source) == 15


def test_picture_and_bytes(faces):
    source = open_source(faces)
    assert source.read(2) == (faces / "Ann" / "Ann_3.png").read_bytes()
    assert np.array_equal(source.image(2), image(3))


def test_an_images_folder_is_entered(faces, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    os.symlink(faces, outer / "images")
    assert open_source(outer).names == open_source(faces).names


def test_an_identity_called_images_stays_one(faces):
    (faces / "images").mkdir()
    images.write(faces / "images" / "1.png", image(0))
    assert "images" in open_source(faces).identities


def test_clips_belong_to_the_person_above_them(faces):
    (faces / "Zoe" / "clip1").mkdir()
    images.write(faces / "Zoe" / "clip1" / "7.png", image(7))
    source = open_source(faces)
    assert "Zoe/clip1/7.png" in source.names
    assert len(source.identities) == 4


def test_what_is_no_picture_is_listed(faces):
    (faces / "Ann" / "notes.txt").write_text("x")
    (faces / "empty").mkdir()
    (faces / "list.csv").write_text("x")
    images.write(faces / "loose.png", image(0))
    (faces / "Zoe" / "gone.png").symlink_to(faces / "nowhere.png")
    skipped = dict(open_source(faces).skipped)
    assert skipped["Ann/notes.txt"] == "not a picture"
    assert skipped["empty"] == "a folder without pictures"
    assert skipped["list.csv"] == "not a picture"
    assert "outside" in skipped["loose.png"]
    assert "broken link" in skipped["Zoe/gone.png"]


def test_a_link_in_a_circle_ends(faces):
    (faces / "Ann" / "again").symlink_to(faces / "Ann")
    source = open_source(faces)
    assert len(source) == 15
    assert ("Ann/again", "a link back to a folder above") in source.skipped


def test_only_and_without_renumber(faces):
    source = open_source(faces)
    some = source.only(["Zoe", "Bob 2"])
    assert some.identities == ("Bob 2", "Zoe")
    assert some.labels.tolist() == [0, 0, 1]
    assert np.array_equal(some.image(2), source.image(14))
    rest = source.without(["Ann"])
    assert rest.identities == ("Bob 2", "Bob 10", "Zoe")
    assert rest.read(3) == source.read(14)


def test_only_names_the_unknown_and_the_nearest(faces):
    with pytest.raises(DataError, match=r"1 of 2 listed identities .* 'Anne' \(nearest is 'Ann'\)"):
        open_source(faces).only(["Anne", "Zoe"])
    with pytest.raises(DataError, match="selection is empty"):
        open_source(faces).only([])


def test_index_of_finds_another_extension(faces):
    source = open_source(faces)
    assert source.index_of("Ann/Ann_2.jpg") == 1
    with pytest.raises(DataError, match=r"no picture 'Ann/Ann_12.png'; nearest is 'Ann/Ann_"):
        source.index_of("Ann/Ann_12.png")


def test_a_source_travels_to_a_worker(faces):
    source = open_source(faces).only(["Ann"])
    assert pickle.loads(pickle.dumps(source)).read(4) == source.read(4)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="expected one folder of pictures per identity"):
        open_source(tmp_path)


def test_pictures_without_folders(tmp_path):
    images.write(tmp_path / "1.png", image(1))
    with pytest.raises(DataError, match="1 pictures with no folder around them"):
        open_source(tmp_path)
    flat = open_source(tmp_path, kind="flat")
    assert flat.names == flat.identities == ("1.png",)


def test_one_identity_is_too_few_to_train(tmp_path):
    (tmp_path / "Ann").mkdir()
    images.write(tmp_path / "Ann" / "1.png", image(1))
    assert len(open_source(tmp_path)) == 1
    with pytest.raises(DataError, match=r"at least 2 identities, got 1 \(Ann\)"):
        open_source(tmp_path, min_identities=2)


def test_nothing_there_and_unknown_kind(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(DataError, match=r"got a \.xyz file"):
        open_source(tmp_path / "a.xyz")
    with pytest.raises(DataError, match="unknown kind of source 'foldr'; did you mean 'folder'"):
        open_source(tmp_path, kind="foldr")  # pyright: ignore[reportArgumentType]


def test_a_picture_removed_meanwhile(faces):
    source = open_source(faces)
    (faces / "Ann" / "Ann_1.png").unlink()
    with pytest.raises(DataError, match="cannot read the picture"):
        source.read(0)


def test_read_identities(tmp_path, caplog):
    path = tmp_path / "who.txt"
    path.write_bytes("\ufeffAnn\r\nBob 2\r\n\r\n".encode())
    assert read_identities(path) == ("Ann", "Bob 2")
    path.write_text("Ann\nAnn\n")
    assert read_identities(path) == ("Ann",)
    assert "more than once and count once, first 'Ann'" in caplog.text
    path.write_text("\n")
    with pytest.raises(DataError, match="empty list"):
        read_identities(path)
    path.write_bytes(b"Ann\nB\xe9n\n")
    with pytest.raises(DataError, match=r"line 2: expected UTF-8 text, got byte 0xe9"):
        read_identities(path)
    path.write_bytes("Ann\nBén\n".encode("utf-16"))
    assert read_identities(path) == ("Ann", "Bén")


@pytest.mark.parametrize(("files", "folders", "flat"), [(2, 0, True), (2, 1, False), (0, 1, False), (0, 0, False)])
def test_pictures_side_by_side_are_told_from_a_folder_for_each_person(tmp_path, files, folders, flat):
    for n in range(files):
        images.write(tmp_path / f"{n}.png", image(n))
    for n in range(folders):
        (tmp_path / f"person {n}").mkdir()
    (tmp_path / "pairs.txt").write_text("")
    assert holds_only_images(tmp_path) is flat
