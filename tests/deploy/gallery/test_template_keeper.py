"""The templates kept beside a gallery: opened from, brought up to date, erased from, checked, never trusted blindly."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from visavis.deploy.gallery import template_keeper
from visavis.deploy.gallery.encryption import AesGcm
from visavis.deploy.gallery.index import TemplateIndex
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.vector_file import BLOCK

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)
N = 3 * BLOCK + 100


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


PEOPLE = unit(0, N)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(template_keeper, "SMALLEST", 1000)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "g.db"
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(N)], PEOPLE)
        gallery.enroll("s7", unit(70))
        gallery.refresh()
    return path


@pytest.fixture
def computed(monkeypatch):
    """How many rows were computed from the samples."""
    counts = []
    fuse = TemplateIndex._fuse_rows

    def counted(self, rows):
        counts.append(len(rows))
        return fuse(self, rows)

    monkeypatch.setattr(TemplateIndex, "_fuse_rows", counted)
    return counts


def data_of(path):
    [data] = [p for p in path.parent.glob("g.db-vectors.*") if p.suffix != ".lock"]
    return data


def settled(gallery):
    gallery.refresh()
    while gallery._index.unverified:
        time.sleep(0.005)
    return gallery


def assert_finds(gallery, numbers):
    found = gallery.search(PEOPLE[numbers], top=1)
    assert [f[0].name for f in found] == [f"s{i}" for i in numbers]
    assert [f[0].similarity for f in found] == pytest.approx([1.0] * len(numbers), abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"precision": "float16"}, {"approximate": "cells"}], ids=str)
def test_opening_computes_nothing_anew_and_answers_the_same(path, computed, options):
    with Gallery(path, MODEL, **options) as gallery:
        assert gallery.refresh() == N
        assert computed == []
        assert_finds(gallery, [0, 1, BLOCK, N - 1])
        before = gallery.search(unit(5, 20), top=4)
        settled(gallery)
        after = gallery.search(unit(5, 20), top=4)
    data_of(path).unlink()
    with Gallery(path, MODEL, **options) as gallery:
        truth = gallery.search(unit(5, 20), top=4)
        assert sum(computed) >= N
    for answer in (before, after):
        assert [[c.id for c in found] for found in answer] == [[c.id for c in found] for found in truth]
        similarities = [[c.similarity for c in found] for found in answer]
        np.testing.assert_allclose(similarities, [[c.similarity for c in found] for found in truth], atol=1e-6)


def test_what_changed_since_is_computed_and_appended_when_it_is_much(path, computed):
    size = data_of(path).stat().st_size
    with Gallery(path, MODEL) as gallery:
        gallery.enroll("Ada", unit(500))
        gallery.forget("s1")
        gallery.update("s2", retention_days=30)
    with Gallery(path, MODEL) as gallery:
        assert gallery.refresh() == N
        assert sum(computed) == 2
        assert gallery.search(unit(500), top=1)[0][0].name == "Ada"
        assert gallery.search(PEOPLE[1], top=1)[0][0].similarity < 0.9
        assert data_of(path).stat().st_size == size
        gallery.enroll_many([f"t{i}" for i in range(300)], unit(501, 300))
        gallery.refresh()
    assert data_of(path).stat().st_size == size + 302 * 4 * DIM
    computed.clear()
    with Gallery(path, MODEL) as gallery:
        assert gallery.refresh() == N + 300
        assert computed == []
        assert gallery.search(unit(501, 300)[299], top=1)[0][0].name == "t299"
        assert_finds(gallery, [0, 2, N - 1])
        settled(gallery)
        assert_finds(gallery, [0, 2, N - 1])


def test_while_rows_come_into_memory_others_are_added_replaced_and_erased(path, monkeypatch):
    """Every step of the background copy waits for changes in between."""
    monkeypatch.setattr(template_keeper, "_STEP", BLOCK)
    with Gallery(path, MODEL) as gallery:
        vectors, steps = gallery._index.vectors, []
        copy = vectors.copy

        def slow(start, stop):
            copy(start, stop)
            steps.append(start)
            time.sleep(0.1)

        vectors.copy = slow
        gallery.refresh()
        for i in (0, N - 1, BLOCK, 2 * BLOCK + 5):
            gallery.forget(f"s{i}")
            gallery.enroll(f"s{i}", PEOPLE[i])
            gallery.enroll(f"s{i + 1 if i < N - 1 else 3}", unit(i))
            assert gallery.search(PEOPLE[i], top=1)[0][0].name == f"s{i}"
        assert steps
        settled(gallery)
        with Gallery(path, MODEL, precision="float16") as other:
            probes = unit(9, 30)
            assert [[c.id for c in f] for f in gallery.search(probes)] == [
                [c.id for c in f] for f in other.search(probes)
            ]


def test_whoever_is_erased_is_out_of_the_file_too(path, tmp_path):
    def everything():
        return b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())

    with Gallery(path, MODEL) as gallery, Gallery(path, MODEL) as other:
        settled(other)
        template = gallery.search(unit(70), top=1)[0][0]
        assert template.name == "s7"
        mixed = gallery._index.exact(gallery.store._db, [template.id])[template.id].tobytes()
        assert mixed[20:60] in everything()
        assert PEOPLE[9].tobytes()[20:60] in everything()
        receipt = gallery.forget("s7", "s9")
        assert (receipt.complete, receipt.found) == (True, 0)
        assert {data_of(path).name, "g.db-vectors"} <= set(receipt.files)
        assert mixed[20:60] not in everything()
        assert PEOPLE[9].tobytes()[20:60] not in everything()
        for one in (gallery, other):
            assert one.search(PEOPLE[9], top=1)[0][0].similarity < 0.9
            assert_finds(one, [8, 10, N - 1])
    with Gallery(path, MODEL) as gallery:
        assert gallery.refresh() == N - 2
        assert_finds(settled(gallery), [8, 10, N - 1])


def test_the_receipt_finds_what_is_left_in_the_file(path, monkeypatch):
    monkeypatch.setattr(template_keeper.TemplateKeeper, "erase", lambda self, index: [])
    with Gallery(path, MODEL) as gallery:
        assert gallery.forget("s9").found > 0


def test_erasing_a_sample_takes_the_template_away_that_held_it(path):
    with Gallery(path, MODEL) as gallery:
        samples = gallery.samples("s7")
        [subject] = {s.subject for s in samples}
        old = gallery._index.exact(gallery.store._db, [subject])[subject].tobytes()
        assert old in data_of(path).read_bytes()
        assert gallery.forget_samples("s7", [samples[1].id]).complete
        assert old not in data_of(path).read_bytes()
        assert_finds(gallery, [7])


DAMAGES = {
    "a row": lambda path: flip(data_of(path), 4096 + 4 * DIM * (2 * BLOCK + 3)),
    "the list": lambda path: flip(path.with_name("g.db-vectors"), 4096 + 8 * 17),
    "the header": lambda path: flip(path.with_name("g.db-vectors"), 20),
    "it ends early": lambda path: os.truncate(data_of(path), 4096 + 4 * DIM * 50),
    "the rows are gone": lambda path: data_of(path).unlink(),
    "another gallery's": None,
    "an older state's": None,
}


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_or_another_s_is_made_anew(path, tmp_path, what, computed, caplog):
    damage = DAMAGES[what]
    if damage is not None:
        damage(path)
    elif what == "another gallery's":
        path.unlink()
        with Gallery(path, MODEL, create=True) as gallery:
            gallery.enroll_many([f"s{i}" for i in range(N)], PEOPLE)
    else:
        with Gallery(path, MODEL) as gallery:
            gallery.store.backup(tmp_path / "copy.db")
            gallery.forget("s5")
            gallery.enroll_many([f"t{i}" for i in range(300)], unit(501, 300))
            gallery.refresh()
        (tmp_path / "copy.db").replace(path)
        with Gallery(path, MODEL) as gallery:
            for i in range(400):
                gallery.update("s8", consent=str(i))
    computed.clear()
    with Gallery(path, MODEL) as gallery:
        numbers = [2 * BLOCK + 3, 5, 17, 0, N - 1]
        assert_finds(gallery, numbers)
        deadline = time.monotonic() + 20
        while gallery._index.unverified and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(computed) >= N
        assert_finds(gallery, numbers)
        assert len(gallery) == gallery.refresh() == N
    computed.clear()
    with Gallery(path, MODEL) as gallery:
        gallery.refresh()
        gallery.store.verify()
    with Gallery(path, MODEL) as gallery:
        computed.clear()
        gallery.refresh()
        assert computed == []


def test_an_encrypted_or_a_small_gallery_has_none(tmp_path):
    with Gallery(tmp_path / "sealed.db", MODEL, create=True, cipher=AesGcm(b"k" * 32)) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(1200)], PEOPLE[:1200])
        gallery.refresh()
    with Gallery(tmp_path / "small.db", MODEL, create=True) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(900)], PEOPLE[:900])
        gallery.refresh()
    assert not list(tmp_path.glob("*-vectors*"))


_KILLED = """
import os, signal, sys, numpy as np
from visavis.deploy.gallery import template_keeper, vector_file
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
template_keeper.SMALLEST = 1000
target, name = {"list": (vector_file.VectorFile, "_put"), "token": (template_keeper.TemplateKeeper, "_name"),
                "rows": (vector_file.Writer, "finish"), "append": (vector_file.VectorFile, "_appended")}[sys.argv[2]]
