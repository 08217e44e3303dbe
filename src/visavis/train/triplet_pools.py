"""Batches of triplets mined over more than a batch: the semi-online and the offline pool (row M7).

The online pool needs nothing here: `TripletObjective` mines the batch it is given.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, distributed, nn

from visavis import seeding
from visavis.distributed.gather import gather_rows, world_size
from visavis.losses.triplets.distances import unit_rows
from visavis.losses.triplets.loss import TripletObjective
from visavis.losses.triplets.pools import TripletBatch, make_batches, mine_pool
from visavis.losses.triplets.triplet_images import sheet, strips
from visavis.train.loader import Batch, Loader, Normalizer
from visavis.train.recipe import Recipe
from visavis.types import IntArray, Triplets
from visavis.vision.images import write
from visavis.vision.preprocessing import fit_crops

log = logging.getLogger(__name__)
STRIPS, STRIPS_ARRAY = "triplets.png", "triplets.npz"
_EMBED = 256


class Pool(ABC):
    """Mines a pool, serves it as batches, and starts over with the network as it is then.

    What is left of the pool is part of the state, so that a run resumed in the middle of one learns from the same
    triplets. When a pool holds none, one plain batch without triplets is served, so that a head beside the triplet loss
    still learns and the run moves on.

    Args:
        loader: the training pictures.
        objective: whose miner and margin to use.
        network: what embeds, in evaluation mode for as long.
        normalize: from pixels to its input.
        train_mode: puts the network back in training mode.
        images: most pictures of a batch.
        batches: batches a semi-online pool holds.
    """

    def __init__(
        self,
        loader: Loader,
        objective: TripletObjective,
        network: nn.Module,
        normalize: Normalizer,
        *,
        train_mode: Callable[[], object],
        images: int,
        batches: int,
    ) -> None:
        self.loader, self.objective, self.network, self.normalize = loader, objective, network, normalize
        self.train_mode, self.size, self.count = train_mode, images, batches
        self.number, self.used = -1, 0
        self.triplets = _empty()
        self.triplet_batches: list[TripletBatch] = []

    @abstractmethod
    def embed_pool(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embed pool `self.number`: all ranks' unit rows (N, D) and labels (N,), and which rows are this rank's."""

    @abstractmethod
    def serve(self, triplet_batch: TripletBatch, serial: int) -> Batch:
        """The pictures of a chunk of the current pool."""

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches for ever, from where the state is; `start` is not needed."""
        while True:
            while self.used < len(self.triplet_batches):
                self.used += 1
                triplet_batch = self.triplet_batches[self.used - 1]
                yield replace(self.serve(triplet_batch, self.used - 1), triplets=triplet_batch.triplets)
            self.number, self.used = self.number + 1, 0
            self.triplets = self._mine()
            self._make_batches()
            log.info(
                "triplet pool %d: %d triplets in %d batches", self.number, len(self.triplets), len(self.triplet_batches)
            )
            if not self.triplet_batches:
                yield replace(self.loader.batch(self.number * self.count), triplets=_empty())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: every rank's triplets, since one rank writes for all; all ranks must call it."""
        t = self.triplets
        rows = torch.from_numpy(np.stack([t.anchor, t.positive, t.negative], axis=1).astype(np.int64))
        everyone, _ = gather_rows(rows.to(self.normalize.device))
        counts, _ = gather_rows(torch.tensor([len(rows)], device=self.normalize.device))
        return {"number": self.number, "used": self.used, "triplets": everyone.cpu(), "counts": counts.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; another number of processes begins the next pool instead."""
        self.number, self.used = state["number"], state["used"]
        counts, triplets = (_tensor(state[key]) for key in ("counts", "triplets"))
        if len(counts) != world_size():
            log.info("the rest of triplet pool %d, mined by %d processes, is left out by %d",
                     self.number, len(counts), world_size())  # fmt: skip
            return
        self.triplets = Triplets(*triplets.split(counts.tolist())[self.loader.sampler.rank].T.contiguous().numpy())
        if self.number >= 0:
            self._make_batches()

    def _mine(self) -> Triplets:
        embeddings, labels, own = self.embed_pool()
        generator = torch.Generator(labels.device).manual_seed(self._seed())
        return mine_pool(
            embeddings, labels, self.objective.miner, margin=self.objective.margin, generator=generator, queries=own
        )

    def _make_batches(self) -> None:
        rng = seeding.generator(self.loader.seed, "triplet batches", self.number, self.loader.sampler.rank)
        steps = -(-len(self.triplets) // max(1, self.size // 3))
        if world_size() > 1:
            most = torch.tensor(steps, device=self.normalize.device)
            distributed.all_reduce(most, distributed.ReduceOp.MAX)
            steps = int(most)
        self.triplet_batches = make_batches(self.triplets, images=self.size, rng=rng, at_least=steps)
        # A rank that found nothing must step with the others all the same.
        self.triplet_batches += [TripletBatch(self.idle(), _empty())] * (steps - len(self.triplet_batches))

    def idle(self) -> IntArray:
        """ImageDataset to embed where there is nothing to learn from; (2,)."""
        return np.arange(2)

    def _seed(self) -> int:
        return seeding.derived(self.loader.seed, "triplet pool", self.number, self.loader.sampler.rank)

    @torch.no_grad()
    def embed(self, pixels: Iterator[Tensor]) -> Tensor:
        """Unit rows of uint8 pixels (n, H, W, 3), batch by batch, in evaluation mode."""
        self.network.eval()
        try:
            return torch.cat([unit_rows(self.network(self.normalize(part))) for part in pixels])
        finally:
            self.train_mode()


@final
class SemiOnline(Pool):
    """`batches` batches of the sampler, seen once without a graph; learned from as they were seen, pixel by pixel."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: dict[tuple[int, int], Batch] = {}
        self.rows: list[tuple[int, int, int]] = []

    def embed_pool(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embed this rank's batches and gather all ranks'; (N, D), (N,) and this rank's (n,)."""
        self._open()
        own = [self._batch(self.loader.sampler.rank, i) for i in range(self.count)]
        embeddings = self.embed(batch.pixels for batch in own)
        labels = torch.cat([batch.labels for batch in own]).to(embeddings.device)
        everyone, begin = gather_rows(embeddings)
        every_label, _ = gather_rows(labels)
        return everyone, every_label, torch.arange(begin, begin + len(labels), device=labels.device)

    def serve(self, triplet_batch: TripletBatch, serial: int) -> Batch:
        """Pick the pixels out of the pool; another rank's pictures are prepared here as it prepared them."""
        if not self.rows:
            self._open()
        places = [self.rows[i] for i in triplet_batch.images]
        parts = [(self._batch(rank, i), row) for rank, i, row in places]
        return Batch(
            torch.stack([batch.pixels[row] for batch, row in parts]),
            torch.stack([batch.labels[row] for batch, row in parts]),
        )

    def _open(self) -> None:
        self.seen = {}
        places = [(r, i) for r in range(world_size()) for i in range(self.count)]
        self.rows = [(r, i, row) for r, i in places for row in range(len(self._sampler(r).batch(self._number(i))))]
        # The sampler may be asked in any order, but decoding is worth doing ahead.
        ahead = self.loader.batches(self._number(0))
        for i, batch in enumerate(islice(ahead, self.count)):
            self.seen[self.loader.sampler.rank, i] = batch
        ahead.close()  # type: ignore[attr-defined]

    def _number(self, i: int) -> int:
        return self.number * self.count + i

    def _sampler(self, rank: int) -> Any:
        other = copy.copy(self.loader.sampler)
        other.rank = rank
        return other

    def _batch(self, rank: int, i: int) -> Batch:
        if (rank, i) not in self.seen:
            other = copy.copy(self.loader)
            other.sampler = self._sampler(rank)
            self.seen[rank, i] = other.batch(self._number(i))
        return self.seen[rank, i]


@final
class Offline(Pool):
    """Every picture of the set, seen as it is; learned from with augmentation."""

    def embed_pool(self) -> tuple[Tensor, Tensor, Tensor]:
        """Embed this rank's share of the pictures and gather all; (N, D), (N,) and this rank's (n,)."""
        images, spec, n = self.loader.images, self.loader.spec, len(self.loader.images)
        rank, world = self.loader.sampler.rank, world_size()
        own = np.arange(n * rank // world, n * (rank + 1) // world)
        parts = (own[i : i + _EMBED] for i in range(0, len(own), _EMBED))
        embeddings = self.embed(torch.from_numpy(fit_crops(images.take(part), spec)) for part in parts)
        everyone, _ = gather_rows(embeddings)
        labels = torch.from_numpy(images.labels.astype(np.int64)).to(everyone.device)
        return everyone, labels, torch.from_numpy(own).to(everyone.device)

    def serve(self, triplet_batch: TripletBatch, serial: int) -> Batch:
        """Read and change the pictures; the change is a function of seed, pool and chunk."""
        return self.loader.prepare(triplet_batch.images, self.number * 1_000_003 + serial)


POOLS: dict[str, type[Pool]] = {"semi-online": SemiOnline, "offline": Offline}


def open_pool(
    recipe: Recipe,
    loader: Loader,
    objective: Any,
    network: nn.Module,
    normalize: Normalizer,
    train_mode: Callable[[], object],
    *,
    images: int,
) -> Pool | None:
    """The pool a recipe's triplet loss mines, served in batches of at most `images`; None where none is mined."""
    wanted = recipe.triplet
    if not wanted.weight or wanted.pool == "online":
        return None
    return POOLS[wanted.pool](
        loader,
        objective.triplet,
        network,
        normalize,
        train_mode=train_mode,
        images=images,
        batches=wanted.pool_batches,
    )


def write_strips(run: Path, objective: Any, batch: Batch, *, limit: int = 12) -> None:
    """Show what was mined last as strips anchor|positive|negative in RUN/triplets.png, and keep them for the report.

    Miners list anchor by anchor: the strips are spread over all of them. Nothing without a triplet loss. Of a batch
    mined over several ranks only one rank's pictures are at hand: then nothing is written either.
    """
    mined = objective.triplet.mined if objective.triplet is not None else None
    if mined is not None and len(mined) and world_size() == 1:
        some = np.unique(np.linspace(0, len(mined) - 1, limit).astype(np.int64))
        chosen = Triplets(mined.anchor[some], mined.positive[some], mined.negative[some])
        shown = strips(batch.pixels.numpy(), chosen, limit=limit)
        write(run / STRIPS, sheet(shown))
        np.savez_compressed(run / STRIPS_ARRAY, strips=shown)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value.whole()


def _empty() -> Triplets:
    nothing = np.empty(0, np.int64)
    return Triplets(nothing, nothing, nothing)
