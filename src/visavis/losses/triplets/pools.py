"""Where triplets are looked for (rows M7): in the batch, in a pool of batches, or in the whole set.

*Online* is mining inside `TripletObjective`. *Semi-online* embeds several batches without a graph, mines over all of
them, and then learns from the triplets a batch's worth at a time. *Offline* does the same with every picture of the
set. This file holds what the two share: mining a large pool block by block, and cutting triplets into batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.triplets.distances import squared_l2
from visavis.losses.triplets.miners import Miner
from visavis.types import IntArray, Triplets

_MOST = 1 << 25


@dataclass(frozen=True)
class TripletBatch:
    """One training batch of a pool: the pictures it needs, each once, and the triplets as indices into them."""

    images: IntArray
    triplets: Triplets


@torch.no_grad()
def mine_pool(
    embeddings: Tensor,
    labels: Tensor,
    miner: Miner,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    queries: Tensor | None = None,
) -> Triplets:
    """Mine unit rows (N, D) with labels (N,) against each other, in blocks of at most 2^25 distances.

    `queries` are the rows that serve as anchors (all by default): with several ranks, each takes its own. All three
    indices of the result point into the pool.
    """
    queries = torch.arange(len(labels), device=labels.device) if queries is None else queries
    step = max(1, _MOST // max(1, len(labels)))
    found: list[Triplets] = []
    for own in queries.split(step):
        distances = squared_l2(embeddings[own], embeddings)
        t = miner(distances, labels[own], margin=margin, generator=generator, reference_labels=labels, own=own)
        found.append(Triplets(own.cpu().numpy()[t.anchor], t.positive, t.negative))
    nothing = [np.empty(0, np.int64)]
    return Triplets(
        np.concatenate([t.anchor for t in found] or nothing),
        np.concatenate([t.positive for t in found] or nothing),
        np.concatenate([t.negative for t in found] or nothing),
    )


def make_batches(triplets: Triplets, *, images: int, rng: np.random.Generator, at_least: int = 0) -> list[TripletBatch]:
    """Shuffle triplets and cut them into chunks of ⌊pictures / 3⌋, each of at most `images` different pictures.

    `at_least` repeats chunks from the start until there are as many: all ranks must take the same number of steps.
    A picture that several triplets of a chunk share is embedded once.

    Raises:
        RecipeError: fewer than 3 pictures per chunk.
    """
    if images < 3:
        raise RecipeError(f"a batch must hold at least the 3 pictures of a triplet, got loop.batch_size {images}")
    order = rng.permutation(len(triplets))
    size = images // 3
    chunks: list[TripletBatch] = []
    for begin in range(0, len(order), size):
        part = order[begin : begin + size]
        columns = np.stack([triplets.anchor[part], triplets.positive[part], triplets.negative[part]])
        names, where = np.unique(columns, return_inverse=True)
        chunks.append(TripletBatch(names, Triplets(*where.reshape(columns.shape).astype(np.int64))))
    return chunks + [chunks[i % len(chunks)] for i in range(len(chunks), at_least)] if chunks else []
