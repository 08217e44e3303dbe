"""Launchers' variables, collectives with gradient, and what happens when a rank dies."""

import os
import re
import socket
import time

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from visavis.distributed import launch as distributed
from visavis.errors import RecipeError, VisavisError


def test_torchrun_and_srun_are_understood_and_a_lone_process_is_alone():
    assert distributed.find_launch({}) is None
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29501"}
    assert distributed.find_launch(torchrun) == distributed.Launch(5, 8, 1, "node1", 29501)
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "123456"}
    assert distributed.find_launch(slurm) is None  # the batch script itself, not a task
    slurm |= {"SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "gpu[03-05,9],login"}
    assert distributed.find_launch(slurm) == distributed.Launch(3, 4, 1, "gpu03", 20_000 + 123_456 % 20_000)
    assert distributed.first_host("alpha,beta") == "alpha"
    assert distributed.first_host("rack[2,4]-ib") == "rack2-ib"
    with pytest.raises(RecipeError, match="MASTER_ADDR"):
        distributed.find_launch({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(RecipeError, match="no number"):
        distributed.find_launch({"RANK": "one", "WORLD_SIZE": "2"})


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    world = distributed.setup("cpu")
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.all_gather(x, world) is x
    assert distributed.from_first("a", world) == "a"
    assert [distributed.rank_slice(7, distributed.World(r, 3, r, world.device)) for r in range(3)] == [
        slice(0, 2), slice(2, 4), slice(4, 7),
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def enter(rank: int, size: int, port: int) -> distributed.World:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    return distributed.setup("cpu", timeout_minutes=1)


class Sums:
    dim = 2

    def embed(self, crops):
        total = crops.reshape(len(crops), -1).sum(1).astype(np.float32)
        return np.stack([total, -total], 1)


def two_processes(rank: int, size: int, port: int, folder: str) -> None:
    world = enter(rank, size, port)
    assert distributed.from_first({"a": rank}, world) == {"a": 0}
    assert distributed.mean(torch.tensor(float(rank)), world).item() == 0.5
    crops = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3), np.uint8)
    assert np.array_equal(distributed.SharedEmbedder(Sums(), world).embed(crops), Sums().embed(crops))

    # A loss of all pairs of the gathered batch, from unequal parts, through DDP.
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()
    data = torch.randn(7, 3, dtype=torch.double)
    wrapped = distributed.wrap(network, world)
    rows = distributed.all_gather(wrapped(data[:3] if rank == 0 else data[3:]), world)
    torch.pdist(rows).square().mean().backward()
    gradient = network.weight.grad.clone()
    network.zero_grad()
    torch.pdist(network(data)).square().mean().backward()
    torch.testing.assert_close(gradient, network.weight.grad, rtol=0, atol=1e-12)
    distributed.barrier(world)
    distributed.shutdown(world)


def test_collectives_and_gradients_of_two_processes_equal_one(tmp_path):
    mp.start_processes(two_processes, (2, free_port(), str(tmp_path)), nprocs=2, start_method="spawn")


def lose_one(rank: int, size: int, port: int, folder: str, how: str) -> None:
    world = enter(rank, size, port)
    try:
        with distributed.report_failed_ranks(world, patience=3.0):
            distributed.mean(torch.ones(1), world)
            if rank == 1 and how == "killed":
                os._exit(0)  # no exception, no goodbye
            if rank == 1:
                raise OSError("disk full")
            distributed.mean(torch.ones(1), world)
    except VisavisError as error:
        with open(f"{folder}/{rank}", "w") as file:
            file.write(str(error))
    except OSError:
        time.sleep(1.0)
    os._exit(0)  # a broken group cannot be left politely


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("killed", "rank 1 of 2 died without a word"),
        pytest.param("raised", r"another rank failed: rank 1 of 2 \(.*OSError: disk full", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_dies_is_named_by_the_others(tmp_path, how, said):
    mp.start_processes(lose_one, (2, free_port(), str(tmp_path), how), nprocs=2, start_method="spawn")
    assert not (tmp_path / "1").exists()
    text = (tmp_path / "0").read_text()
    assert re.search(said, text), text
    assert "--resume" in text


class Store(dict):
    """The meeting point of the ranks, or what is left of it."""

    def __init__(self, keys=(), error=None):
        super().__init__(keys)
        self.error = error

    def set(self, key, value):
        if self.error:
            raise self.error
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (Store({distributed._FAILED: b"rank 1 of 3: DataError: x"}), "another rank failed: rank 1 of 3: DataError: x"),
        (Store({distributed._ALIVE + "2": b"here"}), "rank 1 of 3 died without a word"),
        (Store(), "rank 1, 2 of 3 died without a word"),
        (
            Store({distributed._ALIVE + "1": b"", distributed._ALIVE + "2": b""}),
            "the connection between the ranks broke",
        ),
        (Store(error=RuntimeError("reset")), "rank 0, which keeps the meeting point, is gone (reset)"),
    ],
)
def test_who_is_gone_is_said_as_far_as_the_meeting_point_tells(store, said):
    world = distributed.World(0, 3, 0, torch.device("cpu"))
    assert distributed._find_missing_ranks(world, store, 0.2) == said


def test_alone_nobody_is_waited_for_or_asked():
    distributed.barrier(distributed.ALONE)
    assert distributed.from_first({"a": 1}, distributed.ALONE) == {"a": 1}
