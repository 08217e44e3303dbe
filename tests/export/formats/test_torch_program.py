"""Programs of torch.export."""

import numpy as np
import pytest
import torch

from visavis.backbones import build_backbone
from visavis.errors import ModelFormatError
from visavis.export.gates.parity import unnamed
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.card import ModelCard
from visavis.models.torch import TorchEmbedder, save_model
from visavis.vision.preprocessing import PreprocessSpec

SIZES = {"deepid": (55, 47), "sphere20": (48, 40)}


def folder_of(tmp_path, name, **spec):
    torch.manual_seed(0)
    size = SIZES.get(name, (32, 32))
    network = build_backbone(name, size=size, dim=16).eval()
    card = ModelCard("m", name, 16, PreprocessSpec(size, **spec))
    save_model(tmp_path / "model", network, card)
    return tmp_path / "model"


def crops(size, count=3):
    return unnamed(np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "mobilefacenet", "iresnet18", "deepid"])
def test_torch_programs_agree_at_any_batch(name, tmp_path):
    path = folder_of(tmp_path, name, flip="sum")
    model = open_model(path)
    size = model.card.preprocess.size
    done = export_model(model, "torch", crops(size))
    assert done.path.name == "model.pt2"
    from visavis.export.formats.torch_program import ProgramEmbedder

    embedder = ProgramEmbedder(done.path, batch_size=4)
    many = crops(size, 5).images
    expected = TorchEmbedder(model.network, model.card.preprocess).embed(many)
    np.testing.assert_allclose(embedder.embed(many), expected, atol=1e-5)
    assert embedder.card.exports["model.pt2"]["parity"]["max_1_minus_cos"] < 1e-5
    done.path.write_bytes(done.path.read_bytes()[:1000])
    with pytest.raises(ModelFormatError, match=r"damaged or no torch\.export program"):
        ProgramEmbedder(done.path)
