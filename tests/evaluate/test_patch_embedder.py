"""One embedder of several patches' networks, side by side."""

import numpy as np

from visavis.data.patches import DEEPID_SIZE, deepid_patches
from visavis.evaluate.patch_embedder import PatchEmbedder


def _ramp(size: int = 112) -> np.ndarray:
    """Red rises with x, green with y."""
    crop = np.zeros((size, size, 3), np.uint8)
    crop[..., 0], crop[..., 1] = np.arange(size) * 2, (np.arange(size) * 2)[:, None]
    return crop


class _Mean:
    dim = 3

    def embed(self, crops: np.ndarray) -> np.ndarray:
        rows = crops.reshape(len(crops), -1, 3).mean(1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_networks_stand_side_by_side() -> None:
    parts = [(patch, _Mean(), DEEPID_SIZE) for patch in deepid_patches()[:4]]
    crops = np.stack([_ramp(), _ramp()[::-1]])
    rows = PatchEmbedder(parts).embed(crops)
    assert rows.shape == (2, PatchEmbedder(parts).dim) == (2, 12)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[0, 3:6] * 2, _Mean().embed(parts[1][0].cut(crops))[0], atol=1e-6)
