import os
import pickle

import pytest
import torch
from paths import SHARED

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.cli.import_ import parse_preprocess
from visavis.errors import ModelFormatError
from visavis.models.checkpoints import read_checkpoint
from visavis.models.published import import_weights, recognize

PUBLISHED = SHARED / "weights" / "mobilefacenet_casia_112x96.ckpt"


@pytest.fixture(scope="module")
def mobilefacenet():
    torch.manual_seed(0)
    return build_backbone("mobilefacenet", size=(112, 96), dim=128).state_dict()


@pytest.fixture(params=["zip", "legacy", "safetensors"])
def checkpoint(request, mobilefacenet, tmp_path):
    path = tmp_path / ("net.safetensors" if request.param == "safetensors" else "net.ckpt")
    if request.param == "safetensors":
        from safetensors.torch import save_file

        save_file(mobilefacenet, path)
    else:
        nested = {"epoch": 3, "net_state_dict": {"module." + k: v for k, v in mobilefacenet.items()}}
        torch.save(nested, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def test_checkpoints_of_every_format_are_read(checkpoint, mobilefacenet):
    state = read_checkpoint(checkpoint)
    assert list(state) == list(mobilefacenet) or set(state) == set(mobilefacenet)
    assert all(torch.equal(state[key], mobilefacenet[key]) for key in mobilefacenet)


def test_import_from_the_command_line(checkpoint, tmp_path, capsys):
    out = tmp_path / "model"
    words = ["import", str(checkpoint), "--out", str(out), "--license", "MIT"]
    assert main([*words, "--preprocess", "template=sphereface-left", "--preprocess", "flip=sum"]) == 0
    said = capsys.readouterr().out
    assert "MobileFaceNet_Pytorch" in said
    assert "999,552 parameters" in said
    from visavis.models.torch import load_model

    _, card = load_model(out)
    assert (card.backbone, card.embedding_dim, card.license.weights) == ("mobilefacenet", 128, "MIT")
    spec = card.preprocess
    assert (spec.size, spec.template, spec.channels, spec.flip) == ((112, 96), "sphereface-left", "RGB", "sum")
    assert (spec.mean, spec.std) == ((127.5,) * 3, (128.0,) * 3)


class Bomb:
    def __reduce__(self):
        return (os.system, (f"touch {os.environ['BOMB']}",))


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_pickle_that_would_execute_code_is_refused_and_nothing_ran(form, tmp_path, monkeypatch, capsys):
    proof = tmp_path / "it-ran"
    monkeypatch.setenv("BOMB", str(proof))
    path = tmp_path / "evil.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    else:
        torch.save({"state_dict": Bomb()}, path, _use_new_zipfile_serialization=form == "zip")
    assert main(["import", str(path), "--out", str(tmp_path / "model")]) == 2
    said = capsys.readouterr().err
    assert "refused, because loading it would execute code" in said
    assert "it calls posix.system" in said
    assert not proof.exists()
    assert not (tmp_path / "model").exists()


def test_the_bomb_would_have_gone_off(tmp_path, monkeypatch):
    """Proves the test above: the same bytes do run under plain pickle."""
    proof = tmp_path / "it-ran"
    monkeypatch.setenv("BOMB", str(proof))
    pickle.loads(pickle.dumps(Bomb()))
    assert proof.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_checkpoints_are_named(damage, suffix, tmp_path, mobilefacenet):
    path = tmp_path / ("net" + suffix)
    if suffix == ".pth":
        torch.save(mobilefacenet, path)
    else:
        from safetensors.torch import save_file

        save_file(mobilefacenet, path)
    data = {"truncated": path.read_bytes()[:40_000], "empty": b"", "text": b"<html>404 not found</html>"}[damage]
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"net\.\w+: damaged"):
        read_checkpoint(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelFormatError, match="got no file"):
        read_checkpoint(tmp_path / "no.pth")
    with pytest.raises(ModelFormatError, match="got a folder"):
        read_checkpoint(tmp_path)


def test_what_holds_no_state_dict_is_listed(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"epoch": 1, "weights": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ModelFormatError, match="no state dict among 2 entries: epoch, weights; name one with --key"):
        read_checkpoint(path)
    assert set(read_checkpoint(path, key="weights")) == {"a"}
    with pytest.raises(ModelFormatError, match="holds no entry 'weight'"):
        read_checkpoint(path, key="weight")
    torch.save({"a": torch.tensor([float("nan")])}, path)
    with pytest.raises(ModelFormatError, match="NaN"):
        read_checkpoint(path)


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


def test_preprocess_is_parsed_and_refused():
    assert parse_preprocess("size=112x96,mean=1/2/3.5,std=128,flip=sum") == {
        "size": (112, 96),
        "mean": (1.0, 2.0, 3.5),
        "std": (128.0, 128.0, 128.0),
        "flip": "sum",
    }
    assert parse_preprocess("template=1/2/30/4/5/6/7/8/9/10")["template"] == ((1, 2), (30, 4), (5, 6), (7, 8), (9, 10))
    assert parse_preprocess("") == {}
    refused = {"sice=1": "did you mean 'size'", "size=112": "HEIGHTxWIDTH", "mean=x": "mean=N", "std": "needs a value"}
    refused["template=1/2/3"] = "five points"
    refused["flip=sum,flip=none"] = "given twice"
    for text, problem in refused.items():
        with pytest.raises(ModelFormatError, match=problem):
            parse_preprocess(text)


def test_wrong_backbone_from_the_command_line_is_one_line(tmp_path, capsys, mobilefacenet):
    path = tmp_path / "net.pth"
    torch.save(mobilefacenet, path)
    assert main(["import", str(path), "--backbone", "iresnet50", "--out", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "say --backbone mobilefacenet" in said


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs ../shared")
def test_the_published_mobilefacenet_loads_strictly():
    got = import_weights(read_checkpoint(PUBLISHED))
    assert got.backbone == "mobilefacenet"
    assert (got.dim, got.preprocess.size, got.dropped) == (128, (112, 96), ())
