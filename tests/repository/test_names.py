"""One name for one thing: no two public classes share a name, and the words that hindered do not come back."""

import ast
import collections

from paths import ROOT

SOURCE = ROOT / "src" / "visavis"


def classes():
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path.relative_to(SOURCE).as_posix()


def test_no_two_public_classes_share_a_name():
    homes = collections.defaultdict(list)
    for name, path in classes():
        homes[name].append(path)
    assert len(homes) > 200
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def identifiers(path):
    """Names of the file's own: of functions, classes, arguments, variables and attributes it sets."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_a_picture_is_called_image_in_code():
    named = {(p.name, name) for p in SOURCE.rglob("*.py") for name in identifiers(p) if "picture" in name.lower()}
    assert not named, "say image (prose may say picture)"
