"""SphereNet's convolutions, counted."""

import torch
from torch import nn

from visavis.backbones import build_backbone


def on_paper(name, **arguments):
    with torch.device("meta"):
        return build_backbone(name, **arguments)


def test_spherenets_have_20_36_and_64_convolutions():
    for depth in (20, 36, 64):
        network = on_paper(f"sphere{depth}", size=(112, 96))
        assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == depth
