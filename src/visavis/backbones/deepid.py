"""DeepID: four small convolutions whose last two maps meet in a feature of 160 numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.backbones.layers import check_size


class DeepID(nn.Module):
    """DeepID's network, its feature rectified and so never negative.

        embedding = max(0, W · [flatten(x1), flatten(x2)] + b),  x2 = max(0, conv(x1))

    Sun, Wang, Tang, CVPR 2014, figure 2, as MindSpore's model zoo builds it (reference-systems rows D1–D7): crops of
    55 × 47, valid convolutions 20-40-60-80 with biases, 394,920 parameters below the classifier. Initialized as
    PyTorch does dense layers and by He's normal for convolutions; the reference truncates its normal.

    Args:
        size: (height, width) of the crops in pixels, at least 31 a side.
        dim: length D of the embedding; 160 as published.
    """

    def __init__(self, *, size: tuple[int, int] = (55, 47), dim: int = 160) -> None:
        super().__init__()
        check_size("deepid", size, dim, smallest=31)
        self.dim = dim
        self.conv1 = nn.Conv2d(3, 20, 4)
        self.conv2 = nn.Conv2d(20, 40, 3)
        self.conv3 = nn.Conv2d(40, 60, 3)
        self.conv4 = nn.Conv2d(60, 80, 2)
        height, width = (((side - 3) // 2 - 2) // 2 - 2 for side in size)
        height, width = height // 2, width // 2
        self.fc = nn.Linear(60 * height * width + 80 * (height - 1) * (width - 1), dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> non-negative features (N, D)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x1 = F.max_pool2d(F.relu(self.conv3(x)), 2)
        x2 = F.relu(self.conv4(x1))
        return F.relu(self.fc(torch.cat([x1.flatten(1), x2.flatten(1)], 1)))
