"""Training in several processes: who am I, how do we talk, what happens when one of us dies."""

from __future__ import annotations

import datetime
import logging
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visavis.distributed.collectives import RankGroup
from visavis.distributed.device import choose_device
from visavis.errors import RecipeError, VisavisError
from visavis.types import Embedder

log = logging.getLogger(__name__)
BACKENDS = {"cuda": "nccl", "npu": "hccl", "cpu": "gloo"}
_POLL = 0.05  # seconds
_FAILED, _ALIVE = "visavis/failed", "visavis/alive/"


@dataclass(frozen=True)
class Launch:
    """What the launcher said: who this process is among all and on its machine, and where all meet."""

    rank: int
    size: int
    local_rank: int
    address: str
    port: int


@dataclass(frozen=True)
class World:
    """A process among all: rank of size, its device. One process alone is rank 0 of 1."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, prints and judges."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size} ({socket.gethostname()}, pid {os.getpid()}, {self.device})"


ALONE = World(0, 1, 0, torch.device("cpu"))


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Read torchrun's variables, or srun's; None if this process was started alone.

    Raises:
        RecipeError: variables are missing or not numbers.
    """
    try:
        if "RANK" in environ and "WORLD_SIZE" in environ:
            size = int(environ["WORLD_SIZE"])
            return Launch(
                rank=int(environ["RANK"]),
                size=size,
                local_rank=int(environ.get("LOCAL_RANK", "0")),
                address=environ["MASTER_ADDR"] if size > 1 else environ.get("MASTER_ADDR", "127.0.0.1"),
                port=int(environ["MASTER_PORT"] if size > 1 else environ.get("MASTER_PORT", "29500")),
            )
        # A batch script itself has SLURM_PROCID too; only what srun started has a step.
        if "SLURM_PROCID" in environ and ("SLURM_STEP_ID" in environ or "SLURM_STEPID" in environ):
            nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or "127.0.0.1"
            return Launch(
                rank=int(environ["SLURM_PROCID"]),
                size=int(environ.get("SLURM_STEP_NUM_TASKS") or environ["SLURM_NTASKS"]),
                local_rank=int(environ.get("SLURM_LOCALID", "0")),
                address=environ.get("MASTER_ADDR") or first_host(nodes),
                port=int(environ.get("MASTER_PORT") or 20_000 + int(environ.get("SLURM_JOB_ID", "0")) % 20_000),
            )
    except KeyError as error:
        raise RecipeError(f"the launcher did not set {error}; start with: torchrun --nproc-per-node N ...") from error
    except ValueError as error:
        raise RecipeError(f"a launcher variable is no number ({error})") from error
    return None


def first_host(nodes: str) -> str:
    """The first host of a Slurm list: "gpu[03-05,9],login" is gpu03."""
    first = re.match(r"([^,\[]+)(?:\[([^\]]+)\])?([^,]*)", nodes)
    if first is None:
        raise RecipeError(f"cannot read the list of nodes {nodes!r}; set MASTER_ADDR")
    number = re.split(r"[-,]", first[2])[0] if first[2] else ""
    return first[1] + number + first[3]


def setup(device: str = "auto", *, timeout_minutes: float = 10.0) -> World:
    """Join the other processes, if a launcher started several, over NCCL, HCCL or gloo by device.

    Raises:
        RecipeError: the launcher's variables are incomplete, the device is not there or cannot be shared, or the
            others did not come within the timeout.
    """
    launch = find_launch()
    if launch is None or launch.size == 1:
        return World(0, 1, 0, choose_device(device))
    chosen = choose_device(device, local_rank=launch.local_rank)
    if chosen.type not in BACKENDS:
        raise RecipeError(f"{chosen.type} cannot train in several processes; use loop.device cpu, or one process")
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = launch.address, str(launch.port)
    timeout = datetime.timedelta(minutes=timeout_minutes)
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", launch.rank, launch.size, timeout=timeout)))  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(
            BACKENDS[chosen.type],
            store=meet(store, launch.rank, launch.size, seconds=timeout.total_seconds()),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timeout,
        )
    except (RuntimeError, ValueError) as error:  # dist.DistError is a RuntimeError
        raise RecipeError(
            f"rank {launch.rank} of {launch.size} did not meet the others at {launch.address}:{launch.port}: {error}"
        ) from error
    world = World(launch.rank, launch.size, launch.local_rank, chosen)
    log.info("%s joined over %s", world, BACKENDS[chosen.type])
    return world


