"""Backbones too large for one device: weights, gradients and optimizer state split over the ranks (FSDP2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from visavis.distributed.device import PRECISIONS
from visavis.distributed.launch import World


def shard_weights(network: nn.Module, world: World, *, precision: str = "fp32", smallest: int = 100_000) -> nn.Module:
    """Split a network over the ranks, in place; does nothing for one process.

    Each block (a child of a ModuleList or Sequential with at least `smallest` parameters) is gathered just before it
    computes and let go after it; the rest belongs to the root. Gradients are averaged over the ranks as
    DistributedDataParallel does, so the heads' contract holds. Build the optimizer afterwards: its state is split with
    the weights. Running statistics of batch norms stay each rank's own.

    Args:
        network: on its device, the same values on every rank.
        world: who shares.
        precision: of the gathered weights: fp32, bf16 or fp16; the split ones stay in float32.
        smallest: parameters a block must have to be split by itself.
    """
    if world.size == 1:
        return network
    mesh = init_device_mesh(world.device.type, (world.size,))
    kind = PRECISIONS[precision]
    policy = MixedPrecisionPolicy(
        param_dtype=None if kind == torch.float32 else kind,
        reduce_dtype=None if kind == torch.float32 else torch.float32,
    )
    for module in list(network.modules()):
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for block in module:
                if sum(p.numel() for p in block.parameters()) >= smallest:
                    fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    return network


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state dict as one process would have it, ordinary tensors on the CPU; all ranks must call it.

    Shapes: of any shapes (R, ...).
    """
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value.detach()).cpu()
        for name, value in network.state_dict().items()
    }
