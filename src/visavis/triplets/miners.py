"""Which triplets to learn from: MINERS = {name: miner}.

All miners take squared distances of unit rows and return indices; none fails when there is nothing to learn from.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from visavis.errors import RecipeError, unknown_name
from visavis.triplets.batch_miners import batch_all, batch_hardest, batch_min_max, batch_min_min, batch_random
from visavis.triplets.pair_miners import distance_weighted, semi_hard
from visavis.types import Triplets


class Miner(Protocol):
    """Picks triplets from distances; see the module for what is common to all."""

    def __call__(
        self,
        distances: Tensor,
        labels: Tensor,
        *,
        margin: float,
        generator: torch.Generator | None = None,
        reference_labels: Tensor | None = None,
        own: Tensor | None = None,
    ) -> Triplets:
        """Mine (Q, R) squared distances; anchors index the queries, positives and negatives the references.

        `reference_labels` and `own` as in `visavis.triplets.view.look`; `generator` draws for the random miners.
        """
        ...


MINERS: Mapping[str, Miner] = MappingProxyType(
    {
        "batch_all": batch_all,
        "batch_random": batch_random,
        "batch_min_min": batch_min_min,
        "batch_min_max": batch_min_max,
        "batch_hardest": batch_hardest,
        "semi_hard": semi_hard,
        "distance_weighted": distance_weighted,
    }
)


def build_miner(name: str, **options: Any) -> Miner:
    """A miner of MINERS with some of its options set, say `build_miner("batch_all", max_triplets=10_000)`.

    Raises:
        RecipeError: an unknown name, or an option the miner does not have.
    """
    if name not in MINERS:
        raise RecipeError(unknown_name("miner", name, MINERS))
    common = set(inspect.signature(Miner.__call__).parameters)
    known = [p for p in inspect.signature(MINERS[name]).parameters if p not in common]
    for option in options:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has none"
            raise RecipeError(f"triplet.miner_args: {name} knows no option {option!r}; it {has}")
    return functools.partial(MINERS[name], **options)