def meet(store: Any, rank: int, size: int, *, seconds: float = 600.0) -> Any:
    """A part of the store that belongs to this start of all ranks alone.

    A launcher that starts everybody again (`torchrun --max-restarts`) may keep its store, with the addresses of those
    who are dead: whoever read them would knock at closed doors. So each rank says hello with a word of its own, and the
    first rank answers each such word with one name for all, until every rank has said that it knows the name.

    Raises:
        RuntimeError: some ranks did not come within `seconds`; they are named.
    """
    word, until = secrets.token_hex(8), time.monotonic() + seconds
    if rank:
        store.set(f"visavis/hello/{rank}", word)
        while not store.check([f"visavis/name/{word}"]):
            if time.monotonic() > until:
                raise RuntimeError("rank 0 did not answer")
            time.sleep(_POLL)
        name = store.get(f"visavis/name/{word}").decode()
        store.set(f"visavis/{name}/{rank}", "")
        return dist.PrefixStore(f"visavis/{name}", store)  # pyright: ignore[reportPrivateImportUsage]
    answered: set[bytes] = set()
    missing = set(range(1, size))
    while missing:
        for other in missing:
            if store.check([hello := f"visavis/hello/{other}"]) and (asked := store.get(hello)) not in answered:
                store.set(f"visavis/name/{asked.decode()}", word)
                answered.add(asked)
        missing = {other for other in missing if not store.check([f"visavis/{word}/{other}"])}
        if missing and time.monotonic() > until:
            raise RuntimeError(f"rank {', '.join(map(str, sorted(missing)))} did not come")
        time.sleep(_POLL if missing else 0)
    return dist.PrefixStore(f"visavis/{word}", store)  # pyright: ignore[reportPrivateImportUsage]


def shutdown(world: World) -> None:
    """Leave the group."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def report_failed_ranks(world: World, *, run: str | os.PathLike[str] = "RUN", patience: float = 5.0) -> Generator[None]:
    """Turn the failure of any rank into an error that names it, on every rank.

    A rank that fails leaves its name at the meeting point. A rank whose collective fails without such a note (the
    other was killed) signs in there, waits `patience` seconds and names whoever did not. Meanwhile it does not hear
    SIGTERM, which a launcher sends to the others as soon as one is dead, and would cut the answer short.

    Raises:
        VisavisError: another rank failed. What fails on this rank is raised as it is.
    """
    if world.size == 1:
        yield
        return
    store = dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    except Exception as error:
        if not _is_connection_loss(error):
            if not isinstance(error, VisavisError):  # the command line says those itself
                log.error("%s failed: %s", world, error)
            _quietly(store, _FAILED, f"{world}: {type(error).__name__}: {error}")
            raise
        with _ignore_sigterm():
            who = _find_missing_ranks(world, store, patience)
        raise VisavisError(f"the run ended because {who}; continue with: visavis train --resume {run}") from error


@contextmanager
def _ignore_sigterm() -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_connection_loss(error: Exception) -> bool:
    if isinstance(error, dist.DistError):
        return True
    words = ("connection", "gloo", "nccl", "peer", "timed out", "timeout", "socket", "broken pipe")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _find_missing_ranks(world: World, store: Any, patience: float) -> str:
    try:
        store.set(_ALIVE + str(world.rank), "here")
        until = time.monotonic() + patience
        missing = [rank for rank in range(world.size) if rank != world.rank]
        while time.monotonic() < until and missing:
            if store.check([_FAILED]):
                return f"another rank failed: {store.get(_FAILED).decode()}"
            missing = [rank for rank in missing if not store.check([_ALIVE + str(rank)])]
            time.sleep(0.1)
    except (RuntimeError, ValueError) as error:
        return f"rank 0, which keeps the meeting point, is gone ({error})"
    dead = ", ".join(map(str, missing))
    return f"rank {dead} of {world.size} died without a word" if missing else "the connection between the ranks broke"


def _quietly(store: Any, key: str, text: str) -> None:
    try:
        store.set(key, text)
    except RuntimeError:
        log.warning("could not tell the other ranks")


def wrap(network: nn.Module, world: World) -> nn.Module:
    """The network with gradients averaged over the ranks (DistributedDataParallel); itself if that is not needed.

    Alone it is not, nor where the weights are split (FSDP2 averages) or none of them learns.
    """
    parameters = list(network.parameters())
    if (
        world.size == 1
        or any(isinstance(p, DTensor) for p in parameters)
        or not any(p.requires_grad for p in parameters)
    ):
        return network
    ids = [world.device.index] if world.device.type in ("cuda", "npu") else None
    return nn.parallel.DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)


def barrier(world: World) -> None:
    """Wait for the others."""
    if world.size > 1:
        dist.barrier()


def from_first(value: Any, world: World) -> Any:
    """A plain value (numbers, text, lists, dictionaries) of rank 0, on every rank."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=world.device)
    return box[0]


