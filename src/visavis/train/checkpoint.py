"""Resumable state on disk: an index in JSON and safetensors files, one a rank; written whole or not at all.

    RUN/last/checkpoint.json             the index: format, plain values, and where each tensor's rows are
    RUN/last/checkpoint-STEP-ID/         rank-0-of-2.safetensors, rank-1-of-2.safetensors

The index is replaced last, in one move, and the files of the checkpoint before go after that: a kill at any moment
leaves one checkpoint whole. Each rank writes its own rows and reads its own rows, of any number of files. Nothing that
is read is ever executed. Format 1, one `checkpoint.pt`, is still read (see checkpoint_format_1.py).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from visavis.distributed.launch import ALONE, World, from_all, from_first
from visavis.errors import DataError, ModelFormatError
from visavis.files import sync_folder, write_atomically
from visavis.losses.partial_fc.sharded_checkpoint import RowShard
from visavis.train import checkpoint_format_1

log = logging.getLogger(__name__)
FORMAT = 2
LAST = "last"
INDEX = "checkpoint.json"
_TENSOR = "$tensor"
_MAX_INDEX_BYTES = 200_000_000


def save_checkpoint(run: Path, state: Mapping[str, Any], *, step: int, world: World = ALONE) -> None:
    """Write nested plain values, tensors and `RowShard`s as the run's checkpoint; all ranks must call it.

    Of tensors that are no `RowShard`, and of plain values, the first rank's are kept.

    Raises:
        DataError: the folder cannot be written or the disk is full (on every rank, whichever met it); the previous
            checkpoint is untouched.
    """
    folder = from_first(f"checkpoint-{step}-{secrets.token_hex(4)}", world)
    name = f"rank-{world.rank}-of-{world.size}.safetensors"
    tensors: dict[str, Tensor | RowShard] = {}
    values = _take_out(state, "", tensors)
    if not world.is_first:
        tensors = {key: value for key, value in tensors.items() if isinstance(value, RowShard)}
    problem = _write_shard(run / LAST / folder / name, tensors)
    shards = from_all((problem, name, _describe(tensors)), world)
    problem = next((problem for problem, _, _ in shards if problem), "")
    if world.is_first and not problem:
        try:
            index = {"format": FORMAT, "folder": folder, "tensors": _join_descriptions(shards), "values": values}
            sync_folder(run / LAST / folder)
            write_atomically(run / LAST / INDEX, json.dumps(index, ensure_ascii=False).encode())
        except (DataError, OSError) as error:
            problem = say_os_error(error.__cause__ or error)
    problem = from_first(problem, world)
    if world.is_first:
        remove_others(run, keep=None if problem else folder, drop=folder)
    if problem:
        raise DataError(f"{run / LAST}: cannot write the checkpoint ({problem}); the previous one is untouched")


def remove_others(run: Path, *, keep: str | None, drop: str) -> None:
    """Remove the folders of all checkpoints but `keep`; without one, only `drop`."""
    for old in (run / LAST).glob("checkpoint-*"):
        if old.name != keep and (keep is not None or old.name == drop):
            shutil.rmtree(old, ignore_errors=True)
    if keep is not None:
        (run / checkpoint_format_1.NAME).unlink(missing_ok=True)


def has_checkpoint(run: Path) -> bool:
    """Whether there is something to resume."""
    return (run / LAST / INDEX).is_file() or (run / checkpoint_format_1.NAME).is_file()


def load_checkpoint(run: Path) -> dict[str, Any]:
    """A run's last checkpoint as one process would have saved it, whole tensors on the CPU; see `open_checkpoint`."""
    return _whole(open_checkpoint(run))


