"""Improved residual networks (iResNet) of 18 to 200 layers, under arcface_torch's state-dict names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visavis.backbones.layers import check_size, halved
from visavis.backbones.prelu import PReLU
from visavis.errors import RecipeError

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}


class Block(nn.Module):
    """The improved basic block: y = BN(conv_s(PReLU(BN(conv(BN(x)))))) + shortcut(x), convolutions 3 × 3.

    Deng et al., arXiv:1801.07698v4, section 3.2.2 (after Han et al., arXiv:1610.02915): the stride sits on the second
    convolution and nothing follows the sum. The shortcut is x, or a strided 1 × 1 convolution with BatchNorm.
    """

    def __init__(self, channels: int, out: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.prelu = PReLU(out)
        self.conv2 = nn.Conv2d(out, out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, out, ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """iResNet: four stages of improved residual blocks, each halving the grid, and one dense layer.

        embedding = BN(W · dropout(flatten(BN(stages(x)))) + b)

    Deng et al., arXiv:1801.07698v4, section 3.2.2; layers [3, 13, 30, 3] for depth 100 and so on (reference-systems row
    A2). The last norm's scale is fixed at 1 (`features.weight` does not learn). The names are arcface_torch's, whose
    weights load strictly. Other crops than 112 × 112 change the length of the dense layer only.

    Args:
        depth: 18, 34, 50, 100 or 200.
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
        dropout: probability of dropping an element before the dense layer, in [0, 1).
        checkpointing: recompute each stage's blocks in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        depth: int,
        *,
        size: tuple[int, int] = (112, 112),
        dim: int = 512,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_size(f"iresnet{depth}", size, dim)
        if not 0 <= dropout < 1:
            raise RecipeError(f"iresnet{depth} wants a dropout in [0, 1), got {dropout}")
        self.dim = dim
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = PReLU(64)
        channels = (64, 64, 128, 256, 512)
        for i, repeats in enumerate(DEPTHS[depth]):
            stage = [Block(channels[i] if j == 0 else channels[i + 1], channels[i + 1], stride=2 if j == 0 else 1)
                     for j in range(repeats)]  # fmt: skip
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout(dropout)
        height, width = halved(size, 4)
        self.fc = nn.Linear(512 * height * width, dim)
        self.features = nn.BatchNorm1d(dim)
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            for block in self.get_submodule(f"layer{i}").children():
                if self.checkpointing and self.training:
                    x = checkpoint(block, x, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
                else:
                    x = block(x)
        return self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1))))
