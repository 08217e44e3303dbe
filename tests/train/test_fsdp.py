"""A tiny ViT split over two processes with FSDP2 trains as in one, and its checkpoint fits one and two."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from visavis.backbones import build_backbone
from visavis.distributed import launch as distributed
from visavis.errors import ModelFormatError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sharded_checkpoint import (
    load_module_state,
    load_optimizer_state,
    module_state,
    optimizer_state,
)
from visavis.train.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint
from visavis.train.fsdp import shard_weights, whole_weights

STEPS = 3


def build(world):
    torch.manual_seed(0)
    network = build_backbone("vit_tiny", size=(27, 27), dim=16, drop_path=0.0)
    del network.blocks[2:]  # two of the twelve: tiny
    network.double().train()  # in float32, rounding may put a hidden unit on the other side of ReLU6's corner
    network.feature.eval()  # batch statistics of half a batch are not those of the whole
    shard_weights(network, world)
    head = MarginSoftmax(build_head("cosface", scale=16.0), num_classes=11, dim=16, seed=0).double()
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    return network, head, optimizer


def train(network, head, optimizer, world, first, last):
    losses = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(4, 3, 27, 27, generator=generator).double(), torch.randint(0, 11, (4,), generator=generator)
        rows = distributed.rank_slice(4, world)
        optimizer.zero_grad()
        loss = head(network(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def split(rank, size, port, folder):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = distributed.setup("cpu", timeout_minutes=2)
    network, head, optimizer = build(world)
    local = sum(p.to_local().numel() for p in network.parameters())
    assert local < 0.55 * sum(p.numel() for p in network.parameters())
    losses = train(network, head, optimizer, world, 0, STEPS - 1)
    both = torch.nn.ModuleDict({"network": network, "head": head})
    state = {"module": module_state(both), "optimizer": optimizer_state(optimizer, both)}
    save_checkpoint(Path(folder), state, step=STEPS - 1, world=world)
    other, other_head, other_optimizer = build(world)
    both = torch.nn.ModuleDict({"network": other, "head": other_head})
    saved = open_checkpoint(Path(folder))
    load_module_state(both, saved["module"])
    load_optimizer_state(other_optimizer, both, saved["optimizer"])
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.to_local(), two.to_local())
    losses += train(other, other_head, other_optimizer, world, STEPS - 1, STEPS)
    whole = whole_weights(other)
    if rank == 0:
        torch.save((losses, whole), f"{folder}/end.pt")
    distributed.shutdown(world)


@pytest.mark.slow
def test_a_split_vit_trains_as_a_whole_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.start_processes(split, (2, port, str(tmp_path)), nprocs=2, start_method="spawn")
    losses, whole = torch.load(tmp_path / "end.pt", weights_only=True)
    alone = distributed.World(0, 1, 0, torch.device("cpu"))
    network, head, optimizer = build(alone)
    expected = train(network, head, optimizer, alone, 0, STEPS - 1)
    saved = load_checkpoint(tmp_path)
    both = torch.nn.ModuleDict({"network": network, "head": head})
    for name, entry in optimizer_state(optimizer, both).items():
        found = saved["optimizer"][name]["momentum_buffer"]
        torch.testing.assert_close(found, entry["momentum_buffer"], rtol=1e-7, atol=1e-10)
    load_module_state(both, saved["module"])
    load_optimizer_state(optimizer, both, saved["optimizer"])
    expected += train(network, head, optimizer, alone, STEPS - 1, STEPS)
    assert losses == pytest.approx(expected, rel=1e-9)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(whole[name], value, rtol=1e-7, atol=1e-10)
    del saved["module"]["network.norm.weight"]
    with pytest.raises(ModelFormatError, match=r"norm\.weight"):
        load_module_state(both, saved["module"])
