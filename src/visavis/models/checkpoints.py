"""Read published checkpoints: safetensors, and PyTorch files with `weights_only=True` alone; no pickle is executed."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from visavis.errors import ModelFormatError

# Where trainers of the field put a network's tensors inside a larger dict.
_NESTS = (
    "net_state_dict",
    "state_dict_backbone",
    "model_state_dict",
    "state_dict",
    "backbone",
    "model",
    "net",
    "network",
)
# DataParallel and torch.compile put these before every name.
_WRAPPERS = ("module.", "_orig_mod.")


def read_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU.

    Shapes: of any shapes (N, ...).

    Args:
        path: `.safetensors`, or any file `torch.save` wrote (zip or legacy).
        key: name of the entry that holds the state dict, where a checkpoint holds several things.

    Raises:
        ModelFormatError: no such file, damaged, a pickle that would execute code, or no state dict in it.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelFormatError(f"{file}: expected a checkpoint file, got {'a folder' if file.is_dir() else 'no file'}")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    state = _find_state(content, key, file)
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    expanded = [name for name, value in state.items() if value.numel() > value.untyped_storage().nbytes()]
    if expanded:
        stored = state[expanded[0]].untyped_storage().nbytes()
        raise ModelFormatError(
            f"{file}: {expanded[0]} claims {state[expanded[0]].numel():,} values and {stored:,} bytes are stored"
        )
    state = {name: value.contiguous() for name, value in state.items()}
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ModelFormatError(f"{file}: {len(broken)} tensors hold NaN or infinity, the first is {broken[0]}")
    return state


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFormatError(f"{file}: damaged or no safetensors file ({error})") from error


def _read_torch(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own remarks on old storages
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        called = re.search(r"GLOBAL:? (\S+)", str(error))
        if called is not None or "Unsupported class" in str(error):
            what = called.group(1) if called is not None else "a class of its own"
            raise ModelFormatError(
                f"{file}: refused, because loading it would execute code (it calls {what}); only tensors are read. "
                "Save the state dict alone where the file comes from: torch.save(network.state_dict(), ...)"
            ) from error
        raise ModelFormatError(f"{file}: damaged, or no PyTorch checkpoint ({_reason(error)})") from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ValueError ... on damaged bytes
        raise ModelFormatError(f"{file}: damaged, or no PyTorch checkpoint ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The sentence of PyTorch's message that says what was met, without its advice to load unsafely."""
    text = " ".join(str(error).split()).split("trusted source. ")[-1]
    text = text.removeprefix("Please file an issue").split(" Check the documentation")[0].split(" Please ")[0]
    return (text or error.__class__.__name__)[:200]


def _find_state(content: Any, key: str | None, file: Path) -> dict[str, Tensor]:
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise ModelFormatError(f"{file}: holds no entry {key!r}; it has {_describe(content)}")
        state = _tensors(content[key])
        if state is None:
            raise ModelFormatError(f"{file}: entry {key!r} is no dict of tensors but {_describe(content[key])}")
        return state
    state = _tensors(content)
    if state is not None:
        return state
    nests: Mapping[object, object] = cast("Mapping[object, object]", content) if isinstance(content, Mapping) else {}
    found = {k: s for k in _NESTS if (s := _tensors(nests.get(k))) is not None}
    if len(found) == 1:
        return next(iter(found.values()))
    problem = f"several state dicts ({', '.join(found)})" if found else "no state dict"
    raise ModelFormatError(f"{file}: {problem} among {_describe(content)}; name one with --key")


def _tensors(content: Any) -> dict[str, Tensor] | None:
    """`content` as a non-empty dict of named tensors, or None."""
    if not isinstance(content, Mapping) or not content:
        return None
    named = cast("Mapping[object, object]", content)
    tensors = {k: v.detach() for k, v in named.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return tensors if len(tensors) == len(named) else None


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        names = [str(k) for k in cast("Mapping[object, object]", content)]
        return f"{len(names)} entries: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
    return f"a {type(content).__name__}"
