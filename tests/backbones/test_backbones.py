import sys

import pytest
import torch
from torch import nn

from visavis.backbones import BACKBONES, build_backbone
from visavis.errors import RecipeError


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class Tiny(nn.Module):
    def __init__(self, *, size, dim, slope=0.1):
        super().__init__()
        self.fc = nn.Linear(3 * size[0] * size[1], dim)

    def forward(self, x):
        return self.fc(x.flatten(1))


def make_tiny(*, size, dim) -> nn.Module:
    return Tiny(size=size, dim=dim)


def launch(**arguments):
    raise AssertionError("a callable that is not declared to build a network was called")


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(RecipeError, match=r"did you mean 'mobilefacenet'.*valid: "):
        build_backbone("mobilfacenet")


def test_unknown_argument_is_named():
    with pytest.raises(RecipeError, match="unknown argument of backbone small 'widht'; did you mean 'width'"):
        build_backbone("small", widht=16)


def test_impossible_size_and_dim_are_refused():
    with pytest.raises(RecipeError, match="crops of 16 to 1024"):
        build_backbone("small", size=(8, 8))
    with pytest.raises(RecipeError, match="dim in"):
        build_backbone("mobilefacenet", dim=0)


@pytest.mark.parametrize("attribute", ["Tiny", "make_tiny"])
def test_user_module_as_backbone(monkeypatch, attribute):
    monkeypatch.setitem(sys.modules, "my_networks", sys.modules[__name__])
    network = build_backbone(f"my_networks:{attribute}", size=(16, 16), dim=7)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 7)
    assert network.dim == 7


def test_user_callable_that_builds_no_network_is_never_called(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_networks", sys.modules[__name__])
    for name in ("my_networks:launch", "os:system", "subprocess:run"):
        with pytest.raises(RecipeError, match=r"must be a torch\.nn\.Module class"):
            build_backbone(name)
    with pytest.raises(RecipeError, match="has no 'nothing'"):
        build_backbone("my_networks:nothing")
    with pytest.raises(RecipeError, match="PYTHONPATH"):
        build_backbone("no_such_module_here:Net")


def test_every_backbone_is_listed_with_a_builder():
    assert {"mobilefacenet", "small"} <= set(BACKBONES)
    assert all(callable(builder) for builder in BACKBONES.values())


def _unresolvable(*, size, dim) -> "NoSuchName":  # noqa: F821
    raise AssertionError("called")


def _plain(*, size, dim) -> int:
    raise AssertionError("called")


@pytest.mark.parametrize("attribute", ["_unresolvable", "_plain", "pytest"])
def test_what_does_not_say_that_it_builds_a_network_is_refused_uncalled(monkeypatch, attribute):
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    with pytest.raises(RecipeError, match=r"annotated '-> nn\.Module'"):
        build_backbone(f"mine:{attribute}", size=(8, 8), dim=4)


@pytest.mark.parametrize(
    "args", [{"scale": 0}, {"blocks": (1, 4, 6)}, {"blocks": (1, 0, 6, 2)}, {"blocks": (1, 4, 6, 2, 2)}]
)
def test_mbf_refuses_repeats_that_make_no_network(args):
    with pytest.raises(RecipeError, match="four positive repeats"):
        build_backbone("mbf", size=(112, 112), dim=8, **args)
