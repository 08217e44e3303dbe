"""What the torture of a gallery was told was kept, and whether it is: a log of every operation, fsynced outside.

Each thread writes what it begins and what it was answered, and works on subjects of its own. After a kill nobody
touches its subjects any more; what it had begun and not finished may have happened or not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.index import unit_vectors
from visavis.deploy.gallery.model_identity import ModelIdentity

DIM = 64
MODEL = ModelIdentity("torture", DIM, "d" * 64)
State = dict[str, frozenset[int]]  # the subjects of a thread and the numbers of their faces


def face(number: int) -> npt.NDArray[np.float32]:
    """The embedding (DIM,) with a number: one that storing does not change, so that its bytes can be searched for."""
    seed = int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    while True:
        row = unit_vectors(rng.standard_normal((1, DIM)).astype(np.float32), DIM)
        if np.array_equal(unit_vectors(row, DIM), row):  # some are never done: their last bits go round in a circle
            return row[0]


class Ledger:
    """One thread's log; a line is on the disk before the next thing is done."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, phase: str, **values: Any) -> None:
        """One line."""
        os.write(self._handle, (json.dumps({"phase": phase, **values}) + "\n").encode())
        os.fsync(self._handle)


@dataclass
class Judgment:
    """What the ledgers say must be so, and how many operations of which kind they hold."""

    sure: State = field(default_factory=dict)  # names with exactly these faces
    either: list[tuple[State, State]] = field(default_factory=list)  # as before an operation, or as after it
    gone: dict[str, frozenset[int]] = field(default_factory=dict)  # forgotten and acknowledged
    proved: set[str] = field(default_factory=set)  # of those, with a complete receipt
    operations: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    undecided: int = 0
    wrong: list[str] = field(default_factory=list)  # answers of searches that cannot be


def judge(folder: Path) -> Judgment:
    """Read every ledger of a folder."""
    result = Judgment()
    for path in sorted(folder.glob("*.ledger")):
        _judge(list(_lines(path)), result)
    return result


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().split("\n")[:-1]:  # the last one may have been cut by a kill
        yield json.loads(line)


def _judge(lines: list[dict[str, Any]], result: Judgment) -> None:
    state: State = {}
    open_: dict[str, Any] | None = None
    loose: set[str] = set()
    for line in [*lines, {"phase": "undecided"}]:
        if line["phase"] == "wrong":
            result.wrong.append(line["what"])
        elif line["phase"] == "begin":
            open_ = line
        elif open_ is not None:
            before = {name: state[name] for name in _names(open_) if name in state}
            after = _after(open_, before)
            if line["phase"] == "done":
                result.operations[open_["kind"]] = result.operations.get(open_["kind"], 0) + 1
                _keep(state, open_, after)
                if open_["kind"] == "forget":
                    result.gone |= before
                    result.proved |= set(before) if line["complete"] else set()
            elif line["phase"] == "refused":
                result.refused += 1
            else:
                result.undecided += 1
                result.either.append((before, after))
                loose |= set(_names(open_))
                for name in _names(open_):
                    state.pop(name, None)
            open_ = None
    result.sure |= {name: faces for name, faces in state.items() if name not in loose}


def _names(operation: dict[str, Any]) -> list[str]:
    return [operation[key] for key in ("name", "other") if key in operation]


def _after(operation: dict[str, Any], before: State) -> State:
    name, kind = operation["name"], operation["kind"]
    faces = before.get(name, frozenset())
    if kind in ("enroll", "add"):
        return {name: faces | set(operation["faces"])}
    if kind == "rename":
        return {operation["other"]: faces}
    if kind == "merge":
        return {name: faces | before.get(operation["other"], frozenset())}
    return {} if kind == "forget" else dict(before)


def _keep(state: State, operation: dict[str, Any], after: State) -> None:
    for name in _names(operation):
        state.pop(name, None)
    state |= after
