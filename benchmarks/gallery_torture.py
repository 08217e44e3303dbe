"""Torture a gallery: many processes change it at once and are killed at any moment; then it must be as acknowledged.

    python benchmarks/gallery_torture.py [--store file|postgres] [--operations 10000] [--kills 30] [--seconds 900]

Two library processes of three threads, a service with three callers, and a command line that opens the gallery anew
each time enroll, add, identify, rename, merge and forget. One of them is killed (SIGKILL) every few seconds and another
takes its place. Under PostgreSQL connections are ended in the middle as well, and the server itself crashes and comes
back. Each answer is in a ledger outside the gallery, on the disk before the next operation begins. At the end the
gallery is compared with the ledgers, and its raw bytes are searched for everybody who was forgotten:

    lost      acknowledged and not there            back      forgotten and there
    wrong     a search answered with another        residues  bytes of somebody whose receipt said complete

Prints a table and writes results/gallery_torture.json. Exits 1 when anything was lost, back, wrong or left.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, about, write
from torture_ledger import MODEL, Judgment, State, face, judge

from visavis.deploy.gallery.opening import open_gallery

HERE = Path(__file__).resolve().parent
SLOTS = (("library", 3), ("library", 3), ("service", 3), ("command line", 1))


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("file", "postgres"), default="file")
    parser.add_argument("--operations", type=int, default=10_000, help="stop after so many acknowledged (10,000)")
    parser.add_argument("--kills", type=int, default=30, help="and so many kills (30)")
    parser.add_argument("--seconds", type=float, default=900, help="stop then in any case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "gallery_torture.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, ExitStack() as stack:
        result = torture(args, Path(folder), stack)
    stored = {**about(), **result}
    write(stored, args.out.with_name(f"{args.out.stem}_{args.store}.json"))
    return 0 if result["clean"] else 1


def torture(args: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Let the clients run and be killed, then judge."""
    place = _Postgres(stack) if args.store == "postgres" else _File(folder / "gallery")
    ledgers = folder / "ledgers"
    ledgers.mkdir()
    with open_gallery(place.address, MODEL, create=True):
        pass
    rng = random.Random(args.seed)
    herd = _Herd(place.address, ledgers, folder / "said", rng)
    start = time.monotonic()
    acknowledged = 0
    try:
        while time.monotonic() - start < args.seconds:
            time.sleep(rng.uniform(0.5, 2.5) if herd.kills < args.kills else 2)
            if herd.kills < args.kills:
                herd.kill_one()
            herd.replace_dead()
            place.disturb(rng)
            acknowledged = sum(path.read_text().count('"phase": "done"') for path in ledgers.glob("*.ledger"))
            if acknowledged >= args.operations and herd.kills >= args.kills:
                break
    finally:
        herd.end()
    seconds = time.monotonic() - start
    result = {
        "store": args.store, "seconds": round(seconds, 1), "kills": herd.kills, "processes": len(SLOTS),
        "disturbances": place.disturbances, "ended by a signal nobody sent": herd.strange,
        "uncaught": herd.uncaught(), **_compare(place, judge(ledgers)),
    }  # fmt: skip
    faults = ("lost", "back", "wrong", "residues", "ended by a signal nobody sent", "uncaught")
    return {**result, "clean": not any(result[key] for key in faults) and result["integrity"] == "ok"}


class _Herd:
    """The clients."""

    def __init__(self, address: str, ledgers: Path, said: Path, rng: random.Random) -> None:
        self._address, self._ledgers, self._said, self._rng = address, ledgers, said, rng
        said.mkdir()
        self.kills, self.strange, self._born = 0, [], 0
        self._ended: list[str] = []
        self._clients = [self._start(i) for i in range(len(SLOTS))]

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        kind, threads = SLOTS[slot]
        self._born += 1
        tag = f"{kind.replace(' ', '-')}-{self._born}"
        words = [self._address, str(self._ledgers), tag, kind, str(threads), str(10 * self._born)]
        with (self._said / f"{tag}.txt").open("wb") as said:
            return subprocess.Popen([sys.executable, str(HERE / "torture_worker.py"), *words], stdout=said, stderr=said)

    def kill_one(self) -> None:
        """Kill a client that has done something, in the middle of whatever it does."""
        slot = self._rng.randrange(len(SLOTS))
        self._clients[slot].kill()
        self._clients[slot].wait()
        self.kills += 1
        self._clients[slot] = self._start(slot)

    def replace_dead(self) -> None:
        """Note who ended by itself, which nobody should."""
        for slot, client in enumerate(self._clients):
            status = client.poll()
            if status is not None:
                self.strange.append(f"{SLOTS[slot][0]}: {status}")
                self._clients[slot] = self._start(slot)

    def end(self) -> None:
        """Kill them all, again in the middle."""
        for client in self._clients:
            status = client.poll()
            if status is not None:
                self.strange.append(f"{status}")
            client.send_signal(signal.SIGKILL)
            client.wait()

    def uncaught(self) -> list[str]:
        """Last lines of tracebacks that no client expected."""
        texts = [path.read_text(errors="replace") for path in self._said.glob("*.txt")]
        return [text.strip().splitlines()[-1][:300] for text in texts if "Exception in thread" in text]


