"""Networks whose norms and slopes are far from their start."""

import numpy as np
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.vision.preprocessing import PreprocessSpec


def trained(name, size, dim, **args):
    """A network whose norms and slopes are far from their start, so that folding them wrongly shows."""
    torch.manual_seed(0)
    network = build_backbone(name, size=size, dim=dim, **args).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.6, 1.5)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 1.6)
        elif isinstance(module, nn.Conv2d) and name.startswith("iresnet"):
            nn.init.kaiming_normal_(module.weight)
    return network


def spec_of(size, flip="none", channels="RGB"):
    return PreprocessSpec(size, "arcface", channels, (127.5, 120.0, 110.0), (128.0, 127.0, 126.0), flip)


def images(count, size):
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)
