"""A limit on seconds that holds within a step: asked at every layer going forward and every tensor going backward."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_pre_hook


class OutOfTime(Exception):
    """The seconds are over."""


class TimeLimit:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 afterwards."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raise OutOfTime where none are left."""
        if self.left <= 0:
            raise OutOfTime

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop networks that run in the block when the time is over, between two of their layers.

        Raises:
            OutOfTime: in the middle of a forward or backward pass, blocks that recompute theirs included.
        """

        def checked(tensor: Tensor) -> Tensor:
            self.check()
            return tensor

        hook = register_module_forward_pre_hook(lambda module, inputs: self.check())
        try:
            with saved_tensors_hooks(checked, checked):
                yield
        finally:
            hook.remove()
