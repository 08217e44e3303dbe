"""Read pickles of plain values without pickle: bytes, text, lists, tuples, bools, ints and NumPy arrays, nothing else.

The field's verification sets are pickles, and a pickle is a program. This is a small interpreter of the part of that
language which builds values: it imports nothing, calls nothing by name, and knows NumPy's few constructors as symbols
that it carries out itself. Byte strings stay where they are in the file (`Blob`), so a large set costs little memory.
Source: the opcode table of CPython's pickletools, protocols 0 to 5.
"""

from __future__ import annotations

import codecs
import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.errors import DataError

_MAX_VALUES = 20_000_000
_MAX_TEXT = 1 << 20
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_SYMBOLS = {
    **{(module, "_reconstruct"): "reconstruct" for module in _ARRAY_MODULES},
    **{(module, "scalar"): "scalar" for module in _ARRAY_MODULES},
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
    ("__builtin__", "bytearray"): "bytes",
    ("builtins", "bytearray"): "bytes",
}


@dataclass(frozen=True)
class Blob:
    """A byte string that lies in the file."""

    offset: int
    length: int


@dataclass
class Array:
    """A NumPy array whose bytes lie in the file; `dtype` is None until the pickle says it."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] | None = None
    data: Blob | bytes = b""
    fortran: bool = False


@dataclass
class _Kind:
    """A dtype under construction."""

    code: str


@dataclass(frozen=True)
class _Symbol:
    name: str


class _Mark:
    pass


def loads(data: bytes | mmap.mmap, *, name: str = "pickle") -> Any:
    """The value a pickle describes; byte strings as `Blob`, arrays as `Array`, text as str.

    Raises:
        DataError: damaged, truncated, or asking for anything else than plain values; nothing of it is run.
    """
    return _Reader(data, name).run()


def materialize(value: Array, data: bytes | mmap.mmap, *, name: str = "pickle") -> np.ndarray:
    """The NumPy array of an `Array`.

    Shapes: of any shape (N, ...).

    Raises:
        DataError: shape, type and bytes do not fit.
    """
    raw = (
        data[value.data.offset : value.data.offset + value.data.length] if isinstance(value.data, Blob) else value.data
    )
    if value.dtype is None or math.prod(value.shape) * value.dtype.itemsize != len(raw):
        raise DataError(f"{name}: an array of shape {value.shape} and type {value.dtype} has {len(raw)} bytes")
    return np.frombuffer(raw, value.dtype).reshape(value.shape, order="F" if value.fortran else "C")


class _Reader:
    def __init__(self, data: bytes | mmap.mmap, name: str) -> None:
        self.data, self.name, self.at = data, name, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.count = 0

    def fault(self, problem: str) -> DataError:
        return DataError(f"{self.name}: not a plain pickle at byte {self.at:,}: {problem}")

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise self.fault(f"{count:,} bytes are missing, the file has {len(self.data):,}")
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def blob(self, length: int) -> Blob:
        if length < 0 or self.at + length > len(self.data):
            raise self.fault(f"a string of {length:,} bytes runs past the end ({len(self.data):,} bytes)")
        found = Blob(self.at, length)
        self.at += length
        return found

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + _MAX_TEXT)
        if end < 0:
            raise self.fault("a line does not end")
        piece = self.data[self.at : end]
        self.at = end + 1
        return piece

    def push(self, value: Any) -> None:
        self.count += 1
        if self.count > _MAX_VALUES:
            raise self.fault(f"more than {_MAX_VALUES:,} values")
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise self.fault("a value is missing")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[i], _Mark):
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise self.fault("a mark is missing")

    def remember(self, key: int) -> None:
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise self.fault("nothing to remember")
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise self.fault(f"nothing was remembered as {key}")
        self.push(self.memo[key])

    def text(self, length: int) -> str:
        if length > _MAX_TEXT:
            raise self.fault(f"a text of {length:,} bytes")
        try:
            return self.take(length).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self.fault(f"text that is not UTF-8 ({error.reason})") from error

    def run(self) -> Any:
        while True:
            start = self.at
            code = self.take(1)
            if code == b".":
                value = self.pop()
                if self.stack:
                    raise self.fault("values are left over")
                return value
            action = _ACTIONS.get(code)
            if action is None:
                self.at = start
                raise self.fault(f"opcode {code!r} is none that builds plain values")
            try:
                action(self)
            except (TypeError, ValueError, OverflowError, struct.error, IndexError) as error:
                raise self.fault(f"{type(error).__name__}: {error}") from error

    def extend(self, values: list[Any]) -> None:
        target = self.pop()
        if not isinstance(target, list):
            raise self.fault(f"expected a list to append to, got {type(target).__name__}")
        target.extend(values)
        self.stack.append(target)

    def symbol(self, module: Any, name: Any) -> None:
        found = _SYMBOLS.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            shown = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "something"
            raise self.fault(
                f"it asks for {shown[:80]}, which is refused: only bytes, lists, bools, ints and arrays are read"
            )
        self.push(_Symbol(found))

    def reduce(self) -> None:
        arguments, what = self.pop(), self.pop()
        if not isinstance(what, _Symbol) or not isinstance(arguments, tuple):
            raise self.fault("a call of something that is no constructor of arrays or bytes")
        self.push(self.construct(what.name, arguments))

    def construct(self, what: str, arguments: tuple[Any, ...]) -> Any:
        if what == "reconstruct":
            return Array()
        if what == "dtype" and arguments and isinstance(arguments[0], (str, Blob)):
            return _Kind(self.plain_text(arguments[0]))
        if (
            what == "scalar"
            and len(arguments) == 2
            and isinstance(arguments[0], _Kind)
            and isinstance(arguments[1], (Blob, bytes))
        ):
            scalar = Array((), self.dtype(arguments[0]), arguments[1])
            return materialize(scalar, self.data, name=self.name).item()
        if what == "frombuffer" and len(arguments) == 4 and isinstance(arguments[0], Blob):
            blob, kind, shape, order = arguments
            return Array(self.shape(shape), self.dtype(kind), blob, order == "F")
        if what == "encode" and isinstance(arguments[0], str):
            return codecs.encode(arguments[0], "latin-1")
        if what == "bytes" and not arguments:
            return b""
        if what == "bytes" and len(arguments) == 1 and isinstance(arguments[0], (Blob, bytes)):
            return arguments[0]
        if what == "bytes" and len(arguments) == 2 and isinstance(arguments[0], str):
            return codecs.encode(arguments[0], "latin-1")
        raise self.fault(f"unexpected arguments of {what}")

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, fortran, data = state
            if not isinstance(data, (Blob, bytes)):
                raise self.fault("an array of objects")
            target.shape, target.dtype, target.data = self.shape(shape), self.dtype(kind), data
            target.fortran = bool(fortran)
        elif isinstance(target, _Kind) and isinstance(state, tuple) and len(state) >= 2:
            order = self.plain_text(state[1])
            if order not in ("<", ">", "|", "="):
                raise self.fault(f"byte order {order!r}")
            target.code = order + target.code.lstrip("<>|=")
        else:
            raise self.fault("a state for something that is no array")
        self.stack.append(target)

    def plain_text(self, value: Any) -> str:
        if isinstance(value, Blob) and value.length <= 16:
            value = self.data[value.offset : value.offset + value.length].decode("latin-1")
        if not isinstance(value, str) or len(value) > 16:
            raise self.fault("expected a short text")
        return value

    def shape(self, value: Any) -> tuple[int, ...]:
        if not isinstance(value, tuple) or len(value) > 8 or not all(type(v) is int and 0 <= v < 2**40 for v in value):
            raise self.fault("expected the shape of an array")
        return value

    def dtype(self, value: Any) -> np.dtype[Any]:
        code = value.code if isinstance(value, _Kind) else ""
        bare = code.lstrip("<>|=")
        if bare not in ("b1", "?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"):
            raise self.fault(f"an array of type {code!r}; only numbers and bools are read")
        return np.dtype(code)


def _old_string(reader: _Reader) -> None:
    """Protocol 0's quoted byte strings."""
    quoted = reader.line().strip()
    if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
        raise reader.fault("a string without quotes")
    reader.push(codecs.escape_decode(quoted[1:-1])[0])  # type: ignore[attr-defined]


