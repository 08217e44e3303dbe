"""Random streams named by what they are for: a function of seed, purpose and counters, on every machine and Python."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A generator whose stream follows from `seed`, `purpose` and `counters` (step, epoch, rank …) alone.

    Streams of two purposes, or of two counters, have nothing to do with each other; nothing has to be saved to go on.
    """
    return np.random.Generator(np.random.PCG64(_mixed(seed, purpose, counters)))


def derived(seed: int, purpose: str, *counters: int) -> int:
    """A seed in [0, 2⁶³) for a generator of another library, as `torch.Generator().manual_seed` takes it."""
    return _mixed(seed, purpose, counters) >> 65


def _mixed(seed: int, purpose: str, counters: tuple[int, ...]) -> int:
    """128 bits of BLAKE2b over the decimal numbers, which no two different requests spell alike."""
    said = "\0".join([purpose, *(str(int(number)) for number in (seed, *counters))])
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=16).digest(), "little")
