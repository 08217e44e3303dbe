"""The small network of quick tests and the quickstart."""

import pytest
import torch

from visavis.backbones import build_backbone


def count(network, *, without=()):
    skipped = {id(p) for m in network.modules() if isinstance(m, without) for p in m.parameters(recurse=False)}
    return sum(p.numel() for p in network.parameters() if id(p) not in skipped)


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
