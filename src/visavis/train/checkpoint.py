"""Resumable state, written whole or not at all; read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from visavis.errors import DataError, ModelFormatError

FORMAT = 1
NAME = Path("last") / "checkpoint.pt"


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Write `state` to the run's `last/checkpoint.pt` by way of a file beside it.

    Raises:
        DataError: the folder cannot be written or the disk is full; the previous checkpoint is untouched.
    """
    path = run / NAME
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        part.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot write the checkpoint ({error}); the previous one is untouched") from error


def has_checkpoint(run: Path) -> bool:
    """Whether there is something to resume."""
    return (run / NAME).is_file()


def load_checkpoint(run: Path) -> dict[str, Any]:
    """Read a run's last checkpoint onto the CPU.

    Raises:
        ModelFormatError: none there, damaged, or not one of ours.
    """
    path = run / NAME
    if not has_checkpoint(run):
        raise ModelFormatError(f"{run}: no run to resume here; expected {NAME}, which `visavis train` writes")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on foreign bytes
        raise ModelFormatError(f"{path}: damaged checkpoint ({error.__class__.__name__}: {_first(error)})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelFormatError(f"{path}: expected a checkpoint of format {FORMAT}, got something else")
    return state


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else "no detail"
