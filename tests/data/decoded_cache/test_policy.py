"""What is kept decoded, where, and what goes first."""

import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from visavis.data.decoded_cache.cache import CachedSource
from visavis.data.decoded_cache.policy import cached, prune
from visavis.data.sources import open_source
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
