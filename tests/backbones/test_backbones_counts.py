"""Parameter counts and layer names of the published networks (reference-systems rows D6, S4, M3, A2)."""

import pytest
import torch
from torch import nn

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


def test_massface_counts_its_running_moments_too():
    """Row M3: 1,753,600 with BatchNorm statistics."""
    network = on_paper("massface", dim=1024)
    moments = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert parameters(network) + moments == 1_753_600


def test_deepid_layers_as_in_the_table():
    """Rows D6 and D7."""
    network = build_backbone("deepid", size=(55, 47), dim=160)
    layers = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert layers == {"conv1": 980, "conv2": 7_240, "conv3": 21_660, "conv4": 19_280, "fc": 345_760}
    features = network(torch.randn(3, 3, 55, 47))
    assert features.min() >= 0


def test_spherenets_have_20_36_and_64_convolutions():
    for depth in (20, 36, 64):
        network = on_paper(f"sphere{depth}", size=(112, 96))
        assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == depth


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


def test_last_norm_of_iresnet_has_a_fixed_scale():
    """Row A2."""
    network = on_paper("iresnet18")
    assert not network.features.weight.requires_grad
    assert network.features.bias.requires_grad


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


def test_vit_masks_tokens_only_while_training():
    torch.manual_seed(0)
    network = build_backbone("vit_tiny", size=(36, 36), dim=8, mask_ratio=0.5, drop_path=0.0)
    seen = []
    network.blocks[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))
    (network(torch.randn(3, 3, 36, 36)) * torch.randn(3, 8)).sum().backward()
    network.eval()(torch.randn(2, 3, 36, 36))
    assert seen == [8, 16]
    assert network.mask_token.grad.abs().sum() > 0


def test_stochastic_depth_keeps_the_mean():
    from visavis.backbones.vit import TransformerBlock

    torch.manual_seed(0)
    block = TransformerBlock(16, 2, 4, 0.25)
    dropped = block._drop(torch.ones(20_000, 1, 1))
    assert sorted(dropped.unique().tolist()) == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_vit_attends_alike_in_training_and_evaluation():
    from visavis.backbones.vit import Attention

    torch.manual_seed(0)
    attention = Attention(16, 2, 9)
    x = torch.randn(3, 9, 16)
    torch.testing.assert_close(attention.train()(x), attention.eval()(x))
