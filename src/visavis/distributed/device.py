"""The thin layer between the loop and CPU, CUDA, MPS or NPU; which one is used is said aloud."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Callable, Generator

import torch

from visavis.errors import RecipeError
from visavis.machine import usable_cores

log = logging.getLogger(__name__)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _has_npu() -> bool:
    return hasattr(torch, "npu") and torch.npu.is_available()  # pyright: ignore[reportAttributeAccessIssue]


AVAILABLE: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "npu": _has_npu,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}


def choose_device(wanted: str = "auto", *, local_rank: int = 0) -> torch.device:
    """The device to train on; `auto` takes the first of cuda, npu, mps and cpu that is there.

    Raises:
        RecipeError: the wanted device is not on this machine.
    """
    kind = wanted.split(":")[0]
    if kind == "auto":
        kind = next(name for name, is_available in AVAILABLE.items() if is_available())
    elif kind not in AVAILABLE or not AVAILABLE[kind]():
        there = [name for name, is_available in AVAILABLE.items() if is_available()]
        raise RecipeError(f"loop.device {wanted!r} is not on this machine; there is {', '.join(there)} (or auto)")
    if kind in ("cuda", "npu"):
        device = torch.device(wanted if ":" in wanted else f"{kind}:{local_rank}")
        getattr(torch, kind).set_device(device)
        return device
    return torch.device(kind)


def describe_device(device: torch.device) -> str:
    """One line on the device for the log."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads of {usable_cores()} cores, {platform.machine()})"
    return str(device)


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Generator[None]:
    """Mixed precision for the forward pass; fp32 leaves everything as it is."""
    if precision == "fp32":
        yield
        return
    with torch.autocast(device.type, PRECISIONS[precision]):
        yield
