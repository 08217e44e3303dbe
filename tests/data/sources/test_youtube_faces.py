"""YouTube Faces for DeepID: the crop of row D2, the split of row D3, and both without their flaws."""

import json
from pathlib import Path

import numpy as np
import pytest

from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.data.sources.youtube_faces import center_half, prepare_youtube_faces, read_tree
from visavis.data.sources.youtube_split import SplitSettings
from visavis.errors import DataError
from visavis.vision import images


def test_the_center_half_is_the_center_half() -> None:
    """Row D2, set right."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[20:60, 30:90] = 200
    assert center_half(image).shape == (55, 47, 3)
    assert center_half(image).min() == 200
    square = image[:, 20:100]
    np.testing.assert_array_equal(center_half(square), center_half(square, legacy=True))


def test_legacy_takes_the_width_for_both_axes() -> None:
    """Row D2: (w/4, w/4, 3w/4, 3w/4); a wide picture ends before the box does and leaves black."""
    wide = np.full((60, 120, 3), 200, np.uint8)  # box rows 30..90, picture ends at 60
    crop = center_half(wide, legacy=True)
    assert crop[:26].min() == 200
    assert crop[29:].max() == 0
    tall = np.full((200, 100, 3), 10, np.uint8)
    tall[25:75] = 200
    assert center_half(tall, legacy=True).min() == 200


def _write_tree(root: Path) -> None:
    rng = np.random.default_rng(0)
    for person, counts in {"Ann Lee": (8, 7), "Bo, Jr": (9, 9), "Cy": (8, 8), "Di": (7, 7)}.items():
        for clip, count in enumerate(counts):
            folder = root / person / str(clip)
            folder.mkdir(parents=True)
            for k in range(count):
                images.write(folder / f"{clip}.{k}.jpg", rng.integers(0, 255, (40, 40, 3)).astype(np.uint8))


SMALL = SplitSettings(train_frames=6, valid_frames=2, pairs=2, test_share=0.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tree_becomes_crops_and_lists(tmp_path: Path, workers: int) -> None:
    """Rows D1, D2 and D4: names with blanks come through."""
    tree = tmp_path / "YouTube Faces"
    _write_tree(tree / "aligned_images_DB")
    (tree / "aligned_images_DB" / "Cy" / "0" / "notes.txt").write_text("x")
    out, seen = tmp_path / "out", []
    done = prepare_youtube_faces(tree, out, settings=SMALL, workers=workers, progress=lambda *now: seen.append(now))
    assert done.skipped == 1
    assert done.frames == 63
    assert seen[-1] == (len(done.split.frames()), len(done.split.frames()))
    training = open_source(out / "train.txt")
    assert len(training) == 12
    assert training.image(0).shape == (55, 47, 3)
    named = (out / "people.txt").read_text().splitlines()
    for name, label in zip(training.names, training.labels, strict=True):
        assert name.split("/")[0] == named[label]
    pairs = read_pairs(out / "pairs.txt")
    check_pairs(pairs, open_source(out))
    assert pairs.genuine.mean() == 0.5
    assert json.loads((out / "split.json").read_text())["train"] == 12


def test_an_unreadable_frame_leaves_the_lists_and_is_named(tmp_path: Path) -> None:
    _write_tree(tmp_path / "db")
    first = prepare_youtube_faces(tmp_path / "db", tmp_path / "a", settings=SMALL)
    victim = first.split.train[0][0]
    (tmp_path / "db" / victim).write_bytes(b"no picture")
    done = prepare_youtube_faces(tmp_path / "db", tmp_path / "b", settings=SMALL)
    assert list(done.unreadable) == [victim]
    assert victim not in (tmp_path / "b" / "train.txt").read_text()
    assert victim in (tmp_path / "b" / "split.json").read_text()
    assert len(done.split.train) == len(first.split.train) - 1


def test_what_is_not_youtube_faces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flat" / "Ann").mkdir(parents=True)
    images.write(tmp_path / "flat" / "Ann" / "1.jpg", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match="expected person/video/frame"):
        read_tree(tmp_path / "flat")
    with pytest.raises(DataError, match="no folder"):
        read_tree(tmp_path / "none")
    _write_tree(tmp_path / "db")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        prepare_youtube_faces(tmp_path / "db", tmp_path / "full", settings=SMALL)
