"""YouTube Faces for DeepID: the crop of row D2, the split of row D3, and both without their flaws."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.data.sources.youtube_faces import center_half, prepare_youtube_faces, read_tree
from visavis.data.sources.youtube_split import SplitSettings, split
from visavis.errors import DataError
from visavis.vision import images

CLIPS = {"Ann Lee": (70, 60), "Bo, Jr": (130,), "Cy": (40, 30, 80), "Di": (60, 60), "Ed": (99,), "Flo": (30, 20)}


def _people(clips: dict[str, tuple[int, ...]]) -> dict[str, dict[str, list[str]]]:
    return {
        person: {str(c): [f"{person}/{c}/{c}.{k}.jpg" for k in range(count)] for c, count in enumerate(counts)}
        for person, counts in clips.items()
    }


def _clip(name: str) -> str:
    return name.rsplit("/", 1)[0]


def _many(people: int) -> dict[str, dict[str, list[str]]]:
    rng = np.random.default_rng(0)
    return _people({f"p{k}": tuple(rng.integers(48, 120, rng.integers(1, 4)).tolist()) for k in range(people)})


def test_the_center_half_is_the_center_half() -> None:
    """Row D2, set right."""
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[20:60, 30:90] = 200
    assert center_half(picture).shape == (55, 47, 3)
    assert center_half(picture).min() == 200
    square = picture[:, 20:100]
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


def test_the_published_split() -> None:
    """Row D3: fewer than 100 frames: tested; else 10 validate and 90 train, from all clips mixed."""
    found = split(_people(CLIPS), SplitSettings(legacy=True))
    assert set(found.test_people) == {"Ed", "Flo"}
    assert found.people == ("Ann Lee", "Bo, Jr", "Cy", "Di")
    assert len(found.train) == 4 * 90
    assert len(found.valid) == 4 * 10
    assert not {name for name, _ in found.train} & {name for name, _ in found.valid}
    seen = {_clip(name) for name, _ in found.train} & {_clip(name) for name, _ in found.valid}
    assert seen  # row D17: the leak
    assert len(found.pairs) == 2 * (5 + 5)
    assert found.pairs_within_a_clip > 0
    assert sum(same for *_, same in found.pairs) == 10


def test_the_default_split_keeps_clips_apart() -> None:
    """Row D17: validation frames are no neighbors of training frames."""
    found = split(_many(60), SplitSettings())
    trained, validated = ({_clip(n) for n, _ in rows} for rows in (found.train, found.valid))
    people = _many(60)
    single = {f"{p}/0" for p, clips in people.items() if len(clips) == 1}
    assert not (trained & validated) - single
    labels = {name.split("/")[0]: label for name, label in found.train}
    assert labels == {person: label for label, person in enumerate(found.people)}
    assert not set(found.people) & set(found.test_people)
    assert found.pairs_within_a_clip == 0
    assert all(_clip(a) != _clip(b) for a, b, _ in found.pairs)
    assert all((a.split("/")[0] == b.split("/")[0]) == same for a, b, same in found.pairs)
    assert len({(a, b) for a, b, _ in found.pairs}) == len(found.pairs)
    assert all(p in found.people or p in found.test_people or p in found.unused for p in people)


def test_one_clip_is_cut_with_a_gap() -> None:
    found = split(_people({"Bo": (200,), "Cy": (150,)}), SplitSettings(test_share=0.0))
    for person in ("Bo", "Cy"):
        trained, validated = (
            [int(n.split(".")[1]) for n, _ in rows if n.startswith(person)] for rows in (found.train, found.valid)
        )
        assert len(trained) == 90
        assert len(validated) == 10
        assert max(trained) + 10 < min(validated)


@pytest.mark.parametrize("frames", [100, 101, 105, 119, 140])
@pytest.mark.parametrize("clips", [1, 2, 3])
def test_barely_enough_frames_are_split_without_overlap(frames: int, clips: int) -> None:
    counts = tuple(frames // clips + (k < frames % clips) for k in range(clips))
    found = split(_people({"A": counts, "B": (300,)}), SplitSettings(test_share=0.0))
    trained, validated = ([n for n, _ in rows if n.startswith("A")] for rows in (found.train, found.valid))
    assert not set(trained) & set(validated)
    assert len(validated) == 10
    assert len(trained) >= 45


@pytest.mark.parametrize("legacy", [False, True])
def test_the_split_follows_from_the_seed(legacy: bool) -> None:
    one, two, other = (split(_many(25), SplitSettings(seed=s, legacy=legacy)) for s in (7, 7, 8))
    assert one == two
    assert one != other


def test_the_folds_of_the_pairs_share_nobody_but_at_their_seams() -> None:
    found = split(_many(200), SplitSettings())
    genuine = [a.split("/")[0] for a, _, same in found.pairs if same]
    tenths = [set(genuine[len(genuine) * k // 10 : len(genuine) * (k + 1) // 10]) for k in range(10)]
    assert all(len(a & b) <= 1 for a, b in itertools.combinations(tenths, 2))


def test_nobody_with_enough_frames_is_an_error() -> None:
    with pytest.raises(DataError, match="the most is 50"):
        split(_people({"A": (30, 20), "B": (20,)}), SplitSettings())


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