def _old_int(reader: _Reader) -> None:
    """Protocol 0's ints, where 00 and 01 are the bools."""
    line = reader.line().strip()
    if len(line) > 40:
        raise reader.fault("a number of more than 40 digits")
    reader.push({b"00": False, b"01": True}.get(line, int(line.rstrip(b"L") or b"0")))


def _long(reader: _Reader, length: int) -> None:
    if length > 16:
        raise reader.fault(f"a number of {length} bytes")
    reader.push(int.from_bytes(reader.take(length), "little", signed=True))


def _tuple(reader: _Reader, length: int) -> None:
    values = [reader.pop() for _ in range(length)]
    reader.push(tuple(reversed(values)))


_ACTIONS: dict[bytes, Callable[[_Reader], Any]] = {
    b"\x80": lambda r: r.take(1),  # PROTO
    b"\x95": lambda r: r.take(8),  # FRAME
    b"(": lambda r: r.push(_Mark()),
    b"0": lambda r: r.pop(),
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"I": _old_int,
    b"L": _old_int,
    b"J": lambda r: r.push(r.number("i")),
    b"K": lambda r: r.push(r.number("B")),
    b"M": lambda r: r.push(r.number("H")),
    b"\x8a": lambda r: _long(r, r.number("B")),
    b"\x8b": lambda r: _long(r, r.number("I")),
    b"S": _old_string,
    b"T": lambda r: r.push(r.blob(r.number("i"))),
    b"U": lambda r: r.push(r.blob(r.number("B"))),
    b"B": lambda r: r.push(r.blob(r.number("I"))),
    b"C": lambda r: r.push(r.blob(r.number("B"))),
    b"\x8e": lambda r: r.push(r.blob(r.number("Q"))),
    b"\x96": lambda r: r.push(r.blob(r.number("Q"))),  # BYTEARRAY8
    b"X": lambda r: r.push(r.text(r.number("I"))),
    b"\x8c": lambda r: r.push(r.text(r.number("B"))),
    b"\x8d": lambda r: r.push(r.text(r.number("Q"))),
    b"V": lambda r: r.push(r.line().decode("raw-unicode-escape")),
    b"]": lambda r: r.push([]),
    b"l": lambda r: r.push(r.since_mark()),
    b"a": lambda r: r.extend([r.pop()]),
    b"e": lambda r: r.extend(r.since_mark()),
    b")": lambda r: r.push(()),
    b"t": lambda r: r.push(tuple(r.since_mark())),
    b"\x85": lambda r: _tuple(r, 1),
    b"\x86": lambda r: _tuple(r, 2),
    b"\x87": lambda r: _tuple(r, 3),
    b"p": lambda r: r.remember(int(r.line()[:20])),
    b"q": lambda r: r.remember(r.number("B")),
    b"r": lambda r: r.remember(r.number("I")),
    b"\x94": lambda r: r.remember(len(r.memo)),
    b"g": lambda r: r.recall(int(r.line()[:20])),
    b"h": lambda r: r.recall(r.number("B")),
    b"j": lambda r: r.recall(r.number("I")),
    b"c": lambda r: r.symbol(r.line().decode("latin-1"), r.line().decode("latin-1")),
    b"\x93": lambda r: (lambda name: r.symbol(r.pop(), name))(r.pop()),
    b"R": lambda r: r.reduce(),
    b"b": lambda r: r.build(),
}
