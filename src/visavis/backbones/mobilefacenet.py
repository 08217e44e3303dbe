"""MobileFaceNet as published, under the layer names of the common PyTorch implementation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.backbones.layers import GlobalDepthwise, check_size, halved
from visavis.backbones.prelu import PReLU

# Table 1 of the paper: expansion t, channels c, repeats n, stride of the first s.
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class ConvUnit(nn.Module):
    """Convolution without bias, BatchNorm and, unless `linear`, a PReLU per channel."""

    def __init__(self, convolution: nn.Conv2d, *, linear: bool = False) -> None:
        super().__init__()
        self.conv = convolution
        self.bn = nn.BatchNorm2d(convolution.out_channels)
        self.prelu = None if linear else PReLU(convolution.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Filter, normalize, activate; (N, channels, H, W) -> (N, out, H / stride, W / stride)."""
        x = self.bn(self.conv(x))
        return x if self.prelu is None else self.prelu(x)


class Bottleneck(nn.Module):
    """Inverted residual: 1 × 1 up by `expansion`, 3 × 3 depthwise, linear 1 × 1 down; added to x where shapes agree.

    Sandler et al., arXiv:1801.04381v4, section 3.3, with PReLU for ReLU6 (arXiv:1804.07573v4, section 3.2).
    """

    def __init__(self, channels: int, out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.adds = stride == 1 and channels == out
        self.conv = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            PReLU(wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, out, H / stride, W / stride)."""
        return x + self.conv(x) if self.adds else self.conv(x)


def bottlenecks(channels: int) -> tuple[nn.Sequential, int]:
    """The trunk of table 1 behind `channels`, and the channels it ends with."""
    blocks: list[nn.Module] = []
    for expansion, out, repeats, stride in _BOTTLENECKS:
        for i in range(repeats):
            blocks.append(Bottleneck(channels, out, stride=stride if i == 0 else 1, expansion=expansion))
            channels = out
    return nn.Sequential(*blocks), channels


class MobileFaceNet(nn.Module):
    """MobileFaceNet: inverted residuals under a global depthwise convolution.

        embedding = BN(W · GDConv(features(x)))

    Chen et al., arXiv:1804.07573v4, table 1: 0.99 M parameters at 112 × 112 and 128 dimensions. Takes any crop of at
    least 16 pixels a side: the kernel of the global convolution is the last grid (7 × 7 at 112 × 112, 7 × 6 at
    112 × 96, 4 × 4 at 56 × 56). Layers bear the names of MobileFaceNet_Pytorch, whose weights load strictly.

    Args:
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
    """

    def __init__(self, *, size: tuple[int, int] = (112, 112), dim: int = 128) -> None:
        super().__init__()
        check_size("mobilefacenet", size, dim)
        self.dim = dim
        self.conv1 = ConvUnit(nn.Conv2d(3, 64, 3, 2, 1, bias=False))
        self.dw_conv1 = ConvUnit(nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False))
        self.blocks, channels = bottlenecks(64)
        self.conv2 = ConvUnit(nn.Conv2d(channels, 512, 1, bias=False))
        self.linear7 = ConvUnit(GlobalDepthwise(512, halved(size, 4)), linear=True)
        self.linear1 = ConvUnit(nn.Conv2d(512, dim, 1, bias=False), linear=True)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        x = self.blocks(self.dw_conv1(self.conv1(x)))
        return torch.flatten(self.linear1(self.linear7(self.conv2(x))), 1)


def initialize(network: nn.Module) -> None:
    """Kaiming's normal weights, N(0, 2 / fan_out), for convolutions; unit scale and zero shift for norms.

    He et al., arXiv:1502.01852v1, equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
