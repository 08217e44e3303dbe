"""The benchmarks share one harness: where they ran, whose turn it is, and the file."""

import json
import sys

import pytest
from paths import BENCHMARKS


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import harness

    yield harness
    del sys.modules["harness"]


def test_nobody_asks_for_the_machine_or_the_commit_himself():
    own = [
        f"{path.name}: {word}"
        for path in sorted(BENCHMARKS.glob("*.py"))
        for word in ("rev-parse", "platform.processor", "platform.machine", "/proc/cpuinfo")
        if path.name != "harness.py" and word in path.read_text(encoding="utf-8")
    ]
    assert own == []


def test_tasks_take_turns_and_the_first_round_is_not_counted(harness):
    order, now = [], [0.0]

    def task(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    found = harness.take_turns({"a": task("a", 2.0), "b": task("b", 6.0)}, 3, clock=lambda: now[0], count=2)
    assert order == ["a", "b"] * 4
    assert found["a"] == {"median": 1.0, "min": 1.0, "max": 1.0, "spread": 0.0}
    assert found["b"]["median"] == 3.0


def test_a_result_says_where_it_is_from(harness, tmp_path, capsys):
    harness.write({**harness.about(threads=1, packages=["pytest"], runs=3)}, tmp_path / "new" / "r.json")
    stored = json.loads((tmp_path / "new" / "r.json").read_text())
    assert json.loads(capsys.readouterr().out) == stored
    assert stored["machine"]["threads"] == 1
    assert stored["versions"]["pytest"] == pytest.__version__
    assert {"processor", "cores", "load_average"} <= set(stored["machine"])
    assert stored["runs"] == 3
    assert stored["commit"]
