"""Tests mirror the house: whoever edits a file of src sees by its path which file of tests to run.

`tests/A/B/test_C.py` tests `src/visavis/A/B/C.py`, or the room `A/B` where C is B. A file that holds one aspect alone
adds words: `test_C_ASPECT.py`. What only several rooms show together lies in `tests/end_to_end`, what is about the
repository in `tests/repository`, what tests share in `tests/support`.
"""

import re
import tomllib
from pathlib import Path

import pytest
from paths import ROOT, TESTS

SOURCE = ROOT / "src" / "visavis"
WHOLE = ("end_to_end", "repository", "support")
FEW_LINES = 15
ELSEWHERE = tomllib.loads((TESTS / "repository" / "tested_elsewhere.toml").read_text())


def modules() -> list[Path]:
    """Every module with more than a few lines, relative to the package."""
    return sorted(
        path.relative_to(SOURCE)
        for path in SOURCE.rglob("*.py")
        if len(path.read_text().splitlines()) > FEW_LINES
    )  # fmt: skip


def test_files() -> list[Path]:
    return sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))


test_files.__test__ = False


def subject(name: Path) -> Path | None:
    """What a test file is about: a module or a room of the package; None if its path names neither."""
    room = SOURCE / name.parent
    words = name.stem.removeprefix("test_").split("_")
    for count in range(len(words), 0, -1):
        word = "_".join(words[:count])
        for module in (f"{word}.py", f"_{word}.py", f"{word}_.py"):
            if (room / module).is_file():
                return name.parent / module
        if word == room.name and (room / "__init__.py").is_file():
            return name.parent / "__init__.py"
    return None


def test_a_test_file_names_what_it_tests():
    lost = [f"tests/{n}" for n in test_files() if n.parts[0] not in WHOLE and subject(n) is None]
    assert not lost, f"no file or room of src/visavis bears their names; whole-program tests lie in {WHOLE}: {lost}"


def test_a_module_has_its_tests_or_says_where_they_are():
    own = {subject(name) for name in test_files()}
    missing = [str(m) for m in modules() if m not in own and m.as_posix() not in ELSEWHERE]
    assert not missing, f"no test file of their own, nor listed in tests/repository/tested_elsewhere.toml: {missing}"


def test_what_is_tested_elsewhere_is_there():
    for module, places in ELSEWHERE.items():
        assert (SOURCE / module).is_file(), f"src/visavis/{module} is gone: remove its line"
        for place in places.split():
            assert (TESTS / place).exists(), f"tests/{place}, said to test {module}, is not there"


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("deploy/gallery/test_sqlite.py", "deploy/gallery/sqlite.py"),
        ("deploy/gallery/test_sqlite_file_power_cut.py", "deploy/gallery/sqlite_file.py"),
        ("deploy/gallery/test_gallery_contract.py", "deploy/gallery/__init__.py"),
        ("cli/test_import.py", "cli/import_.py"),
        ("test_moved.py", "_moved.py"),
        ("deploy/test_sqlite.py", None),
        ("nowhere/test_files.py", None),
    ],
)
def test_the_rule(name, about):
    assert subject(Path(name)) == (Path(about) if about else None)


def test_no_path_is_counted_upwards():
    """Where the repository lies is said once, in tests/support/paths.py; a file that moves keeps its paths."""
    counted = re.compile(r"Path\(__file__\)(\.resolve\(\))?\.parents?\b(\[\d\]|\.parent)")
    found = [f"tests/{n}" for n in test_files() if counted.search((TESTS / n).read_text())]
    assert not found, f"take the path from tests/support/paths.py: {found}"
