"""A network's layers in order, by their parameters' names: for freezing and for learning rates by depth."""

from __future__ import annotations

from torch import nn


def children(network: nn.Module) -> list[list[str]]:
    """The parameter names of each top-level module that has any, in order."""
    groups = [[key for key, _ in module.named_parameters(name)] for name, module in network.named_children()]
    return [group for group in groups if group]


def layers(network: nn.Module) -> list[list[str]]:
    """The parameter names of each layer, first to last; every parameter is in one of them.

    A layer is a top-level module with a matrix or a kernel, or such a member of a top-level sequence (a residual
    block, a transformer block). Modules of vectors alone (norms, PReLU) belong to the layer before them, parameters of
    the network itself (positions, tokens) to the first.
    """
    found: list[list[str]] = []
    waiting = [name for name, _ in network.named_parameters(recurse=False)]
    for name, child in network.named_children():
        split = isinstance(child, nn.Sequential | nn.ModuleList)
        for key, part in [(f"{name}.{k}", m) for k, m in child.named_children()] if split else [(name, child)]:
            own = list(part.named_parameters(key))
            if any(parameter.ndim > 1 for _, parameter in own):
                found.append([*waiting, *(n for n, _ in own)])
                waiting = []
            elif found:
                found[-1] += [n for n, _ in own]
            else:
                waiting += [n for n, _ in own]
    if waiting:
        found.append(waiting)
    return found
