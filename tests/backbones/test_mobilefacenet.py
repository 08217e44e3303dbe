from torch import nn

from visavis.backbones import build_backbone


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


def test_mobilefacenet_bears_the_names_of_the_published_weights():
    keys = set(build_backbone("mobilefacenet", size=(112, 96), dim=128).state_dict())
    assert {"conv1.conv.weight", "dw_conv1.prelu.weight", "blocks.14.conv.7.running_var"} <= keys
    assert {"conv2.bn.weight", "linear7.conv.weight", "linear1.bn.num_batches_tracked"} <= keys
    assert len(keys) == 15 * 20 + 3 * 7 + 2 * 6
