"""The few layers several backbones share, and the sizes of their feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from visavis.errors import RecipeError


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """The grid (height, width) left of `size` after `times` 3 × 3 convolutions of stride 2, padding 1: ⌈n/2⌉ each."""
    height, width = size
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def check_size(name: str, size: tuple[int, int], dim: int, *, smallest: int = 16) -> None:
    """Refuse a crop size or an embedding length no network of this kind can have.

    Raises:
        RecipeError: a side below `smallest` pixels or above 1024, or `dim` outside [1, 65536].
    """
    if len(size) != 2 or not all(smallest <= side <= 1024 for side in size):
        raise RecipeError(f"{name} wants crops of {smallest} to 1024 pixels a side, got size {tuple(size)}")
    if not 1 <= dim <= 65_536:
        raise RecipeError(f"{name} wants an embedding length dim in [1, 65536], got {dim}")


class GlobalDepthwise(nn.Conv2d):
    """A depthwise convolution whose kernel is the whole grid: one learned weighted mean per channel.

        y_c = Σ_ij w_cij · x_cij

    MobileFaceNets, arXiv:1804.07573v4, section 3.2 (GDConv). Input (N, channels, height, width), output (N, channels,
    1, 1). Computed as a product and a sum while training, since a depthwise convolution of a single output pixel is a
    slow special case of the CPU's convolution library; the exported graph keeps the convolution.
    """

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__(channels, channels, grid, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Weigh and add each channel of (N, C, H, W); a grid other than the kernel's is refused."""
        if not self.training:
            return super().forward(input)
        if input.shape[-2:] != self.weight.shape[-2:]:
            built, got = tuple(self.weight.shape[-2:]), tuple(input.shape[-2:])
            raise RecipeError(
                f"the network was built for a last grid of {built}, got {got}: the crops have another size"
            )
        return (input * self.weight.squeeze(1)).sum((2, 3), keepdim=True)
