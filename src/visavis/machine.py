"""What this process may use of its machine: cores, the container's quota, processor, memory, and where caches lie."""

from __future__ import annotations

import atexit
import ctypes
import functools
import getpass
import logging
import mmap
import os
import platform
import re
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)
ROOT = Path("/")
_THREADS = "VISAVIS_THREADS"


def usable_cores(root: Path = ROOT) -> int:
    """Cores this process may run on: its affinity, and no more than the quota of its container or batch job.

    A quota that is no whole number of cores is rounded down, to at least 1: more threads than that are held up. No more
    than `limit_threads` was told, either.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [float(count), *_quotas(root)]
    told = os.environ.get(_THREADS, "")
    if told.isdigit():
        limits.append(float(told))
    return max(1, int(min(limits)))


def limit_threads(count: int | None) -> None:
    """Let this process and its children compute with `count` threads; None: with as many as there are usable cores.

    To be called before anything that computes is imported: OpenMP's and the BLAS libraries' threads are counted then.
    """
    if count is not None:
        os.environ[_THREADS] = str(count)
    elif usable_cores() == (machine_cores() or 1):
        return  # what the libraries would take by themselves
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        if count is not None or variable not in os.environ:
            os.environ[variable] = str(usable_cores())


def machine_cores() -> int | None:
    """Cores of the whole machine, whoever may use them; None where the system does not tell."""
    return os.cpu_count()


def _quotas(root: Path) -> list[float]:
    """Cores allowed by each control group this process is in (cgroup v2 and v1), from its own up to the root."""
    found: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version_1 = "cpu" in controllers.split(",")
        if controllers and not version_1:
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if version_1 else "")
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if version_1:
                limit = [_read(folder / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period")]
            else:
                limit = _read(folder / "cpu.max").split()
            if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit() and int(limit[1]):
                found.append(int(limit[0]) / int(limit[1]))
            if folder == base:
                break
    return found


@contextmanager
def interrupts_held() -> Generator[None]:
    """Keep a Ctrl-C that reaches this thread waiting meanwhile; processes begun here see none until they ask to."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    name = re.search(r"^model name\s*:\s*(.+)$", _read(ROOT / "proc/cpuinfo"), re.M)
    return name.group(1).strip() if name else platform.processor() or platform.machine()


def instructions() -> frozenset[str]:
    """The instruction sets the processor says it has, by Linux's names; empty elsewhere."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(ROOT / "proc/cpuinfo"), re.M)
    return frozenset(flags.group(1).split()) if flags else frozenset()


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is loaded (Linux) or its tool is installed."""
    return (ROOT / "proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def memory_gb() -> dict[str, float]:
    """`MemTotal` and `MemAvailable` in 10⁹ bytes; empty where the system does not tell."""
    sizes = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", _read(ROOT / "proc/meminfo"), re.M)
    return {key: round(int(value) * 1024 / 1e9, 1) for key, value in sizes}


def resident_bytes() -> float:
    """Memory this process holds, where the system tells (Linux); NaN elsewhere."""
    fields = _read(ROOT / "proc/self/statm").split()
    return float(fields[1]) * mmap.PAGESIZE if len(fields) > 1 else float("nan")


def load_average() -> float | None:
    """Processes that wanted to run in the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def user_name() -> str:
    """Who runs this process: the name, or the number of a user without one, as in a container."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def cache_home() -> Path:
    """Where what can be made again is kept: $VISAVIS_CACHE, or visavis/ in $XDG_CACHE_HOME, usually ~/.cache.

    Where there is no home (no $HOME, no entry in passwd: many containers), a folder for as long as this process lasts.
    """
    if own := os.environ.get("VISAVIS_CACHE"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "visavis"
    try:
        return Path.home() / ".cache" / "visavis"
    except RuntimeError:
        return _passing_home()


@functools.cache
def _passing_home() -> Path:
    folder = tempfile.mkdtemp(prefix="visavis-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning("there is no home folder: caches are kept until this process ends; set VISAVIS_CACHE=FOLDER")
    return Path(folder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def release_memory() -> None:
    """Give freed memory back to the system, where its library keeps it (glibc)."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _c_library() -> object:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such handle
        return None
