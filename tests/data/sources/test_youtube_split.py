"""YouTube Faces' split for DeepID (row D3), and the split without its flaws."""

import itertools

import numpy as np
import pytest

from visavis.data.sources.youtube_split import SplitSettings, split
from visavis.errors import DataError

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
