"""Files are whole or not there, locks hold, among real processes and killed ones."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visavis import files
from visavis.errors import DataError
from visavis.files import atomic_file, digest_of, take_default_mode, write_atomically

SOURCE = Path(files.__file__).parents[1]
# Windows' lock of bytes, told by POSIX' own lock of bytes.
BYTES = """
import sys, types
import fcntl as posix
fake = types.ModuleType("msvcrt")
fake.LK_NBLCK, fake.LK_UNLCK = posix.LOCK_EX | posix.LOCK_NB, posix.LOCK_UN
fake.locking = lambda handle, mode, count: posix.lockf(handle, mode, count, 0, 1)
sys.modules["msvcrt"], sys.modules["fcntl"] = fake, None
"""
COUNT = """
import os, sys, time
from visavis.files import exclusive, lock_file, open_private
from pathlib import Path
how, path, total = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
for _ in range(40):
    if how == "file":
        with lock_file(path):
            n = int(total.read_text()); time.sleep(0.0005); total.write_text(str(n + 1))
    else:
        handle = open_private(path)
        with exclusive(handle):
            n = int(total.read_text()); time.sleep(0.0005); total.write_text(str(n + 1))
        os.close(handle)
"""
HOLD = """
import sys, time
from visavis.files import exclusive, open_private
with exclusive(open_private(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start(code, *words, windows=False):
    return subprocess.Popen(
        [sys.executable, "-c", (BYTES if windows else "") + code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="the Windows branch runs there by itself")
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("how", ["file", "handle"])
def test_nobody_is_between_another_s_read_and_write(tmp_path, how, windows):
    (tmp_path / "total").write_text("0")
    running = [start(COUNT, how, tmp_path / "lock", tmp_path / "total", windows=windows) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in running] == ["", "", ""]
    assert (tmp_path / "total").read_text() == "120"
    assert (tmp_path / "lock").exists() == (how == "handle")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("windows", [False, True])
def test_a_killed_holder_lets_go(tmp_path, windows):
    holder = start(HOLD, tmp_path / "lock", windows=windows)
    assert holder.stdout.readline() == "held\n"
    asking = (
        "import sys\nfrom visavis.files import exclusive, open_private\n"
        "try:\n    with exclusive(open_private(sys.argv[1]), wait=False): print('free')\n"
        "except BlockingIOError: print('busy')\n"
    )
    assert start(asking, tmp_path / "lock", windows=windows).communicate(timeout=30)[0] == "busy\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)
    assert start(asking, tmp_path / "lock", windows=windows).communicate(timeout=30)[0] == "free\n"


def test_without_any_lock_of_the_system_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "msvcrt", None)
    with files.lock_file(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX'")
def test_private_is_private_whatever_the_mask(tmp_path):
    before = os.umask(0)
    try:
        os.close(files.open_private(tmp_path / "secret"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def finished(processes):
    for process in processes:
        process.communicate()
    return [process.returncode for process in processes]


def test_what_was_written_is_there_with_its_folder(tmp_path):
    write_atomically(tmp_path / "new" / "file", b"abc")
    assert (tmp_path / "new" / "file").read_bytes() == b"abc"
    assert digest_of(tmp_path / "new" / "file").startswith("ba7816bf")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os if call == "fsync" else files.Path, call, full)
    with pytest.raises(DataError, match=r"file: cannot write \(No space left on device\)"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_fault_of_the_writer_passes_and_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "file", b"old")

    def fails():
        with atomic_file(tmp_path / "file") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_bytes_name_and_folder_reach_the_disk_in_this_order(tmp_path, monkeypatch):
    seen, fsync, replace = [], os.fsync, files.Path.replace

    def noted(descriptor):
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        return fsync(descriptor)

    def renamed(self, target):
        seen.append("rename")
        return replace(self, target)

    monkeypatch.setattr(files.os, "fsync", noted)
    monkeypatch.setattr(files.Path, "replace", renamed)
    write_atomically(tmp_path / "a", b"1")
    assert seen == ["file", "rename", "folder"]
    del seen[:]
    write_atomically(tmp_path / "b", b"1", durable=False)
    assert seen == ["rename"]


def test_modes_follow_the_umask_or_the_owner_alone(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "open", b"")
        write_atomically(tmp_path / "own", b"", private=True)
        with atomic_file(tmp_path / "early", private=True) as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600  # never open to others, not even unfinished
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o600


WRITER = """
import sys
from visavis.files import write_atomically
for i in range(60):
    write_atomically(sys.argv[1], sys.argv[2].encode() * 20_000)
"""


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"a" * 20_000)
    writers = [start(WRITER, path, letter) for letter in "abcd"]
    while any(w.poll() is None for w in writers):
        data = path.read_bytes()
        assert len(data) == 20_000
        assert len(set(data)) == 1
    assert finished(writers) == [0] * 4
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


HALF = """
import os, sys, time
from visavis.files import atomic_file
with atomic_file(sys.argv[1]) as file:
    file.write(b"half"); file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_kill_leaves_the_old_file_and_the_next_day_no_litter(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    writer = start(HALF, path)
    assert writer.stdout.readline() == "writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    assert path.read_bytes() == b"old"
    [left] = set(tmp_path.iterdir()) - {path}
    write_atomically(path, b"next")
    assert left.exists()  # for all one knows its writer is alive
    other = tmp_path / "file2.ab.part"
    other.write_bytes(b"")
    for part in (left, other):
        os.utime(part, (time.time() - 90_000,) * 2)
    write_atomically(path, b"later")
    assert sorted(tmp_path.iterdir()) == [path, other]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_file_a_library_wrote_read_only_gets_the_mode_the_umask_gives(tmp_path):
    """MindSpore writes a MINDIR with mode 0400."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_atomically(ours, b"")
    theirs.write_bytes(b"kept")
    theirs.chmod(0o400)
    take_default_mode(theirs)
    assert theirs.stat().st_mode == ours.stat().st_mode
    assert theirs.read_bytes() == b"kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours", "theirs"]
