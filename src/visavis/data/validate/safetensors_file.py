"""Arrays in a safetensors file, read and written with NumPy alone: who deploys has no safetensors installed."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError

_TYPES = {"U64": np.dtype("<u8"), "I64": np.dtype("<i8"), "F32": np.dtype("<f4")}
_MAX_HEADER = 1_000_000
Arrays = dict[str, npt.NDArray[np.generic]]


def to_bytes(arrays: Mapping[str, npt.NDArray[np.generic]], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file with these arrays (uint64, int64 or float32); of any shapes (N, ...)."""
    names = {kind: name for name, kind in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start, parts = 0, []
    for key, array in arrays.items():
        parts.append(np.ascontiguousarray(array).tobytes())
        stop = start + len(parts[-1])
        header[key] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([struct.pack("<Q", len(head)), head, *parts])


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself, without its arrays; empty where it says nothing readable."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return _metadata(json.loads(file.read(min(length, _MAX_HEADER))))
    except (OSError, ValueError, struct.error, RecursionError):
        return {}


def from_bytes(data: bytes, *, name: str) -> tuple[Arrays, dict[str, str]]:
    """The arrays and metadata of a safetensors file's bytes; nothing is allocated beyond those bytes.

    Raises:
        ModelFormatError: damaged, or arrays of another type than `to_bytes` writes.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > min(_MAX_HEADER, len(data) - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {len(data):,}")
        header, body = json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]
        arrays = {key: _array(entry, body) for key, entry in header.items() if key != "__metadata__"}
        return arrays, _metadata(header)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, struct.error, RecursionError) as error:
        raise ModelFormatError(f"{name}: damaged or no safetensors file ({error})") from error


def _array(entry: Any, body: memoryview) -> npt.NDArray[np.generic]:
    kind, shape, (start, stop) = _TYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if min(shape, default=0) < 0 or not 0 <= start <= stop <= len(body):
        raise ValueError(f"shape {shape} at bytes {start} to {stop} of {len(body)}")
    if math.prod(shape) * kind.itemsize != stop - start:
        raise ValueError(f"shape {shape} does not fill {stop - start} bytes")
    return np.frombuffer(body[start:stop], kind).reshape(shape)


def _metadata(header: Any) -> dict[str, str]:
    found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
