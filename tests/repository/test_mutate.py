"""The tool that plants faults: what it changes, that what it draws can be drawn again, and what it calls killed."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
mutate = pytest.importorskip("mutate")
sys.path.remove(str(ROOT / "tools"))

SOURCE = '''"""A room."""

from __future__ import annotations

import logging

LIMIT: int = 3


def clipped(x: int | None, *, most: int = LIMIT) -> int:
    """Words with 7 < 8."""
    logging.info("seen %d", x + 1)
    if x is None or x < 0:
        raise ValueError(f"no {x - 1}")
    x += 1
    return min(x, most) * 2
'''


def test_what_is_changed_is_code_that_a_test_could_tell():
    source = SOURCE.encode()
    found = mutate.faults_of("room.py", source)
    kinds = {(fault.operator, fault.before, fault.after) for fault in found}
    assert kinds == {
        ("constant", "3", "4"),
        ("boolean", "x is None or x < 0", "(x is None and x < 0)"),
        ("boolean", "x is None or x < 0", "(not (x is None or x < 0))"),
        ("comparison", "x is None", "(x is not None)"),
        ("comparison", "x < 0", "(x <= 0)"),
        ("constant", "0", "1"),
        ("removed statement", 'raise ValueError(f"no {x - 1}")', "pass"),
        ("removed statement", "x += 1", "pass"),
        ("constant", "1", "2"),
        ("arithmetic", "min(x, most) * 2", "(min(x, most) / 2)"),
        ("constant", "2", "3"),
        ("return value", "return min(x, most) * 2", "return None"),
    }
    for fault in found:
        changed = fault.apply(source)
        assert changed != source
        ast.parse(changed)


def test_every_room_is_drawn_from_and_a_seed_draws_the_same_again():
    drawn = mutate.draw(ROOT, count=60, least=2, seed=5)
    assert drawn == mutate.draw(ROOT, count=60, least=2, seed=5)
    assert drawn != mutate.draw(ROOT, count=60, least=2, seed=6)
    assert len({(fault.file, fault.line) for fault in drawn}) == len(drawn) >= 60
    rooms = {path.name for path in (ROOT / "src" / "visavis").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {Path(fault.file).parts[2] for fault in drawn} >= rooms - {"recipes", "__pycache__"}


def test_a_fault_that_a_test_tells_is_killed_and_another_survives(tmp_path):
    (tmp_path / "src" / "visavis").mkdir(parents=True)
    (tmp_path / "src" / "visavis" / "__init__.py").write_text("")
    (tmp_path / "src" / "visavis" / "room.py").write_text("def twice(x):\n    return x * 2\n\n\nUNUSED = 1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_room.py").write_text(
        "from visavis.room import twice\n\n\ndef test_always():\n    assert False\n\n\n"
        "def test_twice():\n    assert twice(3) == 6\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n')
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    out = tmp_path / "faults.jsonl"
    command = [sys.executable, ROOT / "tools" / "mutate.py", "--root", tmp_path, "--count", "2", "--out", out]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found = {entry["line"]: (entry["status"], entry["by"]) for entry in map(json.loads, out.read_text().splitlines())}
    assert found == {
        2: ("killed: failed", "tests/test_room.py::test_twice"),  # not by the test that fails without it too
        5: ("survived", ""),
    }
