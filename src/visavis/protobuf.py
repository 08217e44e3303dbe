"""Protocol Buffers' wire format: a message as its numbered fields, read and written without knowing its schema.

Enough to look into an ONNX file and to write one where the package `onnx`, which only the trainer brings, is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from visavis.errors import ModelFormatError

Value = int | memoryview | bytes
Fields = list[tuple[int, Value]]  # number of the field; whole number, or bytes of text, a message or packed numbers
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10


def read_fields(data: memoryview | bytes) -> Fields:
    """The fields of a message in their order; fixed-width numbers as their little-endian bytes.

    Raises:
        ModelFormatError: it ends inside a field, or a field is of no known kind.
    """
    view, at, found = memoryview(data), 0, Fields()
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            found.append((number, value))
            continue
        if kind == _BYTES:
            length, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ModelFormatError(f"damaged: a field of unknown kind {kind} at byte {at}")
        if length > len(view) - at:
            raise ModelFormatError(f"damaged: a field of {length:,} bytes at byte {at}, {len(view) - at:,} are left")
        found.append((number, view[at : at + length]))
        at += length
    return found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT):
        if at + i >= len(view):
            raise ModelFormatError(f"damaged: ends inside a number at byte {at}")
        byte = view[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ModelFormatError(f"damaged: a number of more than {_MAX_VARINT} bytes at byte {at}")


def write_fields(fields: Iterable[tuple[int, Value | str]]) -> bytes:
    """A message of these fields: numbers as varints, text and bytes with their length before them."""
    parts: list[bytes | memoryview] = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_number(number << 3 | _VARINT), _number(value)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [_number(number << 3 | _BYTES), _number(len(content)), content]
    return b"".join(parts)


def _number(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
