"""Every family of backbones gives the same embeddings through its ONNX file."""

import json
import os
from dataclasses import replace

import foreign_graphs
import numpy as np
import onnx
import pytest
import torch
from networks import images, spec_of

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.export import pipeline
from visavis.export.formats.base import Options
from visavis.export.gates.parity import crops_of, unnamed
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.card import read_card
from visavis.models.import_onnx import import_onnx
from visavis.models.load import load_embedder
from visavis.models.onnx import OnnxEmbedder
from visavis.models.torch import TorchEmbedder, save_model


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_inputs_and_flips(flip, pixels, folder):
    path, network, spec = folder(flip=flip, channels="BGR", width=8)
    model = open_model(path)
    done = export_model(model, "onnx", unnamed(images(5, (32, 32))), options=Options(pixels=pixels))
    session = OnnxEmbedder(done.path).session
    assert session.get_inputs()[0].shape == (["batch", 32, 32, 3] if pixels == "uint8" else ["batch", 3, 32, 32])
    assert session.get_outputs()[0].shape == ["batch", 32 if flip == "concat" else 16]
    crops = images(3, (32, 32))
    layout = crops if pixels == "uint8" else crops.transpose(0, 3, 1, 2).astype(np.float32)
    raw = session.run(["embedding"], {"image": layout})[0]
    expected = TorchEmbedder(network, spec).embed(crops)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected, atol=1e-5)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1), "the graph gives raw features"


def test_flip_can_be_changed_only_where_the_graph_fuses_nothing(folder):
    path, network, _spec = folder(width=8)
    crops = images(3, (32, 32))
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
    export_model(open_model(path), "onnx", unnamed(images(2, (32, 32))))
    torch.manual_seed(5)
    other = build_backbone("small", size=(32, 32), dim=16, width=8)
    save_model(path, other, read_card(path))
    embedder = load_embedder(path)
    assert type(embedder).__name__ == "TorchEmbedder"
    crops = images(2, (32, 32))
    np.testing.assert_allclose(embedder.embed(crops), TorchEmbedder(other, spec).embed(crops), atol=1e-6)
    with pytest.raises(ModelFormatError, match=r"no model\.onnx made of these weights"):
        load_embedder(path, runtime="onnxruntime")


def test_half_precision_halves_the_file(folder):
    path, _, _ = folder(width=16)
    crops = unnamed(images(3, (32, 32)))
    full = export_model(open_model(path), "onnx", crops).record["bytes"]
    half = export_model(open_model(path), "onnx", crops, options=Options(precision="fp16"))
    assert half.path.name == "model.fp16.onnx"
    assert half.record["bytes"] < 0.6 * full
    assert 0 < half.parity.maximum < 1e-3


def test_openvino_agrees_in_its_own_runtime(folder):
    pytest.importorskip("openvino")
    path, network, spec = folder(flip="sum", channels="BGR", width=8)
    crops = images(4, (32, 32))
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
    crops = images(5, (32, 32))
    export_model(open_model(path), {"onnxruntime": "onnx"}.get(runtime, runtime), unnamed(crops))
    embedder = load_embedder(path, runtime=runtime, batch_size=2, flip=flip)
    parts = [embedder.features(part) for part in (crops[:1], crops[1:2], crops[2:4], crops[4:5], crops[:0])]
    wanted = TorchEmbedder(network, replace(spec, flip=flip)).features(crops)
    np.testing.assert_allclose(np.concatenate(parts), wanted, atol=1e-4)
    np.testing.assert_allclose(embedder.measure(crops)[0], wanted, atol=1e-4)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_an_export_is_readable_by_whom_the_umask_says(folder, monkeypatch):
    """MindSpore writes its file with mode 0400; whatever a library does, the export has the mode of our own files."""
    path, _, _ = folder(width=8)
    kind = pipeline.load_format("onnx")

    def write_read_only(model, file, *rest):
        made = kind.write(model, file, *rest)
        file.chmod(0o400)
        return made

    stamped = replace(kind, write=write_read_only, stamp=lambda *_: None)
    monkeypatch.setattr(pipeline, "load_format", lambda name: stamped)
    done = export_model(open_model(path), "onnx", unnamed(images(3, (32, 32))))
    assert done.path.stat().st_mode == (path / "card.json").stat().st_mode


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_whose_card_lies_beside_it_is_exported(tmp_path, precision):
    """As `visavis import` and the packaged models keep theirs: the file written aside carries the card itself."""
    foreign_graphs.tiny(tmp_path / "graph.onnx")
    import_onnx(
        tmp_path / "graph.onnx", tmp_path / "model", preprocess={"mean": (0.0,) * 3, "std": (255.0,) * 3}, given={}
    )
    model = open_model(tmp_path / "model")
    crops = crops_of(None, model.card.preprocess, count=4)
    made = export_model(model, "onnx", crops, out=tmp_path / "out.onnx", options=Options(precision=precision))
    assert OnnxEmbedder(made.path).card.preprocess == model.card.preprocess
