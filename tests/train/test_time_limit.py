"""A time limit ends a forward or a backward pass between two layers, in blocks that recompute theirs too."""

import time

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from visavis.train.time_limit import OutOfTime, TimeLimit


class Waits(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.linear = seconds, nn.Linear(4, 4)

    def forward(self, x):
        time.sleep(self.seconds)
        return self.linear(x).tanh()


class Recomputes(nn.Module):
    """Fast the first time, slow when the backward pass recomputes it."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 4), 0

    def forward(self, x):
        return checkpoint(self._inner, x, use_reentrant=False)

    def _inner(self, x):
        self.calls += 1
        if self.calls > 1:
            time.sleep(0.1)
        return self.linear(x).tanh()


def test_within_the_limit_nothing_happens_and_nothing_stays_behind():
    network = nn.Sequential(Waits(0), Recomputes())
    with TimeLimit(60).held():
        network(torch.ones(2, 4)).sum().backward()
    limit = TimeLimit(0)
    assert limit.left <= 0
    network(torch.ones(2, 4)).sum().backward()  # outside the block no one is stopped
    with pytest.raises(OutOfTime):
        limit.check()


def test_a_forward_pass_is_stopped_between_layers():
    layers = [Waits(0.1) for _ in range(20)]
    begun = time.monotonic()
    with pytest.raises(OutOfTime), TimeLimit(0.15).held():
        nn.Sequential(*layers)(torch.ones(2, 4))
    assert time.monotonic() - begun < 1


def test_a_backward_pass_that_recomputes_is_stopped():
    network = nn.Sequential(*(Recomputes() for _ in range(20)))
    limit = TimeLimit(0.25)
    begun = time.monotonic()
    with pytest.raises(OutOfTime), limit.held():
        network(torch.ones(2, 4)).sum().backward()
    assert time.monotonic() - begun < 1.5  # the twenty blocks take 2 s
