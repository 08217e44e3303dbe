"""What a network costs by itself: FLOPs, the activations kept for the backward pass, and memory by purpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visavis.distributed.device import autocast
from visavis.train.batch import plan_batch
from visavis.train.recipe import Recipe
from visavis.vision.preprocessing import PreprocessSpec

STATES = {"adagrad": 1, "adam": 2, "adamw": 2, "sgd": 1}  # numbers an optimizer keeps per parameter
HEAD_BUFFERS = 64 << 20  # what margin_softmax keeps between forward and backward at most


def count_flops(network: nn.Module, spec: PreprocessSpec) -> int:
    """FLOPs of one image's forward pass, convolutions and matrix products; one multiply-add counts as two."""
    was, example = network.training, torch.zeros(1, 3, *spec.size)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.eval()(example)
    network.train(was)
    return int(counter.get_total_flops())


def measure_activations(
    network: nn.Module, spec: PreprocessSpec, device: torch.device, precision: str, *, batch: int = 2
) -> int:
    """Bytes per image that autograd keeps for the backward pass, as it keeps them: each storage once, no parameters."""
    kept = [_kept_bytes(network, torch.randn(b, 3, *spec.size, device=device), precision) for b in (batch, 2 * batch)]
    return max(0, round((kept[1] - kept[0]) / batch))


def _kept_bytes(network: nn.Module, pixels: Tensor, precision: str) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    found: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), autocast(pixels.device, precision):
        output = network(pixels)
    del output
    return sum(size for size, _ in found.values())


def estimate_memory(
    recipe: Recipe, network: nn.Module, *, centers: int, activations: int, devices: int
) -> dict[str, int]:
    """Bytes per device by purpose: fp32 weights, as autocast has them; class centers split over the devices."""
    weights = sum(p.numel() for p in network.parameters())
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    states = STATES.get(recipe.optimizer.name, 2) if recipe.optimizer.name != "sgd" or recipe.optimizer.momentum else 0
    share = -(-centers // devices)
    sampled = recipe.head.sample_rate if recipe.optimizer.name == "sgd" else 1.0  # others fill in a dense gradient
    memory = {
        "weights": 4 * weights,
        "gradients": 4 * learning,
        "optimizer state": 4 * learning * states,
        "activations": activations * plan_batch(recipe, devices).device_batch,
    }
    if recipe.loop.ema:
        memory["moving average"] = 4 * weights
    if centers:
        memory["class centers, their gradient and state"] = round(4 * share * (1 + sampled + states))
        memory["head's buffers"] = HEAD_BUFFERS
    return memory
