"""A small residual network of plain 3 × 3 convolutions, made for training on a few CPU cores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visavis.backbones.layers import check_size, halved
from visavis.backbones.mobilefacenet import initialize
from visavis.errors import RecipeError

_SLOPE = 0.25


def _unit(channels: int, out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))


class Residual(nn.Module):
    """y = leaky(x + BN(conv(leaky(BN(conv(x))))), both convolutions 3 × 3 on `channels` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _unit(channels, channels)
        self.second = _unit(channels, channels)
        self.activation = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.activation(x + self.second(self.activation(self.first(x))))


class Small(nn.Module):
    """Four halvings, each a 3 × 3 convolution followed by `blocks[i]` residual blocks.

        channels w, 2w, 4w, 8w on grids 1/2, 1/4, 1/8, 1/16;  embedding = BN(W · dropout(flatten(features)))

    Of our own. By default 1.28 M parameters and 41 M multiply-adds at 56 × 56, 128 dimensions and w = 32; 2.85 M and
    105 M with blocks (1, 2, 2, 1). Shaped by what a CPU's convolution library does well: no depthwise layers, channels
    in multiples of 16, little at full resolution, and a fixed leaky slope of 0.25 where the field puts a PReLU, whose
    gradient costs as much as a normalization. A training step is about 4× as fast as MobileFaceNet's at the same crop.

    Args:
        size: (height, width) of the crops in pixels, 16 to 1024; made for 56 or 64.
        dim: length D of the embedding.
        width: channels w of the first layer, at least 8; multiples of 16 are fast.
        blocks: residual blocks after each halving, four numbers from 0 to 32.
        dropout: probability in [0, 1) before the last layer.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (56, 56),
        dim: int = 128,
        width: int = 32,
        blocks: Sequence[int] = (0, 1, 1, 0),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_size("small", size, dim)
        if not 8 <= width <= 512:
            raise RecipeError(f"small wants a width in [8, 512] channels, got {width}")
        if len(blocks) != 4 or not all(0 <= count <= 32 for count in blocks):
            raise RecipeError(f"small wants blocks as four numbers from 0 to 32, got {blocks}")
        if not 0 <= dropout < 1:
            raise RecipeError(f"small wants a dropout in [0, 1), got {dropout}")
        self.dim = dim
        layers: list[nn.Module] = []
        channels = 3
        for i, count in enumerate(blocks):
            out = width * 2**i
            layers += [_unit(channels, out, stride=2), nn.LeakyReLU(_SLOPE, inplace=True)]
            layers += [Residual(out) for _ in range(count)]
            channels = out
        self.features = nn.Sequential(*layers)
        height, columns = halved(size, 4)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels * height * columns, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        return self.bn(self.fc(self.dropout(torch.flatten(self.features(x), 1))))
