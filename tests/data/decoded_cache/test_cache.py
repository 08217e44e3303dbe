"""The decoded cache: the same pixels, rebuilt when the source changes, within its budget."""

import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from visavis.data.convert import convert
from visavis.data.decoded_cache.cache import CachedSource, build_cache, decoded_bytes, open_cache
from visavis.data.decoded_cache.policy import cached, prune
from visavis.data.sources import open_source
from visavis.errors import DataError
from visavis.machine import cache_home
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


def built(folder):
    return sorted(path.name for path in folder.glob("*.npy"))


def test_kept_once_and_found_again(people, tmp_path):
    source, steps = open_source(people), []
    first = cached(source, tmp_path / "cache", progress=lambda done, total: steps.append((done, total)))
    assert steps == [(5, 5)]
    again = cached(source, tmp_path / "cache", progress=lambda done, total: steps.append((done, total)))
    assert len(steps) == 1
    assert isinstance(first, CachedSource)
    assert isinstance(again, CachedSource)
    assert first.file == again.file
    assert isinstance(again.crops.base, np.memmap)
    assert np.array_equal(again.take([4, 1]), np.stack([source.image(4), source.image(1)]))


def test_beyond_the_budget_pictures_are_decoded_as_needed(people, tmp_path):
    source = open_source(people)
    assert cached(source, tmp_path / "cache", budget=100) is source
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("where", ["nowhere", "no folder", "no room"])
def test_in_memory_where_there_is_no_place(people, tmp_path, monkeypatch, where):
    (tmp_path / "file").write_bytes(b"")
    if where == "no room":
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    folder = {"nowhere": None, "no folder": tmp_path / "file" / "cache", "no room": tmp_path / "cache"}[where]
    kept = cached(open_source(people), folder)
    assert isinstance(kept, CachedSource)
    assert kept.file is None
    assert np.array_equal(pickle.loads(pickle.dumps(kept)).take([0, 4]), kept.crops[[0, 4]])


def test_what_was_used_longest_ago_goes_first(people, tmp_path):
    folder = tmp_path / "cache"
    for k, who in enumerate((["Ann"], ["Bob"], ["Ann", "Bob"])):
        kept = cached(open_source(people).only(who), folder)
        assert isinstance(kept, CachedSource)
        assert kept.file is not None
        os.utime(kept.file, (k + 1, k + 1))
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.npy")}
    oldest = min(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime).name
    (folder / "decoded-x.npy.7.part").write_bytes(b"left by a killed run")
    os.utime(folder / "decoded-x.npy.7.part", (1, 1))
    prune(folder, keep=sum(sizes.values()) - 1)
    assert set(built(folder)) == set(sizes) - {oldest}
    assert not list(folder.glob("*.part"))
    assert len(list(folder.glob("*.json"))) == 2


def test_processes_that_build_the_same_wait_for_one(people, tmp_path):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    source = open_source(people)
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        jobs = [pool.submit(cached, source, tmp_path / "cache") for _ in range(6)]
        kept = [job.result() for job in jobs]
    assert len(built(tmp_path / "cache")) == 1
    assert {k.file for k in kept if isinstance(k, CachedSource)} == {tmp_path / "cache" / built(tmp_path / "cache")[0]}
    assert not [p for p in (tmp_path / "cache").iterdir() if p.suffix in (".part", ".lock")]


def test_the_cache_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path))
    assert cache_home() == tmp_path
    monkeypatch.delenv("VISAVIS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "xdg" / "visavis"
