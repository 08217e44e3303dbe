"""ONNX files as models: foreign graphs, fixed batches."""

import numpy as np
import pytest
from foreign_graphs import card_of, crops, tiny, unit

from visavis.models.onnx import OnnxEmbedder
from visavis.types import Embedder


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_a_foreign_graph_gets_its_pictures_normalized(tmp_path, channels):
    spec = {"channels": channels, "mean": (127.5, 120.0, 110.0), "std": (128.0, 127.0, 126.0)}
    weight = tiny(tmp_path / "t.onnx", card=card_of(**spec))
    embedder = OnnxEmbedder(tmp_path / "t.onnx", batch_size=2)
    assert isinstance(embedder, Embedder)
    ordered = crops()[..., ::-1] if channels == "BGR" else crops()
    x = (ordered.astype(np.float64) - spec["mean"]) / spec["std"]
    np.testing.assert_allclose(embedder.embed(crops()), unit(x.mean((1, 2)) @ weight), atol=1e-5)
    assert embedder.embed(crops(0)).shape == (0, 4)


def test_a_fixed_batch_is_filled_up(tmp_path):
    tiny(tmp_path / "any.onnx", card=card_of())
    tiny(tmp_path / "two.onnx", card=card_of(), batch=2)
    expected = OnnxEmbedder(tmp_path / "any.onnx").embed(crops(5))
    np.testing.assert_allclose(OnnxEmbedder(tmp_path / "two.onnx").embed(crops(5)), expected, atol=1e-6)
