import pytest
import torch
from paths import SHARED

from visavis.backbones import build_backbone
from visavis.cli.import_ import parse_preprocess
from visavis.errors import ModelFormatError
from visavis.models.checkpoints import read_checkpoint
from visavis.models.published import import_weights, recognize

PUBLISHED = SHARED / "weights" / "mobilefacenet_casia_112x96.ckpt"


@pytest.mark.parametrize(
    ("name", "arguments", "size", "source"),
    [
        ("iresnet18", {}, (112, 112), "arcface_torch iResNet"),
        ("iresnet100", {}, (112, 112), "arcface_torch iResNet"),
        ("mbf", {}, (112, 112), "arcface_torch MobileFaceNet"),
        ("mbf_large", {}, (112, 112), "arcface_torch MobileFaceNet"),
        ("mbf", {"scale": 1, "blocks": [2, 3, 2, 1]}, (112, 112), "arcface_torch MobileFaceNet"),
        ("vit_tiny", {}, (112, 112), "arcface_torch ViT"),
        ("sphere20", {"conv_bias": True}, (112, 96), "sphereface_pytorch"),
        ("sphere36", {}, (112, 96), "sphereface_pytorch"),
        ("mobilefacenet", {}, (112, 112), "MobileFaceNet_Pytorch"),
    ],
)
def test_known_sources_are_recognized(name, arguments, size, source):
    with torch.device("meta"):
        state = build_backbone(name, size=size, dim=256, **arguments).state_dict()
    found, facts = recognize(state)
    assert found.name == source
    assert (facts.backbone, facts.dim, dict(facts.args)) == (name, 256, arguments)
    assert facts.grid == (size[0] // 16, size[1] // 16)


def test_sphereface_head_is_left_out_and_said():
    state = build_backbone("sphere20", size=(112, 96), conv_bias=True).state_dict()
    got = import_weights({**state, "fc6.weight": torch.zeros(512, 10)})
    assert got.dropped == ("fc6.weight",)
    assert got.preprocess.channels == "BGR"
    assert got.preprocess.template == "sphereface"


def test_nothing_is_guessed(mobilefacenet):
    with pytest.raises(ModelFormatError, match="match no known source"):
        import_weights({"layer.weight": torch.zeros(3, 3)})
    with pytest.raises(ModelFormatError, match=r"these are weights of mobilefacenet .* not of iresnet50"):
        import_weights(mobilefacenet, backbone="iresnet50")
    with pytest.raises(ModelFormatError, match="did you mean 'iresnet50'"):
        import_weights(mobilefacenet, backbone="iresnet5")
    short = {k: v for k, v in mobilefacenet.items() if k != "blocks.3.conv.2.weight"}
    with pytest.raises(ModelFormatError, match=r"1 missing: blocks\.3\.conv\.2\.weight"):
        import_weights(short)
    with pytest.raises(ModelFormatError, match=r"1 unknown: head\.weight"):
        import_weights({**mobilefacenet, "head.weight": torch.zeros(1)})
    small = build_backbone("small", size=(56, 56), dim=16, width=8).state_dict()
    with pytest.raises(ModelFormatError, match="size, mean, std missing"):
        import_weights(small, backbone="small")
    spec = parse_preprocess("size=56x56,mean=127.5,std=128")
    with pytest.raises(ModelFormatError, match="--dim"):
        import_weights(small, backbone="small", preprocess=spec)
    with pytest.raises(ModelFormatError, match="of another shape"):
        import_weights(small, backbone="small", preprocess=spec, dim=16)
    assert import_weights(small, backbone="small", preprocess=spec, dim=16, args={"width": 8}).source is None


def test_batch_counters_may_be_absent(mobilefacenet):
    state = {k: v for k, v in mobilefacenet.items() if not k.endswith("num_batches_tracked")}
    assert import_weights(state).backbone == "mobilefacenet"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs ../shared")
def test_the_published_mobilefacenet_loads_strictly():
    got = import_weights(read_checkpoint(PUBLISHED))
    assert got.backbone == "mobilefacenet"
    assert (got.dim, got.preprocess.size, got.dropped) == (128, (112, 96), ())