def open_checkpoint(run: Path) -> dict[str, Any]:
    """A run's last checkpoint; its tensors are `StoredTensor`s, read as far as they are asked for.

    Raises:
        ModelFormatError: none there, damaged, or of a format that this version does not read.
    """
    path = run / LAST / INDEX
    if not path.is_file():
        if (run / checkpoint_format_1.NAME).is_file():
            return checkpoint_format_1.read(run)
        raise ModelFormatError(f"{run}: no run to resume here; expected {LAST}/{INDEX}, which `visavis train` writes")
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ModelFormatError(f"{path}: damaged checkpoint (more than {_MAX_INDEX_BYTES:,} bytes)")
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: damaged checkpoint ({error})") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, dict) else None
        raise ModelFormatError(
            f"{path}: expected a checkpoint of format 1 to {FORMAT}, got {found!r}; "
            "resume it with the visavis that wrote it, or a newer one"
        )
    try:
        folder = _inside(run / LAST, index["folder"])
        stored = {key: StoredTensor(folder, key, about) for key, about in index["tensors"].items()}
        state = _put_in(index["values"], stored)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFormatError(f"{path}: damaged checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict):
        raise ModelFormatError(f"{path}: damaged checkpoint (no values)")
    return state


class StoredTensor:
    """A tensor in the files of a checkpoint, its rows in one or more of them.

    Raises:
        ModelFormatError: a file is missing, damaged, or not what the index says.
    """

    def __init__(self, folder: Path, key: str, about: Mapping[str, Any]) -> None:
        self.folder, self.key = folder, key
        self.shape = tuple(int(n) for n in about["shape"])
        self.parts = [(_inside(folder, p["file"]), int(p["start"]), int(p["stop"])) for p in about["parts"]]
        ends = [0, *(stop for _, _, stop in self.parts)]
        if self.shape and [start for _, start, _ in self.parts] + [self.shape[0]] != ends:
            raise ValueError(f"{key}: its parts are not {self.shape[0]} rows")

    def whole(self) -> Tensor:
        """All rows; (R, ...)."""
        if not self.shape:
            return self._read(self.parts[0][0], None, None)
        return self.rows(0, self.shape[0])

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows `start` to `stop`; nothing else is read; (stop − start, ...)."""
        found = [
            self._read(file, max(start, first) - first, min(stop, last) - first)
            for file, first, last in self.parts
            if max(start, first) < min(stop, last)
        ]
        return torch.cat(found) if len(found) > 1 else found[0] if found else self._read(self.parts[0][0], 0, 0)

    def _read(self, file: Path, start: int | None, stop: int | None) -> Tensor:
        try:
            with safe_open(file, framework="pt") as opened:
                if start is None:
                    return opened.get_tensor(self.key)
                part = opened.get_slice(self.key)
                if list(part.get_shape()[1:]) != list(self.shape[1:]):
                    raise ModelFormatError(f"{file}: damaged checkpoint ({self.key} has shape {part.get_shape()})")
                return part[start:stop]
        except (SafetensorError, OSError, ValueError, IndexError) as error:
            raise ModelFormatError(f"{file}: damaged checkpoint ({error})") from error


def say_os_error(error: BaseException) -> str:
    """What went wrong with a file, in words; a full disk is called that."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error) or "os error 122" in str(error):
        return "the disk is full: No space left on device"
    return getattr(error, "strerror", None) or str(error)


def _write_shard(path: Path, tensors: Mapping[str, Tensor | RowShard]) -> str:
    """Write one rank's file and see it safe on disk; returns what went wrong, if anything did."""
    plain = {
        key: (value.tensor if isinstance(value, RowShard) else value).detach().cpu().contiguous()
        for key, value in tensors.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        mode = path.stat().st_mode  # as the umask says; safetensors' own is for its owner alone
        save_file(plain, path)
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        return say_os_error(error)
    return ""


def _describe(tensors: Mapping[str, Tensor | RowShard]) -> dict[str, tuple[list[int], int, int]]:
    """Whole shape, first row and row after the last, by name."""
    about: dict[str, tuple[list[int], int, int]] = {}
    for key, value in tensors.items():
        if isinstance(value, RowShard):
            about[key] = [value.total, *value.tensor.shape[1:]], value.start, value.start + len(value.tensor)
        else:
            about[key] = list(value.shape), 0, value.shape[0] if value.ndim else 0
    return about


def _join_descriptions(shards: Sequence[tuple[str, str, Mapping[str, tuple[list[int], int, int]]]]) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for _, name, about in shards:
        for key, (shape, start, stop) in about.items():
            entry = tensors.setdefault(key, {"shape": shape, "parts": []})
            entry["parts"].append({"file": name, "start": start, "stop": stop})
    for entry in tensors.values():
        entry["parts"].sort(key=lambda part: (part["start"], part["stop"]))
    return tensors


def _take_out(value: Any, path: str, tensors: dict[str, Tensor | RowShard]) -> Any:
    """`value` with its tensors, which go into `tensors`, replaced by their names."""
    if isinstance(value, Tensor | RowShard):
        tensors[path] = value
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        return {str(key): _take_out(v, f"{path}/{key}" if path else str(key), tensors) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _put_in(value: Any, stored: Mapping[str, StoredTensor]) -> Any:
    if isinstance(value, dict):
        return stored[value[_TENSOR]] if _TENSOR in value else {k: _put_in(v, stored) for k, v in value.items()}
    return [_put_in(v, stored) for v in value] if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    if isinstance(value, StoredTensor):
        return value.whole()
    if isinstance(value, dict):
        return {key: _whole(v) for key, v in value.items()}
    return [_whole(v) for v in value] if isinstance(value, list) else value


def _inside(folder: Path, name: Any) -> Path:
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"expected a plain file name, got {name!r}")
    return folder / name
