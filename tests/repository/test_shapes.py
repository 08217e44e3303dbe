"""Public functions that take or give arrays state their shapes, and tests hold the arrays against them."""

import ast
import importlib
import importlib.util
import re

import numpy as np
import pytest
import shape_checks
from paths import ROOT

SOURCE = ROOT / "src" / "visavis"
ARRAY = re.compile(r"\b(\w*Array|NDArray|Tensor|Matrix|ndarray)\b")
ANNOTATED = re.compile(r"(?<![\w.])(Bool|Float|Integer|Num|Shaped|UInt8)\[")
WRITTEN = re.compile(
    r"\((?:[A-Z][\w·]*|n|\d+|size|sizes|columns|count|len\([^)]*\)|stop − start|…)(?:, ?[^(),]+)*,?\)|0-d"
)
ROOMS = sorted({path.name for path in SOURCE.iterdir() if path.name != "__pycache__"})
needs_the_packages = pytest.mark.skipif(
    not importlib.util.find_spec("jaxtyping") or not importlib.util.find_spec("beartype"),
    reason="jaxtyping and beartype are for development",
)


def functions(tree):
    """Public functions and methods of a module with their names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


def arrays(function):
    """Annotations of arguments and of the answer that are arrays."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    notes = [a.annotation for a in arguments if a.annotation is not None]
    notes += [function.returns] if function.returns is not None else []
    return [text for text in map(ast.unparse, notes) if ARRAY.search(text)]


def states_shapes(function) -> bool:
    return all(ANNOTATED.search(text) for text in arrays(function)) or bool(
        WRITTEN.search(ast.get_docstring(function) or "")
    )


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_of_arrays_state_shapes(room):
    place = SOURCE / room
    silent = []
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            overload = any("overload" in ast.unparse(d) for d in function.decorator_list)
            if arrays(function) and not overload and not states_shapes(function):
                silent.append(f"{path.relative_to(SOURCE)}: {name}")
    assert not silent, "an annotation such as Float[FloatArray, 'N D'], or (N, D) in the docstring: " + "; ".join(
        silent
    )


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ('def f(x: Float[FloatArray, "N D"]) -> int: ...', True),
        ('def f(x: FloatArray) -> int:\n "Rows (N, D)."', True),
        ('def f(x: FloatArray) -> int:\n "Rows of length 1 (or so)."', False),
        ('def f(x: Float[FloatArray, "N D"]) -> FloatArray:\n "Rows."', False),
    ],
)
def test_what_counts_as_stated(text, states):
    assert states_shapes(ast.parse(text).body[0]) is states


@needs_the_packages
@pytest.mark.parametrize("room", shape_checks.ROOMS)
def test_the_rooms_are_checked(room):
    for path in (SOURCE / room).rglob("*.py"):
        if "if TYPE_CHECKING:\n    from jaxtyping" in path.read_text(encoding="utf-8"):
            module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
            importlib.import_module(module)
            assert shape_checks.CHECKED.get(module), f"{module} states shapes and nothing checks them"


@needs_the_packages
def test_an_array_of_another_shape_is_told():
    from jaxtyping import TypeCheckError

    from visavis.metrics.error_rates import error_curve
    from visavis.vision.images import encode

    with pytest.raises(TypeCheckError, match="genuine"):
        error_curve(np.array([0.1, 0.2]), np.array([True]))
    with pytest.raises(TypeCheckError, match="image"):
        encode(np.zeros((4, 4, 3)), ".png")
