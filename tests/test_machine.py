import os
import signal
import subprocess
import sys
import threading

import pytest

from visavis import machine


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of 8 cores; `write(path, text)` puts what its kernel says."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_a_container_s_quota_counts(root, limit, cores):
    assert machine.usable_cores(root("sys/fs/cgroup/cpu.max", limit)) == cores


def test_a_group_is_bound_by_those_above_it(root):
    root("proc/self/cgroup", "0::/batch/job7\n")
    root("sys/fs/cgroup/batch/job7/cpu.max", "max 100000\n")
    assert machine.usable_cores(root("sys/fs/cgroup/batch/cpu.max", "300000 100000\n")) == 3


def test_cgroup_version_1(root):
    root("proc/self/cgroup", "5:memory:/box\n4:cpu,cpuacct:/box\n")
    root("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert machine.usable_cores(root("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n")) == 8
    assert machine.usable_cores(root("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "400000\n")) == 4


def test_where_the_system_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.usable_cores(tmp_path) == 1
    assert machine.load_average() is None
    assert machine.memory_gb() == {}
    assert machine.instructions() == frozenset()
    assert machine.resident_bytes() != machine.resident_bytes()
    assert isinstance(machine.processor(), str)


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    for name in ("VISAVIS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.cache_home() == tmp_path / ".cache" / "visavis"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert machine.cache_home() == tmp_path / "x" / "visavis"
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "own"))
    assert machine.cache_home() == tmp_path / "own"


def test_without_a_home_the_cache_lasts_as_long_as_the_process(monkeypatch, tmp_path):
    for name in ("VISAVIS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    machine._passing_home.cache_clear()
    assert machine.cache_home().parent == tmp_path
    assert machine.cache_home() == machine.cache_home()
    machine._passing_home.cache_clear()


def test_threads_are_no_more_than_was_told(root, monkeypatch):
    """For this process, and by the environment for its children and what they import."""
    folder = root("sys/fs/cgroup/cpu.max", "400000 100000")
    for variable in ("VISAVIS_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "9")
    monkeypatch.setenv("OPENCV_FOR_THREADS_NUM", "9")
    assert machine.usable_cores(folder) == 4
    machine.limit_threads(3)
    assert machine.usable_cores(folder) == 3
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENCV_FOR_THREADS_NUM"] == "3"
    machine.limit_threads(6)
    assert machine.usable_cores(folder) == 4


def test_the_libraries_heed_the_quota_where_nobody_says(monkeypatch):
    monkeypatch.delenv("VISAVIS_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS")
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "machine_cores", lambda: 16)
    machine.limit_threads(None)
    assert os.environ["OMP_NUM_THREADS"] == "7"  # a user's own word
    assert os.environ["MKL_NUM_THREADS"] == "2"
    monkeypatch.delenv("MKL_NUM_THREADS")
    monkeypatch.setattr(machine, "machine_cores", lambda: 2)
    machine.limit_threads(None)
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_freed_memory_goes_back():
    script = (
        "import threading; from visavis.machine import release_memory\n"
        "size = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "def fill():\n"
        "    kept = [b'x' * (100_000 + i % 7) for i in range(2000)]\n"
        "    last.extend(kept[::40])\n"
        "last, before = [], size()\n"
        "t = threading.Thread(target=fill); t.start(); t.join()\n"
        "held = size() - before; release_memory(); print(held, size() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    held, left = map(float, done.stdout.split())
    if held < 50:
        pytest.skip("this C library gives memory back by itself")
    assert left < 20


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_ctrl_c_waits_while_it_is_held_and_arrives_afterwards():
    before, arrived = signal.pthread_sigmask(signal.SIG_BLOCK, ()), []
    former = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    try:
        with machine.interrupts_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            assert not arrived
        assert arrived == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, former)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_where_there_are_no_signal_masks_nothing_is_held(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    with machine.interrupts_held():
        pass
