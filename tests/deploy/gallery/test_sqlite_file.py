"""Several processes on one gallery: nothing acknowledged is lost and nobody forgotten comes back."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import GalleryReplaced
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError

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
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()


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


_ENROLL_AND_FORGET = """
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


def test_two_processes_of_several_threads_that_enroll_and_forget_lose_nothing(tmp_path):
    path = tmp_path / "people.db"
    children = [start(_ENROLL_AND_FORGET, path, who, 4) for who in ("p", "q")]
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
from visavis.deploy.gallery.exchange import export_gallery, import_gallery
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
from visavis.deploy.enrollment import source_file
from visavis.errors import DataError
from visavis.vision import images
os.symlink(sys.argv[1] + "-wal", sys.argv[1] + ".jpg")
for task in (images.read_bytes, images.read, source_file, lambda path: import_gallery(gallery, path),
             lambda path: export_gallery(gallery, path), lambda path: gallery.store.backup(Path(path))):
    for end in ("", "-wal", "-shm", ".jpg"):
        try: task(sys.argv[1] + end)
        except (DataError, PermissionError): continue
        print("taken:", end)
gallery.close()
assert Path(sys.argv[1]).is_file()
print(len(opened), *opened)
"""


def test_a_process_that_has_a_gallery_never_opens_its_files_beside_sqlite(tmp_path):
    """POSIX: closing any descriptor of a file gives up every lock the process has on it, SQLite's too."""
    assert run(_EVERYTHING, tmp_path / "people.db") == ["0"]


_ASKED = """
def said(task):
    try: return task()
    except Exception as error: return type(error).__name__ + ": " + str(error)
for line in sys.stdin:
    verb, name = line.split()
    tasks = {"enroll": lambda: gallery.enroll(name, unit(len(name))).subject.name,
             "search": lambda: len(gallery.search(unit(1))), "list": lambda: [s.name for s in gallery.subjects()],
             "forget": lambda: gallery.forget(name).complete,
             "refresh": gallery.refresh, "sweep": gallery.sweep, "close": gallery.close}
    print(said(tasks[verb]), flush=True)
"""


class Server:
    """A process that has a gallery open and does what it is told."""

    def __init__(self, path):
        self.child = start(_ASKED, path)

    def __call__(self, words):
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(words + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip()


def names(path):
    with Gallery(path, MODEL) as gallery:
        gallery.store.verify()
        return [s.name for s in gallery.subjects()]


@pytest.mark.parametrize("end", ["closed", "exited", "killed"])
def test_a_server_whose_file_was_replaced_by_a_backup_acknowledges_nothing(tmp_path, end):
    path, copy = tmp_path / "people.db", tmp_path / "backup.db"
    server = Server(path)
    assert server("enroll Ada-0") == "Ada-0"
    run("from pathlib import Path; gallery.store.backup(Path(sys.argv[2]))", path, copy)
    assert server("enroll Bob-after-the-backup") == "Bob-after-the-backup"
    copy.replace(path)
    for words in ("enroll Cy", "search x", "list x", "forget Ada-0", "refresh x", "sweep x"):
        assert "GalleryReplaced" in server(words), words
        assert "the gallery was replaced" in server(words), words
    with pytest.raises(DataError, match=r"belong to the file that was here before.*delete people.db-wal"):
        Gallery(path, MODEL)
    for log in ("people.db-wal", "people.db-shm"):
        (tmp_path / log).unlink()
    with Gallery(path, MODEL) as restored:  # while the server still lives
        assert [s.name for s in restored.subjects()] == ["Ada-0"]
        restored.enroll("Dan-into-the-restored", unit(4))
        if end == "closed":
            server("close x")
        if end == "killed":
            server.child.kill()
        server.child.communicate(timeout=60)
        restored.enroll("Eve-into-the-restored", unit(5))
        assert (tmp_path / "people.db-wal").exists()
        listed = run(_LIST, path)
    assert listed == names(path) == ["Ada-0", "Dan-into-the-restored", "Eve-into-the-restored"]


def test_a_server_whose_file_was_removed_acknowledges_nothing_and_no_new_one_is_made_beside_its_log(tmp_path):
    path = tmp_path / "people.db"
    server = Server(path)
    server("enroll Ada")
    path.unlink()
    assert "GalleryReplaced" in server("enroll Bob")
    with pytest.raises(DataError, match="belong to the file that was here before"):
        Gallery(path, MODEL, create=True)
    for log in ("people.db-wal", "people.db-shm"):
        (tmp_path / log).unlink()
    with Gallery(path, MODEL, create=True) as fresh:
        fresh.enroll("Cy", unit(3))
        assert "GalleryReplaced" in server("forget Ada")
        server("close x")
    assert names(path) == ["Cy"]


@pytest.mark.parametrize("what", ["another gallery", "an older state"])
def test_what_is_restored_into_the_very_file_is_noticed(tmp_path, what):
    """As by the command .restore of the sqlite3 shell: the inode stays."""
    path, copy = tmp_path / "people.db", tmp_path / "copy.db"
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1))
        gallery.store.backup(copy)
        if what == "another gallery":
            copy = tmp_path / "other.db"
            with Gallery(copy, MODEL, create=True) as other:
                for i in range(9):
                    other.enroll(f"Bob {i}", unit(2))
        gallery.enroll("Cy", unit(2))
        run(_RESTORE, tmp_path / "unused.db", path, copy)
        for task in (lambda: gallery.enroll("Dan", unit(3)), lambda: gallery.search(unit(1)), gallery.sweep):
            with pytest.raises(GalleryReplaced):
                task()


