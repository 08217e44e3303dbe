"""The MobileFaceNets of arcface_torch (`mbf`, `mbf_large`), under its state-dict names."""

from __future__ import annotations

from torch import Tensor, nn

from visavis.backbones.layers import GlobalDepthwise, check_size, halved
from visavis.backbones.mobilefacenet import initialize
from visavis.backbones.prelu import PReLU
from visavis.errors import RecipeError


class Layers(nn.Module):
    """A chain under the name `layers`, added to its input when `adds`."""

    def __init__(self, *layers: nn.Module, adds: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> what the last layer gives."""
        return x + self.layers(x) if self.adds else self.layers(x)


def _unit(
    channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, linear: bool = False
) -> Layers:
    layers = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return Layers(*layers) if linear else Layers(*layers, PReLU(out))


def _bottleneck(channels: int, out: int, wide: int, *, stride: int = 1, adds: bool = False) -> Layers:
    return Layers(_unit(channels, wide), _unit(wide, wide, 3, stride, wide), _unit(wide, out, linear=True), adds=adds)


class ArcFaceMobileFaceNet(nn.Module):
    """arcface_torch's MobileFaceNet: wider bottlenecks, a global depthwise convolution and a dense layer.

        embedding = BN(W · BN(GDConv(features(x))))

    MobileFaceNets, arXiv:1804.07573v4, with every width of the trunk times `scale`, no change of the bottlenecks' own
    widths (128, 256, 512, 256), repeats `blocks` for the four stages and a dense layer for the last 1 × 1 convolution.
    Its `mbf` is scale 2 with (1, 4, 6, 2), its `mbf_large` scale 4 with (2, 8, 12, 4).

    Args:
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
        scale: width of the trunk, 64·scale and 128·scale channels; at least 1.
        blocks: repeats of the four stages; 1 in the first means a plain 3 × 3 convolution of 64 groups.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (112, 112),
        dim: int = 512,
        scale: int = 2,
        blocks: tuple[int, int, int, int] = (1, 4, 6, 2),
    ) -> None:
        super().__init__()
        check_size("mbf", size, dim)
        if scale < 1 or len(blocks) != 4 or min(blocks) < 1:
            raise RecipeError(f"mbf wants a scale of at least 1 and four positive repeats, got {scale} and {blocks}")
        self.dim = dim
        narrow, wide = 64 * scale, 128 * scale

        def repeated(channels: int, middle: int, times: int) -> Layers:
            return Layers(*[_bottleneck(channels, channels, middle, adds=True) for _ in range(times)])

        self.layers = nn.Sequential(
            _unit(3, narrow, 3, 2),
            _unit(narrow, narrow, 3, 1, 64) if blocks[0] == 1 else repeated(narrow, 128, blocks[0]),
            _bottleneck(narrow, narrow, 128, stride=2),
            repeated(narrow, 128, blocks[1]),
            _bottleneck(narrow, wide, 256, stride=2),
            repeated(wide, 256, blocks[2]),
            _bottleneck(wide, wide, 512, stride=2),
            repeated(wide, 256, blocks[3]),
        )
        self.conv_sep = _unit(wide, 512)
        self.features = Layers(
            Layers(GlobalDepthwise(512, halved(size, 4)), nn.BatchNorm2d(512)),
            nn.Flatten(),
            nn.Linear(512, dim, bias=False),
            nn.BatchNorm1d(dim),
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        return self.features(self.conv_sep(self.layers(x)))
