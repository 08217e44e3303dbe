"""What every gallery promises, wherever its rows are kept: many threads, several processes, kills."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import StorageError
from visavis.errors import DataError

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(place):
    with place.open(MODEL, create=True) as made:
        yield made


def test_a_second_process_sees_what_the_first_wrote_and_the_other_way(place, gallery):
    gallery.enroll("Ada", unit(1))
    with place.open(MODEL) as other:
        assert other.search(unit(1), top=1)[0][0].name == "Ada"
        other.enroll("Bob", unit(2))
        assert gallery.search(unit(2), top=1)[0][0].name == "Bob"
        gallery.forget("Ada")
        assert {c.name for c in other.search(unit(1), top=5)[0]} == {"Bob"}


def test_threads_search_while_others_enroll_and_forget(gallery):
    """No search ever pairs one subject's name with another's vector."""
    people = unit(11, 60)
    gallery.enroll_many([f"s{i}" for i in range(60)], people)
    wrong, stop = [], threading.Event()

    def look(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            i = int(rng.integers(60))
            best = gallery.search(people[i], top=1)[0][0]
            if best.similarity > 0.999 and best.name != f"s{i}":
                wrong.append((i, best))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for i in range(30):
        gallery.forget(f"s{i}")
        gallery.enroll(f"s{i}", people[i])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(gallery) == 60


_ENROLL_FOREVER = """
import sys, numpy as np
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.opening import open_gallery
start = int(sys.argv[2])
gallery = open_gallery(sys.argv[1], ModelIdentity("fake", 32, "a" * 64), create=True)
for i in range(start, start + 100000):
    gallery.enroll(f"s{i}", np.random.default_rng(i).standard_normal(32))
    if i % 3 == 2:
        gallery.forget(f"s{i - 1}")
    print(i, flush=True)
