"""Who deploys on macOS or Windows: the same rooms import and work where Linux' own modules and calls are missing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import visavis

SOURCE = Path(visavis.__file__).parent
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "msvcrt", "winreg", "_winapi"}
CALLS = {
    "os": {
        "sched_getaffinity", "sched_setaffinity", "getloadavg", "sysconf", "statvfs", "uname", "fork", "forkpty",
        "killpg", "getuid", "geteuid", "getgid", "getpgid", "setsid", "setpgid", "chown", "fchown", "fchmod", "lchown",
        "mkfifo", "posix_fadvise", "posix_fallocate", "pread", "pwrite", "sendfile", "nice", "getrusage", "wait4",
        "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_TMPFILE", "memfd_create", "cpu_count",
    },
    "signal": {
        "SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "alarm", "setitimer",
        "pthread_sigmask", "sigwait", "pause", "set_wakeup_fd", "siginterrupt",
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT", "SO_PEERCRED", "fromfd", "send_fds", "recv_fds"},
    "mmap": {"MAP_SHARED", "MAP_PRIVATE", "PROT_READ", "PROT_WRITE", "MADV_DONTNEED", "MADV_HUGEPAGE"},
    "time": {"tzset", "clock_gettime", "pthread_getcpuclockid"},
}  # fmt: skip
PLACES = ("/proc/", "/sys/", "/dev/", "/etc/", "/tmp")
KNOW_THE_SYSTEM = {"files.py", "machine.py"}
# Rooms that run on Linux and macOS only, where these are the same.
TRAINING = ("train/", "distributed/")


def posix_only(path):
    """What of a file is not there on every system: (line, what)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = (node.module or "").partition(".")[0]
            found = [module] if module in MODULES else []
            found += [f"{module}.{alias.name}" for alias in node.names if alias.name in CALLS.get(module, ())]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = [f"{node.value.id}.{node.attr}"] if node.attr in CALLS.get(node.value.id, ()) else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(PLACES):
            found = [repr(node.value)]
        for what in found:
            yield node.lineno, what


def test_what_only_some_systems_have_stands_in_two_files():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name in KNOW_THE_SYSTEM:
            continue
        for line, what in posix_only(path):
            if not (name.startswith(TRAINING) and what.startswith(("os.", "signal.", "socket."))):
                found.append(f"{name}:{line}: {what}; files.py and machine.py know the system")
    assert found == []


ELSEWHERE = """
import os, signal, socket, subprocess, sys, threading, time
from pathlib import Path
import cv2, numpy, onnxruntime, fastapi, httpx, uvicorn, cryptography, faiss
import asyncio, multiprocessing, sqlite3, tempfile
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "getloadavg", "sysconf", "uname", "fork", "getuid", "geteuid", "fchmod",
             "killpg", "chown", "posix_fadvise", "pread", "pwrite", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGCHLD", "SIGPIPE", "alarm", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
sys.platform = sys.argv[1]
asyncio.ProactorEventLoop = asyncio.SelectorEventLoop  # uvicorn's choice on Windows

import importlib, pkgutil
import visavis
for room in ("files", "machine", "runtimes", "metrics", "vision", "synthetic", "models.load", "models.openvino",
             "models.import_onnx", "models.card", "data", "evaluate", "deploy", "cli"):
    module = importlib.import_module(f"visavis.{room}")
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        importlib.import_module(found.name)
assert "torch" not in sys.modules

from visavis.cli import main
home, model = Path(sys.argv[2]), sys.argv[3]
people, probe = str(home / "people.db"), str(home / "people" / "red" / "0.png")
assert main(["doctor", "--torch-seconds", "60"]) == 0
assert main(["enroll", people, str(home / "people"), "--model", model, "--aligned"]) == 0
assert main(["identify", people, probe, "--aligned"]) == 0
assert main(["verify", model, probe, str(home / "people" / "green" / "0.png"), "--aligned"]) == 0
assert main(["forget", people, "green"]) == 0

from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.server.app import create_app
from visavis.deploy.server.settings import ServiceSettings
recognizer = Recognizer.load(model)
app = create_app(recognizer, Gallery(people, recognizer.identity), ServiceSettings())
listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
thread.start()
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
for _ in range(500):
    if server.started:
        break
    time.sleep(0.02)
for path in ("/subjects", "/metrics"):
    assert httpx.get(url + path, timeout=30).status_code == 200, path
server.should_exit = True
thread.join(30)
print("done")
"""


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_deployment_works_where_linux_own_is_missing(color_model, colored_people, tmp_path, system):
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, system, str(tmp_path), str(color_model)],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
