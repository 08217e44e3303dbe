"""Large pools mined in blocks, cut into batches, shared out over ranks; strips of what was found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from visavis.errors import RecipeError
from visavis.losses.triplets import build_miner, pools
from visavis.losses.triplets.distances import unit_rows
from visavis.losses.triplets.loss import TripletObjective
from visavis.types import Triplets


def pool(n: int = 90, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 17, (n,), generator=rng)
    return unit_rows(torch.randn(17, 6, generator=rng)[labels] + torch.randn(n, 6, generator=rng)), labels


def as_set(t: Triplets) -> set[tuple[int, int, int]]:
    return set(zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist(), strict=True))


@pytest.mark.parametrize("name", ["batch_all", "batch_min_min", "batch_min_max", "batch_hardest", "semi_hard"])
def test_blocks_find_what_one_matrix_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pool()
    whole = pools.mine_pool(x, y, build_miner(name), margin=0.3)
    monkeypatch.setattr(pools, "_MOST", 90 * 7)
    assert as_set(pools.mine_pool(x, y, build_miner(name), margin=0.3)) == as_set(whole)
    halves = [
        pools.mine_pool(x, y, build_miner(name), margin=0.3, queries=q)
        for q in (torch.arange(40), torch.arange(40, 90))
    ]
    assert as_set(halves[0]) | as_set(halves[1]) == as_set(whole)
    assert len(whole) > 50


def test_chunks_hold_every_triplet_once_and_every_picture_once() -> None:
    x, y = pool()
    mined = pools.mine_pool(x, y, build_miner("batch_all"), margin=0.3)
    chunks = pools.make_batches(mined, images=32, rng=np.random.default_rng(0))
    assert len(chunks) == -(-len(mined) // 10)
    seen: list[tuple[int, int, int]] = []
    for chunk in chunks:
        assert len(np.unique(chunk.images)) == len(chunk.images) <= 32
        back = Triplets(
            *(chunk.images[i] for i in (chunk.triplets.anchor, chunk.triplets.positive, chunk.triplets.negative))
        )
        seen += list(as_set(back))
    assert sorted(seen) == sorted(as_set(mined))
    longer = pools.make_batches(mined, images=32, rng=np.random.default_rng(0), at_least=len(chunks) + 3)
    assert len(longer) == len(chunks) + 3


def test_an_empty_pool_has_no_chunks_and_tiny_batches_are_refused() -> None:
    nothing = pools.mine_pool(torch.empty(0, 4), torch.empty(0, dtype=torch.long), build_miner("batch_all"), margin=1)
    assert pools.make_batches(nothing, images=30, rng=np.random.default_rng(0), at_least=4) == []
    with pytest.raises(RecipeError, match="at least the 3 pictures of a triplet"):
        pools.make_batches(nothing, images=2, rng=np.random.default_rng(0))


def _case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y = pool(60, seed=2)
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), x.double(), y


def _one_of_two(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    weight, x, y = _case()
    weight.requires_grad_()
    part = [slice(0, 25), slice(25, 60)][rank]
    TripletObjective(miner="batch_all", margin=0.3)(x[part] @ weight, y[part]).backward()
    assert weight.grad is not None
    distributed.all_reduce(weight.grad)
    if rank == 0:
        torch.save(weight.grad / 2, f"{folder}/gradient.pt")
    distributed.destroy_process_group()


def test_two_ranks_with_unequal_parts_have_the_gradient_of_one_process(tmp_path: Path) -> None:
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    weight, x, y = _case()
    weight.requires_grad_()
    TripletObjective(miner="batch_all", margin=0.3)(x @ weight, y).backward()
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    got = torch.load(tmp_path / "gradient.pt", weights_only=True)
    torch.testing.assert_close(got, weight.grad, atol=1e-12, rtol=0)


if __name__ == "__main__":
    _one_of_two(int(sys.argv[1]), sys.argv[2])
