"""SphereFace's networks of 20, 36 and 64 layers: residual, without any normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.backbones.layers import check_size, halved
from visavis.backbones.prelu import PReLU

# Residual blocks of the four stages, each opened by a strided convolution.
STAGES = {20: (1, 2, 4, 1), 36: (2, 4, 8, 2), 64: (3, 8, 16, 3)}


class SphereNet(nn.Module):
    """A plain residual network: x + PReLU(conv(PReLU(conv(x)))) behind strided convolutions, and one dense layer.

        embedding = W · flatten(stages(x)) + b

    Liu et al., arXiv:1704.08063v4, table 2. MindSpore's port has no biases on its convolutions (22,665,984 parameters
    at depth 20, reference-systems row S4); clcarwin's PyTorch one has (22,670,656), and with `conv_bias` its published
    weights load strictly: the names `conv1_1` … `relu4_3`, `fc5` are its own. Without normalization the weights' start
    matters: Xavier's for strided convolutions and N(0, 0.01²) for residual ones, as in the authors' Caffe model.

    Args:
        depth: 20, 36 or 64.
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
        conv_bias: whether convolutions have biases.
    """

    def __init__(
        self, depth: int, *, size: tuple[int, int] = (112, 96), dim: int = 512, conv_bias: bool = False
    ) -> None:
        super().__init__()
        check_size(f"sphere{depth}", size, dim)
        self.dim = dim
        self.stages = STAGES[depth]
        channels = 3
        for stage, blocks in enumerate(self.stages, 1):
            out = 32 << stage
            for i in range(1, 2 * blocks + 2):
                layer = nn.Conv2d(channels, out, 3, 2 if i == 1 else 1, 1, bias=conv_bias)
                if i == 1:
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.normal_(layer.weight, 0.0, 0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
                self.add_module(f"conv{stage}_{i}", layer)
                self.add_module(f"relu{stage}_{i}", PReLU(out))
                channels = out
        height, width = halved(size, 4)
        self.fc5 = nn.Linear(512 * height * width, dim)
        nn.init.xavier_uniform_(self.fc5.weight)
        nn.init.zeros_(self.fc5.bias)

    def _unit(self, x: Tensor, stage: int, i: int) -> Tensor:
        return self.get_submodule(f"relu{stage}_{i}")(self.get_submodule(f"conv{stage}_{i}")(x))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        for stage, blocks in enumerate(self.stages, 1):
            x = self._unit(x, stage, 1)
            for i in range(2, 2 * blocks + 2, 2):
                x = x + self._unit(self._unit(x, stage, i), stage, i + 1)
        return self.fc5(torch.flatten(x, 1))
