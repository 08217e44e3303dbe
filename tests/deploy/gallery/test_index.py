"""Templates fused from samples, and searched."""

import numpy as np
import pytest

from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery

DIM = 32


MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", MODEL, create=True) as made:
        yield made


def test_opposite_samples_fall_back_to_the_best():
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    np.testing.assert_array_equal(fuse(rows, np.array([1.0, 1.0])), rows[0])


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_every_precision_gives_the_exact_similarities_of_a_plain_product(tmp_path, precision):
    people, probes = unit(3, 900, 64), unit(4, 7, 64)
    with Gallery(tmp_path / "g.db", ModelIdentity("m", 64, "b"), create=True, precision=precision) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(900)], people)
        for several in (probes[:1], probes):
            truth = several @ people.T
            for row, found in zip(truth, gallery.search(several, top=3), strict=True):
                best = np.argsort(-row)[:3]
                assert [c.name for c in found] == [f"s{i}" for i in best]
                np.testing.assert_allclose([c.similarity for c in found], row[best], atol=1e-6)
