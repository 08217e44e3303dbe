import pytest
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.backbones.layers import GlobalDepthwise, halved
from visavis.errors import RecipeError


def count(network, *, without=()):
    skipped = {id(p) for m in network.modules() if isinstance(m, without) for p in m.parameters(recurse=False)}
    return sum(p.numel() for p in network.parameters() if id(p) not in skipped)


def test_mobilefacenet_has_the_published_size():
    """arXiv:1804.07573v4, table 3: 0.99 M, which is convolutions and scales; our total counts norms and PReLUs too."""
    network = build_backbone("mobilefacenet", size=(112, 112), dim=128)
    assert count(network, without=(nn.BatchNorm2d, nn.PReLU)) == 976_000
    assert count(network, without=(nn.PReLU,)) == 995_584
    assert count(network) == 1_003_136
    # 384 more rows of the last 1 × 1 convolution, with their norm's scale and shift
    assert count(build_backbone("mobilefacenet", size=(112, 112), dim=512)) == 1_003_136 + 384 * (512 + 2)


@pytest.mark.parametrize(
    ("size", "grid"), [((112, 112), (7, 7)), ((112, 96), (7, 6)), ((56, 56), (4, 4)), ((64, 64), (4, 4))]
)
def test_global_convolution_fits_the_last_grid(size, grid):
    network = build_backbone("mobilefacenet", size=size, dim=128).eval()
    assert network.linear7.conv.weight.shape == (512, 1, *grid)
    assert halved(size, 4) == grid
    assert network(torch.zeros(2, 3, *size)).shape == (2, 128)


def test_mobilefacenet_bears_the_names_of_the_published_weights():
    keys = set(build_backbone("mobilefacenet", size=(112, 96), dim=128).state_dict())
    assert {"conv1.conv.weight", "dw_conv1.prelu.weight", "blocks.14.conv.7.running_var"} <= keys
    assert {"conv2.bn.weight", "linear7.conv.weight", "linear1.bn.num_batches_tracked"} <= keys
    assert len(keys) == 15 * 20 + 3 * 7 + 2 * 6


def test_global_depthwise_is_the_same_sum_in_training_and_evaluation():
    torch.manual_seed(0)
    layer = GlobalDepthwise(6, (4, 3)).double()
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    expected = torch.einsum("nchw,cohw->nc", x, layer.weight)[..., None, None]
    torch.testing.assert_close(layer.train()(x), expected)
    torch.testing.assert_close(layer.eval()(x), expected)
    with pytest.raises(RecipeError, match="last grid"):
        layer.train()(torch.zeros(1, 6, 5, 3, dtype=torch.float64))


@pytest.mark.parametrize("size", [(56, 56), (64, 64), (112, 96)])
def test_small_trains_and_embeds(size):
    network = build_backbone("small", size=size, dim=32, width=16)
    features = network(torch.randn(4, 3, *size))
    assert features.shape == (4, 32)
    features.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_small_is_as_small_as_its_docstring_says():
    assert count(build_backbone("small", size=(56, 56), dim=128)) == pytest.approx(1.28e6, rel=0.01)


@pytest.mark.parametrize("name", ["mobilefacenet", "small"])
def test_features_do_not_depend_on_the_rest_of_the_batch(name):
    torch.manual_seed(0)
    network = build_backbone(name, size=(56, 56), dim=64).eval()
    x = torch.randn(5, 3, 56, 56)
    with torch.inference_mode():
        torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-4, atol=1e-4)