task = getattr(target, name)
def dying(*arguments, **options):
    if sys.argv[2] == "append": task(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(target, name, dying)
gallery = Gallery(sys.argv[1], ModelIdentity("fake", 32, "a" * 64))
if sys.argv[2] == "append":
    gallery.enroll_many([f"t{i}" for i in range(300)], np.random.default_rng(501).standard_normal((300, 32)))
gallery.refresh()
gallery.close()
"""


@pytest.mark.parametrize("moment", ["list", "token", "rows", "append"])
def test_killed_while_it_is_written_it_is_made_by_the_next(path, moment):
    if moment != "append":
        for file in path.parent.glob("g.db-vectors*"):
            file.unlink()
    child = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), moment], capture_output=True, check=False, env={**os.environ}
    )
    assert child.returncode == -9, child.stderr
    with Gallery(path, MODEL) as gallery:
        assert_finds(gallery, [0, BLOCK, N - 1])
        assert gallery.forget("s9").complete
        assert PEOPLE[9].tobytes() not in b"".join(f.read_bytes() for f in path.parent.iterdir())
    with Gallery(path, MODEL) as gallery:
        assert_finds(settled(gallery), [0, BLOCK, N - 1])


def test_a_gallery_opened_for_reading_only_uses_it_and_writes_none(path, computed):
    with Gallery(path, MODEL, read_only=True) as gallery:
        assert_finds(settled(gallery), [0, N - 1])
        assert computed == []
    for file in path.parent.glob("g.db-vectors*"):
        file.unlink()
    with Gallery(path, MODEL, read_only=True) as gallery:
        assert_finds(gallery, [0, N - 1])
    assert not list(path.parent.glob("*-vectors*"))


def test_check_reads_every_block_and_the_next_opening_makes_a_damaged_file_anew(path, caplog, computed):
    with Gallery(path, MODEL) as gallery:
        gallery.verify()
    assert caplog.text == ""
    flip(data_of(path), 4096 + 4 * DIM * (3 * BLOCK + 50))
    with Gallery(path, MODEL) as gallery:
        gallery.verify()
    assert "the templates kept beside it are damaged" in caplog.text
    assert not list(path.parent.glob("g.db-vectors*"))
    with Gallery(path, MODEL) as gallery:
        assert_finds(gallery, [N - 1])
    computed.clear()
    with Gallery(path, MODEL) as gallery:
        assert_finds(gallery, [N - 1])
        assert sum(computed) <= 1  # the one that was found, if it was before its checksum was read


def test_an_erasure_whose_templates_cannot_be_overwritten_is_not_complete(path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with Gallery(path, MODEL) as gallery:
        with monkeypatch.context() as patch:
            patch.setattr(template_keeper.VectorFile, "erase", refuse)
            receipt = gallery.forget("s9")
            assert not receipt.complete
            assert "could not be overwritten" in receipt.note
        assert gallery.forget("s10").complete  # and with it what was left
        assert PEOPLE[9].tobytes() not in data_of(path).read_bytes()


def test_a_file_of_many_empty_rows_is_written_anew(path, computed):
    before = data_of(path)
    with Gallery(path, MODEL) as gallery:
        assert gallery.forget(*(f"s{i}" for i in range(N // 2, N))).complete
    computed.clear()
    with Gallery(path, MODEL) as gallery:
        assert gallery.refresh() == N // 2
        assert sum(computed) == N // 2 + 1
        assert_finds(gallery, [0, 8, N // 2 - 1])
    assert data_of(path) != before
    assert data_of(path).stat().st_size == 4096 + 4 * DIM * (N // 2)
    computed.clear()
    with Gallery(path, MODEL) as gallery:
        assert gallery.refresh() == N // 2
        assert computed == []
