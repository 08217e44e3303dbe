"""IResNet's last norm."""

import torch

from visavis.backbones import build_backbone


def on_paper(name, **arguments):
    with torch.device("meta"):
        return build_backbone(name, **arguments)


def test_last_norm_of_iresnet_has_a_fixed_scale():
    """Row A2."""
    network = on_paper("iresnet18")
    assert not network.features.weight.requires_grad
    assert network.features.bias.requires_grad
