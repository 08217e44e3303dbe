"""Layers that several networks share."""

import pytest
import torch

from visavis.backbones import build_backbone
from visavis.backbones.layers import GlobalDepthwise, halved
from visavis.errors import RecipeError


@pytest.mark.parametrize(
    ("size", "grid"), [((112, 112), (7, 7)), ((112, 96), (7, 6)), ((56, 56), (4, 4)), ((64, 64), (4, 4))]
)
def test_global_convolution_fits_the_last_grid(size, grid):
    network = build_backbone("mobilefacenet", size=size, dim=128).eval()
    assert network.linear7.conv.weight.shape == (512, 1, *grid)
    assert halved(size, 4) == grid
    assert network(torch.zeros(2, 3, *size)).shape == (2, 128)


def test_global_depthwise_is_the_same_sum_in_training_and_evaluation():
    torch.manual_seed(0)
    layer = GlobalDepthwise(6, (4, 3)).double()
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    expected = torch.einsum("nchw,cohw->nc", x, layer.weight)[..., None, None]
    torch.testing.assert_close(layer.train()(x), expected)
    torch.testing.assert_close(layer.eval()(x), expected)
    with pytest.raises(RecipeError, match="last grid"):
        layer.train()(torch.zeros(1, 6, 5, 3, dtype=torch.float64))
