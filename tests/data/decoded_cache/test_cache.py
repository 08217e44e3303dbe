"""The decoded cache: the same pixels, rebuilt when the source changes, within its budget."""

import os
import pickle

import numpy as np
import pytest

from visavis.data.convert import convert
from visavis.data.decoded_cache.cache import build_cache, decoded_bytes, open_cache
from visavis.data.sources import open_source
from visavis.errors import DataError
from visavis.vision import images


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for who, count in (("Ann", 3), ("Bob", 2)):
        (tmp_path / "set" / who).mkdir(parents=True)
        for n in range(count):
            images.write(tmp_path / "set" / who / f"{n}.jpg", rng.integers(0, 256, (16, 12, 3), dtype=np.uint8))
    return tmp_path / "set"


def test_the_same_pixels_and_batches(people, tmp_path):
    source = open_source(people)
    assert open_cache(source, tmp_path / "cache") is None
    assert list(build_cache(source, tmp_path / "cache", workers=2))[-1] == 5
    cached = open_cache(source, tmp_path / "cache")
    assert cached is not None
    assert decoded_bytes(source) == 5 * 16 * 12 * 3 == cached.crops.nbytes
    for i in range(5):
        assert np.array_equal(cached.image(i), source.image(i))
    assert cached.read(3) == source.read(3)
    out = np.empty((3, 16, 12, 3), np.uint8)
    assert cached.take([4, 0, 4], out=out) is out
    assert np.array_equal(out[2], source.image(4))
    assert np.array_equal(pickle.loads(pickle.dumps(cached)).image(1), source.image(1))


def test_a_change_makes_it_stale(people, tmp_path):
    list(build_cache(open_source(people), tmp_path / "cache"))
    path = people / "Bob" / "1.jpg"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert open_cache(open_source(people), tmp_path / "cache") is None


def test_records_and_their_changes(people, tmp_path):
    list(convert(open_source(people), tmp_path / "r", "record"))
    list(build_cache(open_source(tmp_path / "r"), tmp_path / "cache"))
    assert open_cache(open_source(tmp_path / "r"), tmp_path / "cache") is not None
    assert open_cache(open_source(tmp_path / "r").only(["Bob"]), tmp_path / "cache") is None
    with (tmp_path / "r" / "train.rec").open("ab") as file:
        file.write(b"\0" * 4)
    assert open_cache(open_source(tmp_path / "r"), tmp_path / "cache") is None


def test_budget_shapes_and_leftovers(people, tmp_path):
    source = open_source(people)
    with pytest.raises(DataError, match=r"takes 0.00 GB, the budget is"):
        list(build_cache(source, tmp_path / "cache", budget=100))
    images.write(people / "Ann" / "9.jpg", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"Ann/9.jpg is 9×9, the others are 16×12"):
        list(build_cache(open_source(people), tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def test_another_size(people, tmp_path):
    source = open_source(people)
    list(build_cache(source, tmp_path / "cache", size=(8, 6)))
    cached = open_cache(source, tmp_path / "cache", size=(8, 6))
    assert cached is not None
    assert np.array_equal(cached.image(2), images.resize(source.image(2), (8, 6)))


def test_a_damaged_cache_is_not_used(people, tmp_path):
    source = open_source(people)
    list(build_cache(source, tmp_path / "cache"))
    file = next((tmp_path / "cache").glob("*.npy"))
    file.write_bytes(file.read_bytes()[:200])
    assert open_cache(source, tmp_path / "cache") is None
