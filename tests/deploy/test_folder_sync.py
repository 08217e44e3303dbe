"""Following a folder: what left it is found by digest, in both stores, and erased when asked."""

import numpy as np
import pytest

from visavis.deploy.enrollment import source_file
from visavis.deploy.folder_sync import departed, erase_departed
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 16, "a" * 64)


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(place):
    with place.open(MODEL, create=True) as made:
        yield made


@pytest.fixture
def files(tmp_path, gallery):
    """Five files: two of Ada, two of Bob, one of Cy; Ada has a sample of no file besides."""
    made = [tmp_path / f"{i}.png" for i in range(5)]
    for i, file in enumerate(made):
        file.write_bytes(b"picture %d" % i)
    for name, which in (("Ada", made[:2]), ("Bob", made[2:4]), ("Cy", made[4:])):
        gallery.enroll(name, unit(len(name), len(which)), sources=[source_file(file) for file in which])
    gallery.enroll("Ada", unit(9))
    gallery.enroll("Nobody's file", unit(8))
    return made


def left(gallery, people, *, everybody=True):
    found = departed(gallery, people, everybody=everybody)
    return [(one.subject.name, [s.source_name for s in one.samples], one.all) for one in found]


def test_nothing_has_left_a_folder_that_is_as_it_was_or_renamed(gallery, files):
    moved = files[0].rename(files[0].with_name("moved.png"))
    assert left(gallery, {"Ada": [files[1], moved], "Bob": files[2:4], "Cy": files[4:]}) == []


def test_files_and_people_that_left_are_found(gallery, files):
    people = {"Ada": files[:1], "Bob": files[4:]}
    assert left(gallery, people) == [
        ("Ada", ["1.png"], False),
        ("Bob", ["2.png", "3.png"], True),
        ("Cy", ["4.png"], True),
    ]
    assert [entry[0] for entry in left(gallery, people, everybody=False)] == ["Ada", "Bob"]
    assert left(gallery, {"Dora": files[:1]}, everybody=False) == []
    assert left(gallery, {}) == [
        ("Ada", ["0.png", "1.png"], False),
        ("Bob", ["2.png", "3.png"], True),
        ("Cy", ["4.png"], True),
    ]


def test_what_left_is_erased_and_the_rest_stays(gallery, files):
    gone = list(departed(gallery, {"Ada": files[:1], "Bob": files[2:3]}, everybody=True))
    receipts = erase_departed(gallery, gone, threshold=0.5)
    assert [(r.subjects, r.samples) for r in receipts] == [(1, 1), (0, 2)]
    assert all(receipt.complete for receipt in receipts)
    assert {s.name: s.samples for s in gallery.subjects()} == {"Ada": 2, "Bob": 1, "Nobody's file": 1}
    assert erase_departed(gallery, []) == []


def test_samples_of_several_subjects_are_erased_all_or_none(gallery, files):
    ada, bob = gallery.subject("Ada").id, gallery.subject("Bob").id
    mine = [sample.id for sample in gallery.samples(ada)]
    with pytest.raises(DataError, match="all samples of 'Bob'"):
        gallery.forget_samples_of({ada: mine[:1], bob: [s.id for s in gallery.samples(bob)]})
    assert len(gallery.samples(ada)) == 3
    assert gallery.forget_samples_of({ada: mine[:1], "Bob": [gallery.samples(bob)[0].id]}).samples == 2


def test_subjects_with_files_come_a_batch_at_a_time(gallery, files):
    every = [gallery.subject(name).id for name in ("Ada", "Bob", "Cy")]
    for batch in (1, 2, 3, 50):
        assert list(gallery.subjects_with_files(batch=batch)) == every