"""


def test_a_killed_process_loses_nothing_it_acknowledged(place):
    """SIGKILL at arbitrary moments of a loop of enrollments and erasures, six times."""
    rng, said = np.random.default_rng(5), -1
    for _ in range(6):
        command = [sys.executable, "-c", _ENROLL_FOREVER, place.address, str(3 * (said // 3 + 2))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert child.stdout is not None
        first = said = int(child.stdout.readline())
        time.sleep(rng.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        said = max([said, *(int(line) for line in child.stdout.read().split("\n")[:-1])])
        child.stdout.close()
        child.wait()
        with place.open(MODEL) as gallery:
            gallery.store.verify()
            names = {s.name for s in gallery.subjects()}
            for i in range(first, said + 1):
                gone = i % 3 == 1 and i + 1 <= said
                undecided = i % 3 == 1 and i == said
                assert undecided or (f"s{i}" in names) != gone, i
            expected = np.random.default_rng(first).standard_normal(32).astype(np.float32)
            assert gallery.search(expected, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)


def at_once(count, function):
    """What `function(i)` answers in each of `count` threads started together."""
    answers, ready = [None] * count, threading.Barrier(count)

    def work(i):
        ready.wait()
        try:
            answers[i] = function(i)
        except Exception as error:
            answers[i] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_eight_threads_enroll_and_search_through_one_gallery(gallery):
    def enroll(k):
        for i in range(10):
            gallery.enroll(f"{k}-{i}", unit(100 * k + i))
            gallery.search(unit(i), top=1)
        return "done"

    assert at_once(8, enroll) == ["done"] * 8
    assert {s.name for s in gallery.subjects()} == {f"{k}-{i}" for k in range(8) for i in range(10)}
    assert gallery.search(unit(305), top=1)[0][0].name == "3-5"


def test_one_picture_enrolled_by_several_threads_is_one_sample(gallery):
    answers = at_once(6, lambda _: gallery.enroll("Ada", unit(1), images=[b"picture"]).added)
    assert sorted(answers) == [0, 0, 0, 0, 0, 1]
    assert gallery.subject("Ada").samples == 1


def test_merging_both_ways_while_others_enroll_keeps_every_sample_and_the_template_of_all(gallery):
    for round_ in range(4):
        a, b = f"a{round_}", f"b{round_}"
        gallery.enroll_many([a, b], np.concatenate([unit(1), unit(2)]))

        def work(i, a=a, b=b):
            if i == 2:
                return gallery.enroll(a, unit(3)).added
            return gallery.merge(*((a, b) if i else (b, a))).subject.name

        answers = at_once(3, work)
        assert all(answer in (1, a, b) or "nobody with name" in answer for answer in answers), answers
        left = [s for s in gallery.subjects() if s.name in (a, b)]
        assert sum(s.samples for s in left) == 3
        for subject in left:
            with gallery.store.read() as db:
                rows = db.execute("SELECT vector FROM samples WHERE subject = ?", (subject.id,)).fetchall()
            total = np.array([np.frombuffer(row[0], np.float32) for row in rows]).sum(0)
            found = {c.name: c.similarity for c in gallery.search(total, top=100)[0]}
            assert found[subject.name] == pytest.approx(1, abs=1e-5)


def test_six_creators_at_once_make_one_gallery(place):
    def create(i):
        with place.open(MODEL, create=True) as made:
            made.enroll(f"s{i}", unit(i))
        return "made"

    assert at_once(6, create) == ["made"] * 6
    with place.open(MODEL) as gallery:
        assert len(gallery) == 6


_CREATE = """
import sys
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.opening import open_gallery
print("ready", flush=True)
sys.stdin.readline()
open_gallery(sys.argv[1], ModelIdentity("fake", 32, "a" * 64), create=True)
print("made", flush=True)
sys.stdin.readline()
"""


def test_a_process_killed_while_it_creates_leaves_nothing_in_the_way(place):
    for moment in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        child = subprocess.Popen(
            [sys.executable, "-c", _CREATE, place.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(moment)
        child.kill()
        child.communicate()
        with place.open(MODEL, create=True) as gallery:
            gallery.store.verify()
            gallery.enroll(f"s{moment}", unit(int(1000 * moment)))
            if moment < 0.05:
                gallery.close()
                _remove(place)


def _remove(place):
    """Take the gallery away, so that the next one is made anew."""
    if place.kind == "file":
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(place.address + suffix):
                os.unlink(place.address + suffix)
    else:
        with place.connection() as db:
            schema = db.execute("SELECT current_schema()").fetchone()[0]
            db.execute(f"DROP SCHEMA {schema} CASCADE")


def test_what_was_changed_behind_the_program_is_named(place, gallery):
    """A name, a time, a weight, a file's name, a crop, a setting: `check` names whose it is."""
    gallery.enroll_many([f"s{i}" for i in range(6)], unit(1, 6))
    gallery.enroll("kept", unit(2), crops=[b"a crop"])
    gallery.store.verify()
    changes = (
        ("subjects", "name = 's9'", "id = 1", "subject 1"),
        ("subjects", "expires = 9e9", "id = 2", "subject 2"),
        ("samples", "weight = 3", "id = 3", "sample 3 of subject 3"),
        ("samples", "source_name = 'another'", "id = 4", "sample 4 of subject 4"),
        ("samples", "crop = picture", "id = 7", "sample 7 of subject 7"),
        ("settings", "value = 'other'", "key = 'model_name'", "model_name"),
    )
    for table, change, where, named in changes:
        with place.connection() as db:
            before = db.execute(f"SELECT {change.split(' = ')[0]} FROM {table} WHERE {where}").fetchone()[0]
            db.execute(f"UPDATE {table} SET {change} WHERE {where}")
            with pytest.raises(DataError, match=named):
                gallery.store.verify()
            mark = "?" if place.kind == "file" else "%s"
            db.execute(f"UPDATE {table} SET {change.split(' = ')[0]} = {mark} WHERE {where}", (before,))
        gallery.store.verify()


def test_another_gallery_in_its_place_is_refused_and_nothing_acknowledged(place, gallery):
    """The gallery was removed, or restored from a copy, under a program that has it open."""
    gallery.enroll("Ada", unit(1))
    _remove(place)
    with place.open(MODEL, create=True) as other:
        other.enroll("Bob", unit(2))
        for task in (
            lambda: gallery.enroll("Cy", unit(3)),
            lambda: gallery.forget("Ada"),
            gallery.refresh,
            lambda: gallery.search(unit(1)),
            lambda: gallery.update("Ada", name="Eve"),
        ):
            with pytest.raises(StorageError, match="replaced"):
                task()
        assert [s.name for s in other.subjects()] == ["Bob"]


def test_a_backup_taken_while_others_write_is_a_gallery(place, gallery, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{place.programs}:{os.environ['PATH']}")
    gallery.enroll_many([f"s{i}" for i in range(20)], unit(1, 20))
    stop = threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            gallery.enroll(f"later {i}", unit(100 + i))
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        gallery.store.backup(tmp_path / "copy")
    finally:
        stop.set()
        writer.join()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "copy.part").exists()
    with place.restored(tmp_path / "copy") as copy:
        copy.store.verify()
        assert {f"s{i}" for i in range(20)} <= {s.name for s in copy.subjects()}
        assert copy.search(unit(1, 20)[7], top=1)[0][0].name == "s7"
