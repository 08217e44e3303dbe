"""Locks hold among real processes, and end with a killed one."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from visavis import files

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
