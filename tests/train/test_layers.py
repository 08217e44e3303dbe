"""The layers of a network, in their order."""

from visavis.backbones import build_backbone
from visavis.train.layers import layers


def test_layers_hold_every_parameter_once_and_blocks_are_layers_of_their_own():
    for name, size, least in (("vit_tiny", (36, 36), 14), ("iresnet18", (32, 32), 10), ("mobilefacenet", (32, 32), 18)):
        network = build_backbone(name, size=size, dim=8)
        found = [parameter for layer in layers(network) for parameter in layer]
        assert sorted(found) == sorted(n for n, _ in network.named_parameters())
        assert len(layers(network)) >= least
    vit = build_backbone("vit_tiny", size=(36, 36), dim=8)
    assert {"pos_embed", "mask_token", "patch_embed.proj.weight"} <= set(layers(vit)[0])