_RESTORE = "import sqlite3; sqlite3.connect(sys.argv[3]).backup(sqlite3.connect(sys.argv[2]))"


def test_many_processes_may_make_one_gallery_at_the_same_moment(tmp_path):
    for attempt in range(3):
        path = tmp_path / f"{attempt}.db"
        children = [start(_MAKE, tmp_path / "none.db", path, i) for i in range(4)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        ended = [(child.communicate(timeout=60), child.returncode) for child in children]
        assert [code for _, code in ended] == [0] * 4, ended
        assert sorted(names(path)) == ["0", "1", "2", "3"]


_MAKE = """
print("ready", flush=True); sys.stdin.readline()
gallery = Gallery(sys.argv[2], ModelIdentity("fake", 32, "a" * 64), create=True)
gallery.enroll(sys.argv[3], unit(1))
"""


def test_killed_while_it_is_made_it_is_made_by_the_next(tmp_path):
    path = tmp_path / "people.db"
    for last in ("PRAGMA journal_mode", "CREATE TABLE subjects", "PRAGMA user_version = "):
        code = _DIE.replace("LAST", last)
        child = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, env=ENVIRONMENT, check=False
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        with pytest.raises(DataError, match="no such gallery"):
            Gallery(path, MODEL)
        with pytest.raises(DataError, match="no such gallery"):
            Gallery(path, MODEL, read_only=True)
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1))
    assert names(path) == ["Ada"]


_DIE = """
import os, signal, sqlite3, sys
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
class Dying(sqlite3.Connection):
    def execute(self, query, *values):
        answer = super().execute(query, *values)
        if query.startswith("LAST"): os.kill(os.getpid(), signal.SIGKILL)
        return answer
connect = sqlite3.connect
sqlite3.connect = lambda *names, **options: connect(*names, factory=Dying, **options)
Gallery(sys.argv[1], ModelIdentity("fake", 32, "a" * 64), create=True)
"""


def test_files_are_for_their_owner_only(tmp_path):
    path = tmp_path / "people.db"
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1))
        gallery.store.backup(tmp_path / "copy.db")
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert {"people.db", "people.db-wal", "people.db-shm", "people.db-inode"} <= set(modes)
    assert set(modes.values()) == {"0o600"}


def test_a_copy_without_its_log_says_so(tmp_path, caplog):
    path, copy, whole = tmp_path / "people.db", tmp_path / "copy.db", tmp_path / "whole.db"
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1))
        gallery.enroll("Bob", unit(2))
        run("import shutil; shutil.copy(sys.argv[2], sys.argv[3])", tmp_path / "none.db", path, copy)
        gallery.store.backup(whole)
    with Gallery(copy, MODEL) as lacking:
        assert lacking.store.lacks_log
        assert "copied while it was in use, without copy.db-wal" in caplog.text
    with Gallery(copy, MODEL) as lacking:
        assert lacking.store.lacks_log
    for good in (whole, path):
        with Gallery(good, MODEL) as gallery:
            assert not gallery.store.lacks_log
            assert [s.name for s in gallery.subjects()] == ["Ada", "Bob"]
    server = Server(path)
    server("enroll Cy")
    server.child.kill()
    server.child.wait()
    with Gallery(path, MODEL) as gallery:  # a log that is there is replayed
        assert not gallery.store.lacks_log
    assert names(path) == ["Ada", "Bob", "Cy"]