def on_first(work: Callable[[], Any], world: World) -> Any:
    """What `work` gives on the first rank, on every rank; what it refuses, every rank refuses."""
    result = error = None
    if world.is_first:
        try:
            result = work()
        except VisavisError as caught:
            error = caught
    result, error = from_first((result, error), world)
    if error is not None:
        raise error
    return result


def from_all(value: Any, world: World) -> list[Any]:
    """A plain value of every rank, in their order, on every rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def broadcast_parameters(network: nn.Module, world: World) -> None:
    """Give every rank the first one's parameters and buffers (batch norm statistics are each rank's own)."""
    if world.size > 1:
        with torch.no_grad():
            for value in network.state_dict().values():
                if not isinstance(value, DTensor):  # split weights are nobody's own
                    dist.broadcast(value, 0)


def mean(value: Tensor, world: World) -> Tensor:
    """The mean over the ranks of a value each has, without gradient; of any shape (N, ...)."""
    return RankGroup().sum(value.detach().clone()) / world.size if world.size > 1 else value.detach()


def rank_slice(count: int, world: World) -> slice:
    """The part of `count` things this rank does, in order; parts differ by at most one."""
    return slice(count * world.rank // world.size, count * (world.rank + 1) // world.size)


def all_gather(value: Tensor, world: World) -> Tensor:
    """The rows of every rank, in their order, with gradient (see `RankGroup.gather_with_gradient`).

    Shapes: (n, ...) -> (N, ...).
    """
    if world.size == 1:
        return value
    ranks = RankGroup()
    return ranks.gather_with_gradient(value, ranks.counts(len(value), value.device))


class SharedEmbedder:
    """An embedder whose work is shared: every rank is asked for the same crops, embeds its part, gets all rows.

    Args:
        embedder: the embedder of this rank.
        world: who shares.
    """

    def __init__(self, embedder: Embedder, world: World) -> None:
        self.embedder, self.world = embedder, world
        self.dim = embedder.dim

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Unit rows (N, D) of crops uint8 (N, H, W, 3) RGB; all ranks must call it with the same crops."""
        return self._shared(self.embedder.embed, crops)

    def features(self, crops: np.ndarray) -> np.ndarray:
        """The same before rows are scaled to length 1, of an embedder that has `features`.

        Shapes: uint8 (N, H, W, 3) -> (N, D).
        """
        return self._shared(getattr(self.embedder, "features"), crops)  # noqa: B009 (not part of the contract)

    def _shared(self, embed: Callable[[np.ndarray], np.ndarray], crops: np.ndarray) -> np.ndarray:
        if self.world.size == 1:
            return embed(crops)
        part = crops[rank_slice(len(crops), self.world)]
        own = embed(part) if len(part) else np.zeros((0, self.dim), np.float32)
        rows = torch.from_numpy(np.ascontiguousarray(own)).to(self.world.device)
        return all_gather(rows, self.world).cpu().numpy()
