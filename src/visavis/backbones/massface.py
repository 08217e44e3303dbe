"""The MobileFaceNet of MassFace: two 1 × 1 convolutions more than the published one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.backbones.layers import GlobalDepthwise, check_size, halved
from visavis.backbones.mobilefacenet import ConvUnit, bottlenecks


class MassFaceNet(nn.Module):
    """MobileFaceNet with a linear 1 × 1 convolution behind its first depthwise and its global depthwise layer.

        embedding = [BN] BN(W · BN(V · BN(GDConv(features(x)))))

    MassFace's TensorFlow network (reference-systems row M3): 1,270,528 parameters at 128 dimensions, 1,467,904 at 512,
    1,731,072 at 1024, and 2·D more with `fc_bn`. Norms have ε = 2·10⁻⁵ and keep 0.995 of their running moments, weights
    start at Xavier's normal. TensorFlow pads strided convolutions on one side only; here they are padded on both.

    Args:
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
        fc_bn: normalize the embedding once more.
    """

    def __init__(self, *, size: tuple[int, int] = (112, 112), dim: int = 512, fc_bn: bool = False) -> None:
        super().__init__()
        check_size("massface", size, dim)
        self.dim = dim
        self.conv1 = ConvUnit(nn.Conv2d(3, 64, 3, 2, 1, bias=False))
        self.dw_conv1 = ConvUnit(nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False))
        self.extra1 = ConvUnit(nn.Conv2d(64, 64, 1, bias=False), linear=True)
        self.blocks, channels = bottlenecks(64)
        self.conv2 = ConvUnit(nn.Conv2d(channels, 512, 1, bias=False))
        self.linear7 = ConvUnit(GlobalDepthwise(512, halved(size, 4)), linear=True)
        self.extra2 = ConvUnit(nn.Conv2d(512, 512, 1, bias=False), linear=True)
        self.linear1 = ConvUnit(nn.Conv2d(512, dim, 1, bias=False), linear=True)
        self.fc_bn = nn.BatchNorm1d(dim) if fc_bn else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.eps, module.momentum = 2e-5, 0.005

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        x = self.blocks(self.extra1(self.dw_conv1(self.conv1(x))))
        x = torch.flatten(self.linear1(self.extra2(self.linear7(self.conv2(x)))), 1)
        return x if self.fc_bn is None else self.fc_bn(x)
