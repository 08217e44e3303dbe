"""Work shared by processes: in order, few tasks in flight, and one line when a process dies."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import visavis
from visavis.errors import DataError
from visavis.processes import process_pool

SOURCE = Path(visavis.__file__).parent


class Adder:
    def __init__(self, number):
        self.number = number

    def __call__(self, task):
        if task == "die":
            os._exit(1)
        if task == "refuse":
            raise DataError("this one is refused")
        return self.number + task, os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("chunk", [1, 7])
def test_results_come_in_the_order_of_the_tasks(workers, chunk):
    with process_pool(Adder, 10, workers=workers) as pool:
        found = list(pool.map(range(40), chunk=chunk))
        again = list(pool.map([1]))
    assert [value for value, _ in found] == list(range(10, 50))
    assert again[0][0] == 11
    assert ({pid for _, pid in found} == {os.getpid()}) == (workers < 2)


def test_tasks_are_not_taken_long_before_they_are_done():
    taken = []

    def tasks():
        for i in range(1000):
            taken.append(i)
            yield i

    with process_pool(Adder, 0, workers=2) as pool:
        results = pool.map(tasks(), chunk=4)
        next(results)
        assert len(taken) <= (4 * 2 + 1) * 4
        results.close()


def work(*tasks):
    with process_pool(Adder, 0, workers=2, advice="type something else") as pool:
        return list(pool.map(tasks))


def test_a_dead_process_is_one_line_with_advice():
    with pytest.raises(DataError, match=r"worker process ended unexpectedly.*; type something else"):
        work(1, "die", 2)


def test_a_fault_of_a_task_is_its_own():
    with pytest.raises(DataError, match="this one is refused"):
        work(1, "refuse", 2)


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from visavis.processes import process_pool
class Slow:
    def __call__(self, task):
        time.sleep(0.2)
        return task
if __name__ == "__main__":
    with process_pool(Slow, workers=2) as pool:
        for i in pool.map(range(1000)):
            print(i, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="no process groups of this kind there")
def test_ctrl_c_is_the_callers_alone(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SCRIPT)
    running = subprocess.Popen(
        [sys.executable, str(script), str(SOURCE.parent)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout.readline() == "0\n"
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    begun = time.monotonic()
    _, said = running.communicate(timeout=30)
    assert time.monotonic() - begun < 15
    assert said.count("Traceback") == 1  # the caller's KeyboardInterrupt; no worker's


def test_nobody_starts_processes_of_his_own():
    found = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(a.name == "ProcessPoolExecutor" for a in node.names)
    ]
    assert found == ["processes.py"]
