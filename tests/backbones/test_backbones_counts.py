"""Parameter counts and layer names of the published networks (reference-systems rows D6, S4, M3, A2)."""

import pytest
import torch

from visavis.backbones import BACKBONES, build_backbone

COUNTS = {
    ("iresnet18", (112, 112), 512): 24_025_600,
    ("iresnet34", (112, 112), 512): 34_139_328,
    ("iresnet50", (112, 112), 512): 43_590_848,
    ("iresnet100", (112, 112), 512): 65_156_160,
    ("iresnet200", (112, 112), 512): 118_833_920,
    ("sphere20", (112, 96), 512): 22_665_984,
    ("massface", (112, 112), 1024): 1_731_072,
    ("massface", (112, 112), 512): 1_467_904,
    ("massface", (112, 112), 128): 1_270_528,
    ("deepid", (55, 47), 160): 394_920,
}


OWN_SIZE = {"deepid": ((55, 47), 160), "sphere20": ((112, 96), 512), "sphere36": ((112, 96), 512)}


def on_paper(name, **arguments):
    with torch.device("meta"):
        return build_backbone(name, **arguments)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "size", "dim"), COUNTS)
def test_parameters_as_published(name, size, dim):
    """Rows D6, S4, M3 and A2."""
    assert parameters(on_paper(name, size=size, dim=dim)) == COUNTS[name, size, dim]


def test_switches_change_the_count_as_published():
    assert parameters(on_paper("sphere20", size=(112, 96), conv_bias=True)) == 22_670_656
    assert parameters(on_paper("massface", dim=1024, fc_bn=True)) == 1_731_072 + 2_048


def test_names_of_the_published_state_dicts():
    arcface = set(on_paper("iresnet18").state_dict())
    assert {"layer1.0.downsample.0.weight", "layer4.1.bn3.running_var", "prelu.weight", "features.bias"} <= arcface
    clcarwin = set(on_paper("sphere20", size=(112, 96), conv_bias=True).state_dict())
    assert {"conv1_1.bias", "relu3_9.weight", "conv4_3.weight", "fc5.bias"} <= clcarwin
    assert len(clcarwin) == 20 * 2 + 20 + 2
    mbf = set(on_paper("mbf").state_dict())
    assert {"layers.0.layers.0.weight", "layers.3.layers.3.layers.2.layers.1.bias"} <= mbf
    assert {"conv_sep.layers.2.weight", "features.layers.0.layers.0.weight", "features.layers.3.running_mean"} <= mbf
    vit = set(on_paper("vit_tiny").state_dict())
    assert {"pos_embed", "mask_token", "patch_embed.proj.bias", "blocks.11.attn.qkv.weight"} <= vit
    assert {"blocks.0.mlp.fc2.bias", "norm.weight", "feature.3.num_batches_tracked"} <= vit
    assert "blocks.0.attn.qkv.bias" not in vit


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_maps_crops_to_features_of_its_dim(name):
    size, dim = OWN_SIZE.get(name, ((32, 32), 24))
    if name in ("iresnet100", "iresnet200", "vit_small", "vit_base", "vit_large", "sphere36", "sphere64"):
        network = on_paper(name, size=size, dim=dim).eval()
        assert network(torch.empty(2, 3, *size, device="meta")).shape == (2, dim)
        return
    network = build_backbone(name, size=size, dim=dim)
    features = network(torch.randn(2, 3, *size))
    assert features.shape == (2, dim)
    assert network.dim == dim
    features.square().sum().backward()
    dead = [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None and key != "mask_token"]
    assert not dead


@pytest.mark.parametrize("name", ["iresnet18", "vit_tiny"])
def test_checkpointing_gives_the_same_gradients(name):
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        extra = {"drop_path": 0.5} if name.startswith("vit") else {}
        network = build_backbone(name, size=(32, 32), dim=8, checkpointing=checkpointing, **extra)
        torch.manual_seed(1)
        network(torch.randn(3, 3, 32, 32)).square().sum().backward()
        grads.append([p.grad for p in network.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
