"""DeepID's layers, as in the table of the paper."""

import torch

from visavis.backbones import build_backbone


def test_deepid_layers_as_in_the_table():
    """Rows D6 and D7."""
    network = build_backbone("deepid", size=(55, 47), dim=160)
    layers = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert layers == {"conv1": 980, "conv2": 7_240, "conv3": 21_660, "conv4": 19_280, "fc": 345_760}
    features = network(torch.randn(3, 3, 55, 47))
    assert features.min() >= 0
