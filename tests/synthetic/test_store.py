"""Many generated faces: the same for any number of workers; pairs that are what they claim."""

import numpy as np
import pytest

from visavis import synthetic
from visavis.data.pair_lists.reader import read_pairs
from visavis.errors import DataError
from visavis.synthetic import store


def test_workers_change_nothing() -> None:
    seen: list[tuple[int, int]] = []
    one = synthetic.generate(2, [7, 3, 11], 2, size=32, workers=0, progress=lambda *now: seen.append(now))
    two = synthetic.generate(2, [7, 3, 11], 2, size=32, workers=2)
    assert seen == [(2, 6), (4, 6), (6, 6)]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1].tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(one[0][3], synthetic.face(2, 3, 1, size=32)[0])


def test_nobody_to_draw_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 identity"):
        synthetic.generate(0, [], 3)


@pytest.mark.parametrize(("people", "images", "count", "folds"), [(40, 4, 200, 10), (7, 3, 36, 3), (20, 2, 4, 1)])
def test_pairs_are_balanced_different_and_share_no_person_between_folds(
    people: int, images: int, count: int, folds: int
) -> None:
    drawn = synthetic.pairs(people, images, count, folds, seed=5)
    assert len(drawn) == count
    ends = np.stack([drawn.reference, drawn.probe], 1)
    owners = ends // images
    np.testing.assert_array_equal(owners[:, 0] == owners[:, 1], drawn.genuine)
    assert np.all(ends[:, 0] != ends[:, 1])
    assert len({tuple(sorted(row)) for row in ends.tolist()}) == count
    members = [set(owners[drawn.fold == f].ravel().tolist()) for f in range(folds)]
    assert sum(map(len, members)) == len(set().union(*members))
    assert all(drawn.genuine[drawn.fold == f].mean() == 0.5 for f in range(folds))
    assert drawn.images[images + 1] == "id_000001/001.jpg"


def test_pairs_use_people_evenly() -> None:
    drawn = synthetic.pairs(50, 6, 200, 1)
    per_person = np.bincount(drawn.reference[drawn.genuine] // 6, minlength=50)
    assert per_person.min() == per_person.max() == 2


@pytest.mark.parametrize(("count", "said"), [(25, "multiple"), (4000, "ask for fewer")])
def test_impossible_pairs_are_refused(count: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        synthetic.pairs(20, 3, count, 10)


def test_written_pairs_read_back(tmp_path) -> None:
    drawn = synthetic.pairs(30, 3, 60, 5, first_identity=100)
    store.write_pairs(tmp_path / "pairs.txt", drawn)
    back = read_pairs(tmp_path / "pairs.txt")
    for here, there in ((drawn.reference, back.reference), (drawn.probe, back.probe)):
        assert [drawn.images[i] for i in here] == [back.images[i] for i in there]
    np.testing.assert_array_equal(drawn.genuine, back.genuine)
    np.testing.assert_array_equal(drawn.fold, back.fold)
