"""Several processes on one gallery: nothing acknowledged is lost and nobody forgotten comes back."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from visavis.deploy.gallery.erasure import search_files
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery

MODEL = ModelIdentity("fake", 32, "a" * 64)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
_STARTED: list[subprocess.Popen] = []
_HEAD = """
import sys, threading, time, numpy as np
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
gallery = Gallery(sys.argv[1], ModelIdentity("fake", 32, "a" * 64), create=True)
def unit(seed, n=1):
    return np.random.default_rng(seed).standard_normal((n, 32)).astype(np.float32)
"""


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def no_process_stays():
    yield
    while _STARTED:
        child = _STARTED.pop()
        if child.poll() is None:
            child.kill()
            child.communicate()


def start(code, *arguments):
    command = [sys.executable, "-c", _HEAD + code, *map(str, arguments)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    _STARTED.append(child)
    return child


def run(code, *arguments):
    child = start(code, *arguments)
    said, wrong = child.communicate(timeout=120)
    assert child.returncode == 0, wrong
    return said.split()


_SERVER = """
for line in sys.stdin:
    verb, name = line.split()
    if verb == "enroll": gallery.enroll(name, unit(len(name)))
    if verb == "forget": print(gallery.forget(name).complete, flush=True)
    if verb == "list": print(",".join(s.name for s in gallery.subjects()), flush=True)
    if verb == "enroll": print("ok", flush=True)
"""
_LIST = "print(*[s.name for s in gallery.subjects()])"


@pytest.mark.parametrize("end", ["killed", "graceful"])
def test_after_a_server_forgot_somebody_others_come_and_go_and_its_log_stays(tmp_path, end):
    path = tmp_path / "people.db"
    server = start(_SERVER, path)
    assert server.stdin is not None
    assert server.stdout is not None

    def ask(words):
        server.stdin.write(words + "\n")
        server.stdin.flush()
        return server.stdout.readline().strip()

    assert ask("enroll Ada-before") == "ok"
    assert ask("enroll Bob-before") == "ok"
    assert ask("forget Ada-before") == "True"
    log = path.with_name("people.db-wal").stat().st_ino
    assert run(_LIST, path) == ["Bob-before"]
    assert ask("enroll Cy-after") == "ok"
    assert path.with_name("people.db-wal").stat().st_ino == log
    assert run(_LIST, path) == ["Bob-before", "Cy-after"]
    assert run("print(gallery.forget('Bob-before').found)", path) == ["0"]
    assert ask("list x") == "Cy-after"
    assert ask("enroll Dan-after") == "ok"
    if end == "killed":
        server.send_signal(signal.SIGKILL)
    server.communicate(timeout=60)
    assert run(_LIST, path) == ["Cy-after", "Dan-after"]
    with Gallery(path, MODEL) as gallery:
        gallery.store.verify()
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"Ada-before" not in raw
    assert b"Bob-before" not in raw


_ENROL_AND_FORGET = """
who, end = sys.argv[2], time.time() + float(sys.argv[3])
def work(k):
    rng, i = np.random.default_rng(k), 0
    while time.time() < end:
        i += 1
        name = f"{who}-{k}-{i}-gone-by-now"
        crop = rng.bytes(6000)
        gallery.enroll(name, unit(i, 4), crops=[crop] * 4)
        gallery.enroll(f"{who}-{k}-{i}-stays", unit(i))
        print(f"{who}-{k}-{i}-stays", flush=True)
        receipt = gallery.forget(name)
        assert receipt.found == 0, receipt
threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_two_processes_of_several_threads_that_enrol_and_forget_lose_nothing(tmp_path):
    path = tmp_path / "people.db"
    children = [start(_ENROL_AND_FORGET, path, who, 4) for who in ("p", "q")]
    ended = [(child.communicate(timeout=120), child.returncode) for child in children]
    assert [code for _, code in ended] == [0, 0], ended
    acknowledged = [name for (said, _), _ in ended for name in said.split()]
    assert len(acknowledged) > 4
    with Gallery(path, MODEL) as gallery:
        gallery.store.verify()
        assert sorted(s.name for s in gallery.subjects()) == sorted(acknowledged)
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"gone-by-now" not in raw


_EVERYTHING = """
import os, sqlite3
from pathlib import Path
from visavis.deploy.gallery.maintenance import export_gallery, import_gallery
from visavis.deploy.gallery.unknowns import drop_unknowns, keep_unknowns
opened = []
def note(event, arguments):
    name = os.fspath(arguments[0]) if event == "open" and not isinstance(arguments[0], int) else ""
    if isinstance(name, str) and Path(name).name in {"people.db" + end for end in ("", "-wal", "-shm", "-journal")}:
        opened.append(name)
sys.addaudithook(note)
gallery.enroll("Ada", unit(1, 3), crops=[b"crop"] * 3)
gallery.enroll_many(["Bob", "Cy"], unit(2, 2))
gallery.merge("Bob", "Cy"); gallery.update("Bob", name="Robert"); gallery.search(unit(1)); gallery.refresh()
gallery.forget("Ada"); gallery.enroll("Eve", unit(5), retention_days=1e-9); time.sleep(0.01); gallery.sweep()
keep_unknowns(gallery, list(unit(3, 2))); drop_unknowns(gallery)
gallery.store.verify(); gallery.store.backup(Path(sys.argv[1] + ".copy")); gallery.store.files()
export_gallery(gallery, sys.argv[1] + ".npz"); import_gallery(gallery, sys.argv[1] + ".npz")
Gallery(sys.argv[1]).close(); Gallery(sys.argv[1], read_only=True).close()
gallery.close()
assert Path(sys.argv[1]).is_file()
print(len(opened), *opened)
"""


def test_a_process_that_has_a_gallery_never_opens_its_files_beside_sqlite(tmp_path):
    """POSIX: closing any descriptor of a file gives up every lock the process has on it, SQLite's too."""
    assert run(_EVERYTHING, tmp_path / "people.db") == ["0"]


def test_a_file_that_is_shortened_while_it_is_searched_only_ends_early(tmp_path):
    path, stop = tmp_path / "log", threading.Event()
    path.write_bytes(os.urandom(1 << 22) + b"a piece of somebody erased")

    def shorten():
        while not stop.is_set():
            os.truncate(path, 0)
            os.truncate(path, 1 << 26)

    thread = threading.Thread(target=shorten)
    thread.start()
    try:
        searches = [search_files([path], [b"a piece of somebody erased"]) for _ in range(10)]
    finally:
        stop.set()
        thread.join()
    assert [search.problem for search in searches] == [""] * 10
    assert all(search.files == ("log",) for search in searches)


def test_a_piece_across_two_blocks_is_found(tmp_path):
    path, piece = tmp_path / "file", bytes(range(24))
    path.write_bytes(bytes((1 << 23) - 11) + piece + bytes(100))
    search = search_files([path, tmp_path / "absent"], [bytes(range(1, 25)), piece])
    assert search.found == (piece,)
    assert search.size == path.stat().st_size
    assert search.identities == ((path.stat().st_dev, path.stat().st_ino),)
