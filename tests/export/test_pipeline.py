"""Every family of backbones gives the same embeddings through its ONNX file."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.export.formats.base import Options
from visavis.export.gates.parity import compare, crops_of, require, unnamed
from visavis.export.model import open_model
from visavis.export.onnx.from_torch import make_onnx
from visavis.export.pipeline import export_model
from visavis.models.card import ModelCard, read_card
from visavis.models.load import load_embedder
from visavis.models.onnx import OnnxEmbedder
from visavis.models.torch import TorchEmbedder, save_model
from visavis.vision.preprocessing import PreprocessSpec

OWN_SIZE = {"deepid": (55, 47), "sphere20": (48, 40)}
DEEP = [
    "mbf_large",
    "iresnet34",
    "iresnet50",
    "iresnet100",
    "iresnet200",
    "vit_small",
    "vit_base",
    "sphere36",
    "sphere64",
]
FAMILIES = ["small", "mobilefacenet", "massface", "mbf", "iresnet18", "vit_tiny", "sphere20", "deepid"]


def trained(name, size, dim, **args):
    """A network whose norms and slopes are far from their start, so that folding them wrongly shows."""
    torch.manual_seed(0)
    network = build_backbone(name, size=size, dim=dim, **args).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.6, 1.5)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 1.6)
        elif isinstance(module, nn.Conv2d) and name.startswith("iresnet"):
            nn.init.kaiming_normal_(module.weight)
    return network


def spec_of(size, flip="none", channels="RGB"):
    return PreprocessSpec(size, "arcface", channels, (127.5, 120.0, 110.0), (128.0, 127.0, 126.0), flip)


@pytest.fixture
def folder(tmp_path):
    def make(name="small", size=(32, 32), dim=16, flip="none", channels="RGB", **args):
        network = trained(name, size, dim, **args)
        spec = spec_of(size, flip, channels)
        save_model(tmp_path / "model", network, ModelCard("m", name, dim, spec, backbone_args=args))
        return tmp_path / "model", network, spec

    return make


def pictures(count, size):
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_at_any_batch(name, tmp_path):
    size = OWN_SIZE.get(name, (32, 32))
    network = trained(name, size, 24)
    spec = spec_of(size, "sum", "BGR")
    model = make_onnx(network, ModelCard("m", name, 24, spec))
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    embedder = OnnxEmbedder(path, batch_size=3)
    crops = pictures(4, size)  # a batch of three, then one of one
    parity = compare(TorchEmbedder(network, spec), embedder, unnamed(crops), tolerance=1e-5)
    assert parity.holds, parity.maximum
    assert (embedder.dim, embedder.spec) == (24, spec)


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_inputs_and_flips(flip, pixels, folder):
    path, network, spec = folder(flip=flip, channels="BGR", width=8)
    model = open_model(path)
    done = export_model(model, "onnx", unnamed(pictures(5, (32, 32))), options=Options(pixels=pixels))
    session = OnnxEmbedder(done.path).session
    assert session.get_inputs()[0].shape == (["batch", 32, 32, 3] if pixels == "uint8" else ["batch", 3, 32, 32])
    assert session.get_outputs()[0].shape == ["batch", 32 if flip == "concat" else 16]
    crops = pictures(3, (32, 32))
    layout = crops if pixels == "uint8" else crops.transpose(0, 3, 1, 2).astype(np.float32)
    raw = session.run(["embedding"], {"image": layout})[0]
    expected = TorchEmbedder(network, spec).embed(crops)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected, atol=1e-5)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1), "the graph gives raw features"


def test_flip_can_be_changed_only_where_the_graph_fuses_nothing(folder):
    path, network, _spec = folder(width=8)
    crops = pictures(3, (32, 32))
    export_model(open_model(path), "onnx", unnamed(crops))
    for flip in ("sum", "concat"):
        expected = TorchEmbedder(network, spec_of((32, 32), flip)).embed(crops)
        embedder = OnnxEmbedder(path / "model.onnx", flip=flip)
        np.testing.assert_allclose(embedder.embed(crops), expected, atol=1e-5)
        assert embedder.dim == expected.shape[1]
    export_model(open_model(path, flip="sum"), "onnx", unnamed(crops), out=path / "fused.onnx")
    with pytest.raises(ModelFormatError, match="fuses the mirrored picture by 'sum'"):
        OnnxEmbedder(path / "fused.onnx", flip="none")


def test_export_from_the_command_line_and_the_card(folder, capsys):
    path, _, _ = folder(width=8)
    assert main(["export", str(path), "--crops", "4"]) == 0
    said = capsys.readouterr().out
    assert "parity in ONNX Runtime" in said
    record = read_card(path).exports["model.onnx"]
    assert record["parity"]["max_1_minus_cos"] < 1e-5
    assert record["parity"]["crops"] == 4
    assert record["parity"]["crops_from"].startswith("generated faces")
    stored = {p.key: p.value for p in onnx.load(path / "model.onnx").metadata_props}
    inside = json.loads(stored["visavis.card"])
    assert inside["exports"]["model.onnx"]["parity"] == record["parity"]
    assert stored["visavis.input"] == "uint8 pixels"
    assert sorted(p.name for p in path.iterdir()) == ["card.json", "model.onnx", "weights.safetensors"]
    assert type(load_embedder(path)).__name__ == "OnnxEmbedder"
    assert type(load_embedder(path, runtime="torch")).__name__ == "TorchEmbedder"


def test_a_stale_export_does_not_answer_for_new_weights(folder, tmp_path):
    path, _, spec = folder(width=8)
    export_model(open_model(path), "onnx", unnamed(pictures(2, (32, 32))))
    torch.manual_seed(5)
    other = build_backbone("small", size=(32, 32), dim=16, width=8)
    save_model(path, other, read_card(path))
    embedder = load_embedder(path)
    assert type(embedder).__name__ == "TorchEmbedder"
    crops = pictures(2, (32, 32))
    np.testing.assert_allclose(embedder.embed(crops), TorchEmbedder(other, spec).embed(crops), atol=1e-6)
    with pytest.raises(ModelFormatError, match=r"no model\.onnx made of these weights"):
        load_embedder(path, runtime="onnxruntime")


def test_a_wrong_export_fails_names_and_saves_the_worst_picture(folder, tmp_path):
    path, network, spec = folder(width=8)
    model = open_model(path)
    with torch.no_grad():
        network.fc.weight[3] += 0.5
    wrong = TorchEmbedder(network, spec)
    crops = crops_of(None, spec, count=3)
    parity = compare(wrong, model.reference, crops, tolerance=1e-5)
    saved = tmp_path / "worst.png"
    with pytest.raises(ModelFormatError, match="the worst is generated face, seed 0"):
        require(parity, what="onnx fp32", picture=saved)
    from visavis.vision.images import read

    np.testing.assert_array_equal(read(saved), crops.pictures[parity.worst])


def test_failed_gate_leaves_no_file(folder, monkeypatch):
    path, _, _ = folder(width=8)
    monkeypatch.setattr("visavis.export.formats.onnx.float_onnx", _with_another_mean)
    with pytest.raises(ModelFormatError, match="does not embed as its reference"):
        export_model(open_model(path), "onnx", unnamed(pictures(2, (32, 32))))
    assert not (path / "model.onnx").exists()
    assert (path / "model.worst.png").exists()
    assert not [p for p in path.iterdir() if p.name.startswith(".visavis")]


def _with_another_mean(model, options):
    spec = spec_of((32, 32), channels="BGR")
    return make_onnx(model.network, model.card.with_changes(preprocess=spec))


def test_half_precision_halves_the_file(folder):
    path, _, _ = folder(width=16)
    crops = unnamed(pictures(3, (32, 32)))
    full = export_model(open_model(path), "onnx", crops).record["bytes"]
    half = export_model(open_model(path), "onnx", crops, options=Options(precision="fp16"))
    assert half.path.name == "model.fp16.onnx"
    assert half.record["bytes"] < 0.6 * full
    assert 0 < half.parity.maximum < 1e-3


def test_openvino_agrees_in_its_own_runtime(folder):
    pytest.importorskip("openvino")
    path, network, spec = folder(flip="sum", channels="BGR", width=8)
    crops = pictures(4, (32, 32))
    done = export_model(open_model(path), "openvino", unnamed(crops))
    assert done.parity.runtime.startswith("OpenVINO")
    embedder = load_embedder(path, runtime="openvino")
    assert type(embedder).__name__ == "OpenVinoEmbedder"
    np.testing.assert_allclose(embedder.embed(crops), TorchEmbedder(network, spec).embed(crops), atol=1e-5)
    assert embedder.card.exports["model.xml"]["parity"]["max_1_minus_cos"] < 1e-5


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("flip", ["none", "concat"])
def test_features_stay_what_they_are_when_the_next_pictures_come(folder, runtime, flip):
    pytest.importorskip(runtime)
    path, network, spec = folder(width=8)
    crops = pictures(5, (32, 32))
    export_model(open_model(path), {"onnxruntime": "onnx"}.get(runtime, runtime), unnamed(crops))
    embedder = load_embedder(path, runtime=runtime, batch_size=2, flip=flip)
    parts = [embedder.features(part) for part in (crops[:1], crops[1:2], crops[2:4], crops[4:5], crops[:0])]
    wanted = TorchEmbedder(network, replace(spec, flip=flip)).features(crops)
    np.testing.assert_allclose(np.concatenate(parts), wanted, atol=1e-4)
    np.testing.assert_allclose(embedder.measure(crops)[0], wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "mobilefacenet", "iresnet18", "vit_tiny", "deepid"])
def test_the_dynamo_exporter_agrees_too(name, tmp_path):
    size = OWN_SIZE.get(name, (32, 32))
    network, spec = trained(name, size, 24), spec_of(size, "sum")
    path = tmp_path / "m.onnx"
    onnx.save(make_onnx(network, ModelCard("m", name, 24, spec), exporter="dynamo"), path)
    parity = compare(
        TorchEmbedder(network, spec), OnnxEmbedder(path, batch_size=3), unnamed(pictures(4, size)), tolerance=1e-5
    )
    assert parity.holds, parity.maximum


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_backbones_agree(name, tmp_path):
    size = (48, 40)
    network, spec = trained(name, size, 32), spec_of(size)
    path = tmp_path / "m.onnx"
    onnx.save(make_onnx(network, ModelCard("m", name, 32, spec)), path)
    parity = compare(TorchEmbedder(network, spec), OnnxEmbedder(path), unnamed(pictures(3, size)), tolerance=1e-5)
    assert parity.holds, parity.maximum
