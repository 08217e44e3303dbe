"""MassFace's network: its running moments count."""

import torch
from torch import nn

from visavis.backbones import build_backbone


def on_paper(name, **arguments):
    with torch.device("meta"):
        return build_backbone(name, **arguments)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_massface_counts_its_running_moments_too():
    """Row M3: 1,753,600 with BatchNorm statistics."""
    network = on_paper("massface", dim=1024)
    moments = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert parameters(network) + moments == 1_753_600
