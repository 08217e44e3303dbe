"""Which triplets to learn from: MINERS = {name: miner}.

All miners take squared distances of unit rows and return indices; none fails when there is nothing to learn from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visavis.errors import RecipeError, unknown_name
from visavis.losses.triplets.batch_miners import batch_all, batch_hardest, batch_min_max, batch_min_min, batch_random
from visavis.losses.triplets.masked_distances import mask_by_identity
from visavis.losses.triplets.pair_miners import distance_weighted, semi_hard
from visavis.types import Triplets

_COMMON = frozenset({"masked", "margin", "rng"})


@dataclass(frozen=True)
class Miner:
    """A way to pick triplets from distances, with its options set.

    find: (masked, margin, rng, **options) -> Triplets; see `MaskedDistances`. `rng` makes a NumPy generator.
    """

    find: Callable[..., Triplets]
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __call__(
        self,
        distances: Tensor,
        labels: Tensor,
        *,
        margin: float,
        generator: torch.Generator | None = None,
        reference_labels: Tensor | None = None,
        own: Tensor | None = None,
        **options: Any,
    ) -> Triplets:
        """Mine (Q, R) squared distances; anchors index the queries, positives and negatives the references.

        Args:
            distances: as `reference_labels` and `own` in `visavis.losses.triplets.masked_distances.look`.
            labels: (Q,) identity of each query.
            margin: α, in units of the distance.
            generator: draws for the random miners; PyTorch's own when None.
            reference_labels: (R,) when the references are not the queries.
            own: (Q,) which reference each query is.
            **options: of the miner, for this call.
        """
        options = {**self.options, **options}
        masked = mask_by_identity(distances, labels, reference_labels, own, later_only=bool(options.get("legacy")))
        if masked.ap.size == 0:
            nothing = np.empty(0, np.int64)
            return Triplets(nothing, nothing, nothing)
        return self.find(masked, margin=margin, rng=lambda: _numpy_generator(generator), **options)

    @property
    def known_options(self) -> list[str]:
        """Names of the options that may be set."""
        return [p for p in inspect.signature(self.find).parameters if p not in _COMMON]


def _numpy_generator(generator: torch.Generator | None) -> np.random.Generator:
    device = "cpu" if generator is None else generator.device
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator, device=device)))


MINERS: Mapping[str, Miner] = MappingProxyType(
    {
        "batch_all": Miner(batch_all),
        "batch_random": Miner(batch_random),
        "batch_min_min": Miner(batch_min_min),
        "batch_min_max": Miner(batch_min_max),
        "batch_hardest": Miner(batch_hardest),
        "semi_hard": Miner(semi_hard),
        "distance_weighted": Miner(distance_weighted),
    }
)


def build_miner(name: str, **options: Any) -> Miner:
    """A miner of MINERS with some of its options set, say `build_miner("batch_all", max_triplets=10_000)`.

    Raises:
        RecipeError: an unknown name, or an option the miner does not have.
    """
    if name not in MINERS:
        raise RecipeError(unknown_name("miner", name, MINERS))
    known = MINERS[name].known_options
    for option in options:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has none"
            raise RecipeError(f"triplet.miner_args: {name} knows no option {option!r}; it {has}")
    return replace(MINERS[name], options=MappingProxyType(options))
