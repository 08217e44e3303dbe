"""Which classes a step looks at: all positives, and negatives drawn the same way on every number of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis import seeding

if TYPE_CHECKING:
    from jaxtyping import Integer


def step_generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """A generator that is a function of seed, purpose and step: the same on every rank, and after a resume."""
    return torch.Generator().manual_seed(seeding.derived(seed, purpose, step))


def draw_classes(num_classes: int, count: int, generator: torch.Generator) -> Integer[Tensor, " {count}"]:
    """`count` different classes of [0, num_classes), each with the same probability, in O(count).

    One class is drawn from each of `count` neighboring ranges of equal length, and all are turned by a common random
    offset, which makes every class equally likely whatever the lengths. Classes of one range never come together;
    in exchange nothing of size num_classes is drawn, sorted or permuted.
    """
    index = torch.arange(count + 1, dtype=torch.int64)
    bounds = index * num_classes // count
    jitter = torch.rand(count, dtype=torch.float64, generator=generator)
    chosen = bounds[:-1] + (jitter * (bounds[1:] - bounds[:-1])).long()
    offset = int(torch.randint(num_classes, (1,), generator=generator))
    return (chosen + offset) % num_classes


def keep_positives(
    drawn: Integer[Tensor, " K"], labels: Integer[Tensor, " B"], start: int, stop: int
) -> Integer[Tensor, " M"]:
    """The drawn classes and all labels within [start, stop), sorted, counted from `start`."""
    both = torch.cat([drawn.to(labels.device), labels])
    return torch.unique(both[(both >= start) & (both < stop)]) - start
