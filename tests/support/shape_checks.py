"""Shapes that signatures state are checked wherever tests run the rooms that state them; importing this turns it on.

`Float[FloatArray, "N D"]` is a type checker's `FloatArray`; here jaxtyping and beartype hold it against the arrays that
are given and returned. The rooms name jaxtyping under TYPE_CHECKING alone, so that who installs visavis needs neither.
"""

import ast
import importlib.util
import inspect
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from types import FunctionType, ModuleType

ROOMS = ("metrics", "vision", "models", "losses")
CHECKED: dict[str, int] = {}  # how many functions of each module are checked


class _Finder(MetaPathFinder):
    """Finds the modules of the rooms, and checks their functions once they are there."""

    def find_spec(self, name, path=None, target=None):
        if not name.startswith(tuple(f"visavis.{room}" for room in ROOMS)):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _check(module)

            spec.loader.exec_module = exec_module
        return spec


def _check(module: ModuleType) -> None:
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            setattr(module, name, _checked(value, module))
        elif inspect.isclass(value):
            for key, method in list(vars(value).items()):
                if isinstance(method, FunctionType):
                    setattr(value, key, _checked(method, module))
                elif isinstance(method, classmethod | staticmethod):
                    setattr(value, key, type(method)(_checked(method.__func__, module)))


def _checked(function: FunctionType, module: ModuleType):
    """The function with its array arguments checked, itself where it states no shapes; others stay as they are."""
    import jaxtyping
    from beartype import beartype

    known = {name: getattr(jaxtyping, name) for name in ("Bool", "Float", "Integer", "Num", "Shaped", "UInt8")}
    stated = {k: v for k, v in function.__annotations__.items() if isinstance(v, str) and _states(v, known)}
    if not stated or hasattr(function, "__wrapped__"):  # a decorator's own arguments are *args
        return function
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__qualname__, copy.__doc__ = (
        function.__kwdefaults__,
        function.__qualname__,
        function.__doc__,
    )
    copy.__module__ = function.__module__
    space = {**_types_only(module), **vars(module), **known}
    copy.__annotations__ = {k: eval(v, space) for k, v in stated.items()}
    checked = jaxtyping.jaxtyped(copy, typechecker=beartype)
    checked.__annotations__ = function.__annotations__
    CHECKED[module.__name__] = CHECKED.get(module.__name__, 0) + 1
    return checked


def _types_only(module: ModuleType) -> dict:
    """What a module imports for type checkers alone, from packages that are not its own."""
    names: dict = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = [n for n in node.body if isinstance(n, ast.ImportFrom) and not n.module.startswith("visavis")]
            exec(compile(ast.Module(imports, []), module.__file__, "exec"), names)
    return names


def _states(annotation: str, known: dict) -> bool:
    return any(f"{name}[" in annotation for name in known)


# The lowest versions are tested without these packages.
if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("beartype"):
    sys.meta_path.insert(0, _Finder())
