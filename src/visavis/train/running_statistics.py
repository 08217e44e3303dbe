"""Batch norms as they were before a batch that must leave nothing behind."""

from __future__ import annotations

import torch
from torch import nn


class RunningStatistics:
    """A network's buffers as they were before a step: a batch that is not finite must not stay in batch norms."""

    def __init__(self, network: nn.Module) -> None:
        self._buffers = list(network.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
