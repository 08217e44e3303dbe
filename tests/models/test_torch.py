import errno
import json
import os

import numpy as np
import pytest
import torch

from visavis import files
from visavis.backbones import build_backbone
from visavis.errors import DataError, ModelFormatError
from visavis.models.card import LicenseTerms, ModelCard
from visavis.models.torch import TorchEmbedder, load_model, save_model
from visavis.types import Embedder
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec(size=(32, 32), mean=(127.5, 120.0, 110.0), std=(128.0, 127.0, 126.0))


def card(spec=SPEC, dim=16, **changes):
    return ModelCard("test", "small", dim, spec, backbone_args={"width": 8}, **changes)


def network(seed=0, dim=16):
    torch.manual_seed(seed)
    return build_backbone("small", size=(32, 32), dim=dim, width=8)


def crops(count=5, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_a_saved_model_comes_back_whole(tmp_path):
    saved = network()
    written = save_model(tmp_path / "model", saved, card(license=LicenseTerms(weights="MIT")))
    loaded, read = load_model(tmp_path / "model")
    assert read == written
    assert read.license == LicenseTerms(weights="MIT")
    assert len(read.weights_digest) == 64
    assert not loaded.training
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_full_disk_leaves_the_last_model_whole(tmp_path, monkeypatch):
    save_model(tmp_path, network(0), card())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    real = os.fdopen

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fdopen", lambda *a, **k: Full(real(*a, **k)))
    with pytest.raises(DataError, match=r"No space left on device.*untouched"):
        save_model(tmp_path, network(1), card())
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    load_model(tmp_path)


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    save_model(tmp_path, network(), card())
    weights = tmp_path / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ModelFormatError, match="SHA-256"):
        load_model(tmp_path)
    values = json.loads((tmp_path / "card.json").read_text())
    values["weights_digest"] = ""
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(ModelFormatError, match="damaged or no safetensors"):
        load_model(tmp_path)
    weights.write_bytes(whole)
    values["embedding_dim"] = 24
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(ModelFormatError, match=r"of another shape: fc\.weight \(16, 256\) for \(24, 256\)"):
        load_model(tmp_path)
    values |= {"embedding_dim": 16, "backbone": "smal"}
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(ModelFormatError, match="did you mean 'small'"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(ModelFormatError, match="no weights"):
        load_model(tmp_path)


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_embedder_normalizes_fuses_and_scales_as_the_spec_says(flip, channels):
    spec = PreprocessSpec((32, 32), "arcface", channels, SPEC.mean, SPEC.std, flip)
    net = network().eval()
    embedder = TorchEmbedder(net, spec, batch_size=2)
    batch = crops()
    got = embedder.embed(batch)

    def feature(images):
        ordered = images[..., ::-1] if channels == "BGR" else images
        x = (ordered.astype(np.float64) - SPEC.mean) / SPEC.std
        with torch.inference_mode():
            return net(torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()

    first, second = feature(batch), feature(batch[:, :, ::-1])
    raw = {"none": first, "sum": first + second, "concat": np.hstack([first, second])}[flip]
    np.testing.assert_allclose(got, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=2e-6)
    assert isinstance(embedder, Embedder)
    assert embedder.dim == got.shape[1] == (32 if flip == "concat" else 16)


def test_embedder_takes_nothing_and_refuses_floats():
    embedder = TorchEmbedder(network(), SPEC)
    assert embedder.embed(crops(0)).shape == (0, 16)
    with pytest.raises(DataError, match="uint8"):
        embedder.embed(np.zeros((1, 32, 32, 3), np.float32))


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_features_are_the_embeddings_before_they_are_scaled(flip):
    from visavis.vision.preprocessing import PreprocessSpec

    torch.manual_seed(0)
    embedder = TorchEmbedder(
        build_backbone("small", size=(32, 32), dim=8, width=8), PreprocessSpec((32, 32), flip=flip)
    )
    crops = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    raw = embedder.features(crops)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.ptp(lengths) > 1e-3
    np.testing.assert_allclose(raw / lengths, embedder.embed(crops), atol=1e-6)
