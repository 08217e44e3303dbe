"""What an export must agree in before it is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import images, spec_of

from visavis.errors import ModelFormatError
from visavis.export.formats.base import Options
from visavis.export.gates.parity import compare, crops_of, require, require_steady_scores, unnamed
from visavis.export.model import open_model
from visavis.export.onnx.from_torch import make_onnx
from visavis.export.pipeline import export_model
from visavis.metrics.similarity import unit_rows
from visavis.models.torch import TorchEmbedder


def test_a_broken_int8_is_refused_without_pairs_too(small_folder, faces, tmp_path):
    """Ranges learned on black pictures cut what faces need; the old bound, 1 − cos of 0.2, is not what finds it."""
    black = replace(faces, images=np.zeros_like(faces.images[:10]), names=faces.names[:10])
    with pytest.raises(ModelFormatError) as refused:
        export_model(
            open_model(small_folder), "onnx", faces, out=tmp_path / "m.onnx",
            options=Options(precision="int8", calibration=black),
        )  # fmt: skip
    assert "no file was written" in str(refused.value)
    assert not (tmp_path / "m.onnx").exists()
    few = replace(faces, images=faces.images[:2], names=faces.names[:2])
    with pytest.raises(ModelFormatError, match="pairs of 2 crops"):
        export_model(
            open_model(small_folder), "onnx", few, out=tmp_path / "m.onnx", options=Options("int8", calibration=faces)
        )


def test_score_noise_is_the_shift_of_pairs_in_parts_of_their_spread(faces):
    rng = np.random.default_rng(0)
    a = unit_rows(rng.normal(size=(24, 8)))
    b = unit_rows(a + 0.1 * rng.normal(size=(24, 8)))

    class Given:
        def __init__(self, rows):
            self.rows, self.dim = rows, 8

        def embed(self, crops):
            return self.rows

    s, t = (np.array([x[i] @ x[j] for i in range(24) for j in range(i)]) for x in (a, b))
    found = compare(Given(a), Given(b), faces, tolerance=1.0)
    assert found.score_noise == pytest.approx(np.sqrt(((t - s) ** 2).mean()) / s.std())
    require_steady_scores(found, what="it")
    apart = compare(Given(a), Given(a[::-1]), faces, tolerance=1.0)
    with pytest.raises(ModelFormatError, match="--pairs FILE"):
        require_steady_scores(apart, what="it")
    assert compare(Given(a), Given(a), faces, tolerance=1.0).score_noise == 0


def _with_another_mean(model, options):
    spec = spec_of((32, 32), channels="BGR")
    return make_onnx(model.network, model.card.with_changes(preprocess=spec))


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
        require(parity, what="onnx fp32", image=saved)
    from visavis.vision.images import read

    np.testing.assert_array_equal(read(saved), crops.images[parity.worst])


def test_failed_gate_leaves_no_file(folder, monkeypatch):
    path, _, _ = folder(width=8)
    monkeypatch.setattr("visavis.export.formats.onnx.float_onnx", _with_another_mean)
    with pytest.raises(ModelFormatError, match="does not embed as its reference"):
        export_model(open_model(path), "onnx", unnamed(images(2, (32, 32))))
    assert not (path / "model.onnx").exists()
    assert (path / "model.worst.png").exists()
    assert not [p for p in path.iterdir() if p.name.startswith(".visavis")]
