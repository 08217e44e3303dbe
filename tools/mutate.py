"""Plant small faults in copies of src/visavis and see whether the tests that import it notice.

    python tools/mutate.py --count 120 --seed 1 --out faults.jsonl      (goes on where the file ends)

Lines are drawn at random, each room by its share of the code and at least `--least` of it; the operator is drawn among
those that fit the line. A fault is killed when a test of the nearest test files fails that passes without it, or when
they take more than `--cpu-seconds`. What nobody noticed is written with status "survived", for a person to judge
(docs/testing.md).
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from nearest_tests import Reach

ROOT = Path(__file__).resolve().parents[1]
COMPARE: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
PRELOADED = [
    "numpy",
    "cv2",
    "PIL.Image",
    "torch",
    "torch.distributed.tensor",
    "yaml",
    "jsonargparse",
    "rich.progress",
    "scipy.stats",
    "sklearn.metrics",
    "hypothesis",
    "hypothesis.strategies",
    "_hypothesis_pytestplugin",
    "xdist.plugin",
    "pytest_timeout",
    "onnx",
    "onnxruntime",
    "jinja2",
    "fastapi",
    "matplotlib.figure",
]
LOGGED = {"debug", "info", "warning"}


@dataclass(frozen=True)
class Fault:
    """One small change: what stands between two places of a file, and what is put there."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    start: int
    end: int

    def apply(self, source: bytes) -> bytes:
        """The file with the fault."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def faults_of(file: str, source: bytes) -> list[Fault]:
    """Every fault the operators know for a file."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, operator, after in _changes(tree):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = source[begin:end].decode()
        found.append(Fault(file, node.lineno, operator, before, after, begin, end))
    return found


def _changes(tree: ast.AST) -> Iterator[tuple[Any, str, str]]:
    skipped = {id(inner) for node in ast.walk(tree) for part in _no_code(node) for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) not in skipped:
            yield from _changes_of(node)


