"""Which test files are nearest to a module: those that bear or say its name, import it, or import what imports it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

MOST = 12  # test files for one module
# Files that start servers and processes or draw thousands of cases: behind all others.
LONG = re.compile(
    "end_to_end|power_cut|torture|processes|sharing|page|proxies|examples|memory|fuzz|benchmarks|postgres"
)


class Reach:
    """Distances from test files to modules over the imports of both.

    Args:
        root: of the project.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {_name(path, root / "src"): path for path in sorted((root / "src" / "visavis").rglob("*.py"))}
        self.tests = sorted(path for path in (root / "tests").rglob("test_*.py"))

    @cached_property
    def defined(self) -> dict[tuple[str, str], str]:
        """(package, name) -> the module under the package that defines the name."""
        found: dict[tuple[str, str], str] = {}
        for module, path in self.modules.items():
            for node in ast.parse(path.read_bytes()).body:
                names = [getattr(node, "name", "")]
                if isinstance(node, ast.Assign | ast.AnnAssign):
                    names = [getattr(t, "id", "") for t in getattr(node, "targets", None) or [node.target]]
                parts = module.split(".")
                for depth in range(1, len(parts)):
                    for name in names:
                        found.setdefault((".".join(parts[:depth]), name), module)
        return found

    @cached_property
    def importers(self) -> dict[str, set[str]]:
        """Module -> the modules that import it."""
        found: dict[str, set[str]] = {}
        for module, path in self.modules.items():
            for imported in self._imports(path):
                found.setdefault(imported, set()).add(module)
        return found

    @cached_property
    def texts(self) -> dict[Path, str]:
        """Test file -> what stands in it."""
        return {test: test.read_text(encoding="utf-8") for test in self.tests}

    @cached_property
    def imported(self) -> dict[Path, set[str]]:
        """Test file -> the modules it imports, verbs of the command line it types among them."""
        found = {}
        for test in self.tests:
            modules = set(self._imports(test))
            text = self.texts[test]
            verbs = {m for m in self.modules if m.startswith("visavis.cli.") and f'"{m.rpartition(".")[2]}"' in text}
            found[test] = modules | (verbs if "visavis.cli" in text or "-m" in text else set())
        return found

    def nearest(self, file: str) -> list[str]:
        """The test files nearest to a source file, paths below the root, nearest first, `MOST` at most."""
        module = _name(self.root / file, self.root / "src")
        room, stem = module.split(".")[1] if "." in module else "", module.rpartition(".")[2]
        hops: list[set[str]] = [{module}]
        for _ in range(2):
            hops.append({user for known in hops[-1] for user in self.importers.get(known, ())})
        ranked = []
        for test in self.tests:
            hop = next((i for i, modules in enumerate(hops) if modules & self.imported[test]), None)
            named = len(stem) > 3 and stem.rstrip("s") in test.stem
            said = len(stem) > 3 and stem in self.texts[test]
            if hop is not None or named or said:
                away = test.relative_to(self.root / "tests").parts[0] != room
                is_long = bool(LONG.search(test.relative_to(self.root).as_posix()))
                ranked.append((is_long, 3 if hop is None else hop, not named, away, len(self.imported[test]), test))
        return [test.relative_to(self.root).as_posix() for *_, test in sorted(ranked)[:MOST]]

    def _imports(self, path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.modules)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("visavis"):
                for alias in node.names:
                    below = f"{node.module}.{alias.name}"
                    if below in self.modules:
                        yield below
                    elif node.module in self.modules:
                        yield self.defined.get((node.module, alias.name), node.module)
                        yield node.module


def _name(path: Path, base: Path) -> str:
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