_UNTIL_FULL = """
import resource, signal
from visavis.deploy.gallery.records import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
kept = []
for i in range(10000):
    try:
        gallery.enroll(f"person-number-{i}", unit(i), crops=[np.random.default_rng(i).bytes(2000)])
        kept.append(i)
    except StorageError as error:
        print("refused", str(error).split(": ", 1)[1].split(";")[0].replace(" ", "_"))
        break
print("found", gallery.search(unit(kept[-1]), top=1)[0][0].name)
try:
    receipt = gallery.forget("person-number-0")
    print("forgotten", receipt.complete, receipt.note.replace(" ", "_") or "-")
except StorageError as error:
    print("not", "forgotten", str(error).replace(" ", "_"))
print(len(kept), *kept, flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("size", [500_000, 1_200_000])
def test_on_a_full_disk_what_was_acknowledged_stays_and_an_erasure_says_what_it_could_not_do(tmp_path, size):
    """A limit on the size of files stands for the disk: a write beyond it fails as there."""
    path = tmp_path / "people.db"
    run("", path)
    child = start(_UNTIL_FULL, path, size)
    said, wrong = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, wrong
    refused, found, forgotten, counted = (line.split() for line in said.splitlines())
    assert refused[0] == "refused"
    kept = [int(number) for number in counted[1:]]
    assert found == ["found", f"person-number-{kept[-1]}"]
    with Gallery(path, MODEL) as gallery:  # there is room again
        gallery.verify()
        names = {s.name for s in gallery.subjects()}
        if forgotten[0] == "forgotten":
            assert names == {f"person-number-{i}" for i in kept[1:]}
            assert forgotten[1] == "True" or len(forgotten[2]) > 20
        else:
            assert names == {f"person-number-{i}" for i in kept}
            assert gallery.forget("person-number-0").complete
        gallery.enroll("Ada", unit(1))
        assert gallery.forget("Ada").complete
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert np.random.default_rng(0).bytes(2000)[500:600] not in raw


def test_a_gallery_opened_by_a_link_keeps_its_log_where_the_file_is_and_notices_where_the_link_leads(tmp_path):
    disk, link = tmp_path / "disk", tmp_path / "people.db"
    disk.mkdir()
    link.symlink_to(disk / "a.db")
    with Gallery(link, MODEL, create=True) as gallery:
        gallery.enroll("Ada-of-the-disk", unit(1))
        assert {path.parent for path in gallery.store.files()} == {disk}
        assert gallery.forget("Ada-of-the-disk").complete
        with Gallery(disk / "b.db", MODEL, create=True) as other:
            other.enroll("Bob", unit(2))
        link.unlink()
        link.symlink_to(disk / "b.db")
        with pytest.raises(GalleryReplaced):
            gallery.enroll("Cy", unit(3))
    assert names(link) == ["Bob"]
    assert names(disk / "a.db") == []


def test_a_program_that_ends_without_closing_its_gallery_leaves_a_whole_file(tmp_path):
    path = tmp_path / "people.db"
    run("gallery.enroll('Ada', unit(1))", path)
    assert not path.with_name("people.db-wal").exists()
    with Gallery(path, MODEL) as gallery:
        assert not gallery.store.lacks_log
        assert [s.name for s in gallery.subjects()] == ["Ada"]


def test_a_receipt_is_not_complete_for_a_file_that_took_the_gallery_s_place(tmp_path, monkeypatch):
    path, other = tmp_path / "people.db", tmp_path / "other.db"
    with Gallery(other, MODEL, create=True):
        pass
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll("Ada Lovelace", unit(1))
        scrub = gallery.store.scrub
        monkeypatch.setattr(gallery.store, "scrub", lambda: scrub() and bool(other.replace(path)))
        receipt = gallery.forget("Ada Lovelace")
        assert not receipt.complete
        assert "it was replaced meanwhile" in receipt.note