def _no_code(node: ast.AST) -> list[ast.AST]:
    """Parts of a node that no test could tell: annotations, decorators, log lines, names of __all__, f-strings."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
        hints = [argument.annotation for argument in arguments if argument]
        return [part for part in (node.returns, *hints, *node.decorator_list) if part]
    if isinstance(node, ast.ClassDef):
        return list(node.decorator_list)
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    if isinstance(node, ast.Assign) and "__all__" in [getattr(target, "id", "") for target in node.targets]:
        return [node]
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return [node]
    if isinstance(node, ast.JoinedStr):
        return [node]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGED:
        return [node]
    return []


def _changes_of(node: ast.AST) -> Iterator[tuple[Any, str, str]]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            operators = [*node.ops[:place], COMPARE[type(operator)](), *node.ops[place + 1 :]]
            yield node, "comparison", f"({ast.unparse(ast.Compare(node.left, operators, node.comparators))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        yield node, "arithmetic", f"({ast.unparse(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        kind = "boolean" if isinstance(node.op, ast.Not) else "arithmetic"
        yield node, kind, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, "boolean", f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield node.test, "boolean", f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.Constant) and (after := _other_constant(node.value)) is not None:
        yield node, "constant", after
    elif isinstance(node, ast.AugAssign):
        yield node, "removed statement", "pass"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        call = node.value.func if isinstance(node.value, ast.Call) else None
        if not (isinstance(call, ast.Attribute) and call.attr in LOGGED):
            yield node, "removed statement", "pass"
    elif isinstance(node, ast.Raise | ast.Continue | ast.Break):
        yield node, "removed statement", "pass"
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        yield node, "return value", "return None"


def _other_constant(value: object) -> str | None:
    if isinstance(value, bool):
        return str(not value)
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float):
        return repr(value * 1.5 if value else 1.0)
    return None


def _is_text(node: ast.BinOp) -> bool:
    """Whether a sum joins texts, whose wording tests rightly leave alone, or a bar joins types."""
    sides = (node.left, node.right)
    texts = any(
        isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and isinstance(s.value, str)) for s in sides
    )
    types = isinstance(node.op, ast.BitOr) and any(isinstance(s, ast.Constant) and s.value is None for s in sides)
    return texts or types


def draw(root: Path, *, count: int, least: int, seed: int) -> list[Fault]:
    """Faults on lines drawn at random: rooms by their share of the lines, at least `least` each, no line twice."""
    rooms: dict[str, dict[tuple[str, int], list[Fault]]] = {}
    for path in sorted((root / "src" / "visavis").rglob("*.py")):
        file = path.relative_to(root).as_posix()
        room = path.relative_to(root / "src" / "visavis").parts[0]
        for fault in faults_of(file, path.read_bytes()):
            rooms.setdefault(room if "." not in room else "single files", {}).setdefault((file, fault.line), []).append(
                fault
            )
    rng, every = random.Random(seed), sum(map(len, rooms.values()))
    drawn = []
    for _, lines in sorted(rooms.items()):
        wanted = min(len(lines), max(least, round(count * len(lines) / every)))
        drawn += [rng.choice(lines[place]) for place in rng.sample(sorted(lines), wanted)]
    return sorted(drawn, key=lambda fault: random.Random(f"{seed} {fault.file} {fault.start} {fault.end}").random())


class Bench:
    """A copy of the tree where the tests nearest to a fault run; a test that fails with it must pass without it."""

    def __init__(self, root: Path, *, files: int, cpu_seconds: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutate-")) / "tree"
        self.folder.parent.chmod(0o755)  # a database server of the tests has a user of its own
        for name in ("home", "tmp"):
            (self.folder.parent / name).mkdir()
            (self.folder.parent / name).chmod(0o777)
        names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout.decode()
        for name in filter(None, names.split("\0")):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, self.folder / name)
        self.reach, self.files, self.cpu_seconds = Reach(self.folder), files, cpu_seconds
        self.fails: dict[str, bool] = {}  # test -> whether it fails without a fault

    def judge(self, fault: Fault) -> dict[str, Any]:
        """Run the nearest tests against a fault: its status and the test that noticed."""
        tests = self.reach.nearest(fault.file)[: self.files]
        if not tests:
            return {"status": "no test", "ran": []}
        broken = [test for test, fails in self.fails.items() if fails]
        while True:
            with self.planted(fault):
                status, by = self.run(tests, without=broken)
            if status != "failed" or not by or not self._fails_anyway(by):
                return {"status": status if status == "survived" else f"killed: {status}", "by": by, "ran": tests}
            broken.append(by)

    @contextmanager
    def planted(self, fault: Fault) -> Iterator[None]:
        """The copy with the fault, for as long as the block lasts."""
        path = self.folder / fault.file
        own = path.read_bytes()
        path.write_bytes(fault.apply(own))
        try:
            yield
        finally:
            path.write_bytes(own)

    def _fails_anyway(self, test: str) -> bool:
        if test not in self.fails:
            self.fails[test] = self.run([test])[0] != "survived"
        return self.fails[test]

    def run(self, tests: list[str], *, without: Sequence[str] = ()) -> tuple[str, str]:
        """Run tests until one fails: survived, failed or too slow; and the test."""
        command = [
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "-n",
            "0",
            "-x",
            "-q",
            "--tb=no",
            "-rfE",
            "-p",
            "no:cacheprovider",
        ]
        command += [*(f"--deselect={test}" for test in without), *tests]
        with tempfile.TemporaryFile() as output:
            status = self._in_a_fork(command, output)
            output.seek(0)
            found = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output.read().decode(errors="replace"), re.M)
            if status > 0 and not found and status != 5:
                output.seek(0)
                raise SystemExit(f"pytest could not run {tests}:\n{output.read().decode(errors='replace')[-2000:]}")
        if status in (0, 5):
            return "survived", ""
        return ("failed", found[0] if found else "") if status > 0 else ("too slow", "")

    def _in_a_fork(self, command: list[str], output: IO[bytes]) -> int:
        """Run pytest in a fork of this process, which has what is slow to import; its exit code, or minus a signal."""
        child = os.fork()
        if child == 0:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_seconds, self.cpu_seconds + 5))
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            beside, source = self.folder.parent, str(self.folder / "src")
            os.environ |= {"PYTHONPATH": source, "HOME": str(beside / "home"), "TMPDIR": str(beside / "tmp")}
            tempfile.tempdir, sys.dont_write_bytecode = None, True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            os.chdir(self.folder)
            sys.path.insert(0, source)
            status = int(pytest.main(command))
            sys.stdout.flush()
            os._exit(status)
        end = time.monotonic() + 20 * self.cpu_seconds
        found = status = 0
        while not found and time.monotonic() < end:
            time.sleep(0.05)
            found, status = os.waitpid(child, os.WNOHANG)
        with suppress(ProcessLookupError):  # what tests started and a fault kept alive
            os.killpg(child, 9)
        if not found:
            os.waitpid(child, 0)
            return -9
        return os.waitstatus_to_exitcode(status)


def survivors(file: Path, root: Path) -> list[Fault]:
    """The faults that survived in an earlier run, where they stand now; those whose code is gone are left out."""
    kept = []
    for entry in map(json.loads, file.read_text().splitlines()):
        path = root / entry["file"]
        if not entry["status"].startswith("killed") and path.exists():
            same = [
                fault for fault in faults_of(entry["file"], path.read_bytes())
                if all(getattr(fault, key) == entry[key] for key in ("operator", "before", "after"))
            ]  # fmt: skip
            kept += sorted(same, key=lambda fault: abs(fault.line - entry["line"]))[:1]
    return kept


def main() -> None:
    """Draw, plant, run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--least", type=int, default=3, help="faults of every room at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each fault")
    parser.add_argument("--files", type=int, default=4, help="test files to run for a fault at most")
    parser.add_argument(
        "--cpu-seconds", type=int, default=120, help="of tests for a fault; beyond, it counts as killed"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="of another project with src/visavis and tests")
    parser.add_argument("--again", type=Path, metavar="FILE", help="only those that survived in FILE")
    args = parser.parse_args()
    for name in PRELOADED if args.root == ROOT else ():
        with suppress(ImportError):
            importlib.import_module(name)
    known = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(entry["file"], entry["start"], entry["end"], entry["after"]) for entry in known}
    bench = Bench(args.root, files=args.files, cpu_seconds=args.cpu_seconds)
    drawn = draw(bench.folder, count=args.count, least=args.least, seed=args.seed)
    if args.again:
        drawn = survivors(args.again, bench.folder)
    for fault in drawn:
        if (fault.file, fault.start, fault.end, fault.after) not in done:
            entry = {**asdict(fault), **bench.judge(fault)}
            with args.out.open("a") as file:
                file.write(json.dumps(entry) + "\n")
    shutil.rmtree(bench.folder.parent)


if __name__ == "__main__":
    main()
