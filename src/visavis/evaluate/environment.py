"""Where figures were made: machine, versions, time; and what is known of the model."""

from __future__ import annotations

import platform
import shlex
import sys
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import visavis
from visavis.machine import processor, usable_cores
from visavis.models.providers import PACKAGES

_LIBRARIES = ("numpy", "opencv-python-headless", *PACKAGES, "openvino", "torch")


def environment() -> dict[str, Any]:
    """Machine, operating system, versions and the time."""
    versions = {"visavis": visavis.__version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "machine": {
            "processor": processor(),
            "cores": usable_cores(),
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
        },
        "versions": versions,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
    }


def _command() -> str:
    """What was typed, as one would type it again."""
    if not sys.argv or not sys.argv[0]:
        return ""
    name = Path(sys.argv[0]).name
    return shlex.join(["visavis" if name == "__main__.py" else name, *sys.argv[1:]])


def describe_model(embedder: object) -> dict[str, Any]:
    """What an embedder tells of itself: its card, if it has one, and its dimension."""
    card = getattr(embedder, "card", None)
    about: dict[str, Any] = {"name": getattr(card, "name", type(embedder).__name__)}
    about["embedding_dim"] = int(getattr(embedder, "dim", 0))
    spec = getattr(embedder, "spec", None)
    if spec is not None and is_dataclass(spec) and not isinstance(spec, type):
        about["preprocess"] = asdict(spec)
    if card is not None and is_dataclass(card) and not isinstance(card, type):
        about["card"] = {k: v for k, v in asdict(card).items() if k not in ("evaluations", "exports")}
    return about