class _File:
    """A gallery in a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.address = str(folder / "people.db")
        self.disturbances = 0

    def disturb(self, rng: random.Random) -> None:
        """Nothing but the kills."""

    def left_by_crashes(self) -> bytes:
        """Nothing."""
        return b""

    def raw(self) -> bytes:
        """Every byte of the folder."""
        return b"".join(path.read_bytes() for path in self._folder.iterdir() if path.is_file())


class _Postgres:
    """A gallery on a server of its own, which is disturbed too."""

    def __init__(self, stack: ExitStack) -> None:
        sys.path.insert(0, str(HERE.parent / "tests" / "support"))
        from postgres_server import PostgresServer

        self._server = PostgresServer(fsync=True)
        stack.callback(self._server.close)
        self.address = self._server.dsn
        self.disturbances = 0

    def disturb(self, rng: random.Random) -> None:
        """End some connections, and now and then the server."""
        import psycopg

        self.disturbances += 1
        if rng.random() < 0.05:
            self._server.kill()
            self._server.start()
            return
        with psycopg.connect(self.address, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'visavis' "
                "AND random() < 0.3"
            )

    def raw(self) -> bytes:
        """Every byte of the tables' files, without those a crash left behind, which belong to no table."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as admin:
            admin.execute("CHECKPOINT")
            rows = admin.execute("SELECT pg_relation_filenode(oid) FROM pg_class").fetchall()
        return self._server.table_bytes({str(row[0]) for row in rows if row[0]})

    def left_by_crashes(self) -> bytes:
        """Every byte of files that belong to no table: what the server was writing when it crashed."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as admin:
            rows = admin.execute("SELECT pg_relation_filenode(oid) FROM pg_class").fetchall()
        return self._server.table_bytes(without={str(row[0]) for row in rows if row[0]})


def _compare(place: Any, said: Judgment) -> dict[str, Any]:
    """The gallery beside what its clients were told."""
    raw = place.raw()
    residues = _residues(raw, {name: said.gone[name] for name in said.proved if name in said.gone})
    with open_gallery(place.address, MODEL) as gallery:
        try:
            gallery.store.verify()
            integrity = "ok"
        except Exception as error:
            integrity = str(error)
        there = _content(gallery, said)
        lost, back = _faults(there, said)
        scrubbed = gallery.store.scrub()
    after = _residues(place.raw(), said.gone)
    orphans = _residues(place.left_by_crashes(), said.gone)
    return {
        "operations": sum(said.operations.values()),
        "by kind": said.operations,
        "refused": said.refused,
        "undecided": said.undecided,
        "forgotten": len(said.gone),
        "of these complete": len(said.proved),
        "subjects": len(there),
        "lost": lost,
        "back": back,
        "wrong": said.wrong[:20],
        "residues": residues[:20],
        "residues after a last rewriting": after[:20] if scrubbed else "not rewritten",
        "pieces in files a crash of the server left": len(orphans),
        "integrity": integrity,
    }


def _content(gallery: Any, said: Judgment) -> State:
    """Subjects and the numbers of their faces."""
    numbers = {n for faces in said.sure.values() for n in faces}
    numbers |= {n for pair in said.either for state in pair for faces in state.values() for n in faces}
    numbers |= {n for faces in said.gone.values() for n in faces}
    known = {face(n).tobytes(): n for n in numbers}
    found: dict[str, set[int]] = {}
    with gallery.store.read() as db:
        query = "SELECT subjects.name, samples.vector FROM subjects LEFT JOIN samples ON samples.subject = subjects.id"
        for name, vector in db.execute(query).fetchall():
            found.setdefault(name, set())
            if vector is not None:
                found[name].add(known.get(bytes(vector), -1))
    return {name: frozenset(faces) for name, faces in found.items()}


def _faults(there: State, said: Judgment) -> tuple[list[str], list[str]]:
    """What was acknowledged and is not there, and what is there and must not be."""
    lost = [f"{n}: {sorted(f)} became {sorted(there.get(n, []))}" for n, f in said.sure.items() if there.get(n) != f]
    allowed = set(said.sure)
    for before, after in said.either:
        names = {*before, *after}
        allowed |= names
        now = {name: there[name] for name in names if name in there}
        if now not in (before, after):
            lost.append(f"neither {before} nor {after}, but {now}")
    back = [name for name in there if name not in allowed]
    living = {face_ for faces in there.values() for face_ in faces}
    gone = {face_ for faces in said.gone.values() for face_ in faces}
    back += [f"face {number}" for number in sorted(living & gone)]
    return lost[:20], back[:20]


def _residues(raw: bytes, gone: State) -> list[str]:
    """Names and embeddings of the forgotten that the bytes still hold."""
    left = []
    for name, faces in gone.items():
        if name.encode() in raw:
            left.append(f"name {name}")
        left += [f"face {n} of {name}" for n in faces if np.asarray(face(n)).tobytes()[8:120] in raw]
    return left


if __name__ == "__main__":
    sys.exit(main())
