"""A learned scorer on disk."""

import numpy as np
import pytest

from visavis.errors import ModelFormatError
from visavis.evaluate.joint_bayesian_file import load_scorer, save_scorer
from visavis.metrics.joint_bayesian import JointBayesian, PairScorer

DIM = 4


def _covariance(rng: np.random.Generator, size: float) -> np.ndarray:
    root = rng.standard_normal((DIM, DIM))
    return size * (root @ root.T + 0.3 * np.eye(DIM))


def _draw(people: int, images: np.ndarray, seed: int = 0) -> tuple[JointBayesian, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = JointBayesian(rng.standard_normal(DIM), _covariance(rng, 1.0), _covariance(rng, 0.4))
    labels = np.repeat(np.arange(people), images)
    person = rng.multivariate_normal(np.zeros(DIM), truth.between, people)
    rest = rng.multivariate_normal(np.zeros(DIM), truth.within, len(labels))
    return truth, truth.mean + person[labels] + rest, labels


@pytest.fixture(scope="module")
def drawn() -> tuple[JointBayesian, np.ndarray, np.ndarray]:
    return _draw(300, np.random.default_rng(1).integers(1, 7, 300))


def test_a_scorer_survives_the_disk(tmp_path, drawn: tuple[JointBayesian, np.ndarray, np.ndarray]) -> None:
    _, x, labels = drawn
    scorer = PairScorer.fit(x, labels, dim=3)
    save_scorer(scorer, tmp_path / "scorer.npz")
    back = load_scorer(tmp_path / "scorer.npz")
    np.testing.assert_array_equal(back.score(x[:9], x[9:18]), scorer.score(x[:9], x[9:18]))
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(tmp_path / "other.npz", pca_mean=np.zeros(3))
    for name in ("bad.npz", "other.npz", "none.npz"):
        with pytest.raises(ModelFormatError, match="Joint Bayesian"):
            load_scorer(tmp_path / name)
