"""Joint Bayesian against plain Gaussian likelihoods of whole people, built as full covariance matrices."""

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.metrics.joint_bayesian import JointBayesian, PairScorer, Pca

DIM = 4


def _covariance(rng: np.random.Generator, size: float) -> np.ndarray:
    root = rng.standard_normal((DIM, DIM))
    return size * (root @ root.T + 0.3 * np.eye(DIM))


def _log_normal(x: np.ndarray, covariance: np.ndarray) -> float:
    return -0.5 * float(x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(2 * np.pi * covariance)[1])


def _whole_person(model: JointBayesian, images: int) -> np.ndarray:
    """Covariance (mD, mD) of one person's pictures on end: S_μ everywhere, S_μ + S_ε on the diagonal."""
    ones = np.ones((images, images))
    return np.kron(ones, model.between) + np.kron(np.eye(images), model.within)


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


def test_the_score_is_the_log_likelihood_ratio(drawn: tuple[JointBayesian, np.ndarray, np.ndarray]) -> None:
    model, x, _ = drawn
    first, second = x[:20], x[20:40]
    alone = model.between + model.within
    expected = [
        _log_normal(np.concatenate([a, b]), _whole_person(model, 2)) - _log_normal(a, alone) - _log_normal(b, alone)
        for a, b in zip(first - model.mean, second - model.mean, strict=True)
    ]
    np.testing.assert_allclose(model.score(first, second), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.score(second, first), model.score(first, second), atol=1e-12)


def test_the_likelihood_is_that_of_whole_people(drawn: tuple[JointBayesian, np.ndarray, np.ndarray]) -> None:
    model, x, labels = drawn
    few = labels < 25
    expected = sum(
        _log_normal((x[labels == k] - model.mean).ravel(), _whole_person(model, int((labels == k).sum())))
        for k in range(25)
    )
    assert model.log_likelihood(x[few], labels[few]) == pytest.approx(expected, rel=1e-10)


def test_one_step_of_em_is_the_posterior_of_whole_people(drawn: tuple[JointBayesian, np.ndarray, np.ndarray]) -> None:
    """E-step by conditioning the joint Gaussian of (μ, pictures); M-step as the mean of second moments."""
    from visavis.metrics.joint_bayesian import _step

    model, x, labels = drawn
    x = x - model.mean
    between, within = np.zeros((DIM, DIM)), np.zeros((DIM, DIM))
    for k in np.unique(labels):
        own = x[labels == k]
        cross = np.tile(model.between, (1, len(own)))  # cov(μ, pictures)
        gain = cross @ np.linalg.inv(_whole_person(model, len(own)))
        mean, left = gain @ own.ravel(), model.between - gain @ cross.T
        between += np.outer(mean, mean) + left
        within += (own - mean).T @ (own - mean) + len(own) * left
    counts = np.bincount(labels)
    sums = np.stack([x[labels == k].sum(0) for k in range(len(counts))])
    found = _step(x, sums, labels, counts, model.between, model.within, spread=True)
    np.testing.assert_allclose(found[0], between / len(counts), atol=1e-10)
    np.testing.assert_allclose(found[1], within / len(x), atol=1e-10)


def test_em_raises_the_likelihood_at_every_step(drawn: tuple[JointBayesian, np.ndarray, np.ndarray]) -> None:
    _, x, labels = drawn
    seen = [JointBayesian.fit(x, labels, iterations=n, tolerance=0.0).log_likelihood(x, labels) for n in range(8)]
    assert np.all(np.diff(seen) > -1e-7)
    assert seen[-1] > seen[0]


def test_em_finds_the_covariances_that_made_the_data() -> None:
    truth, x, labels = _draw(4000, np.random.default_rng(2).integers(1, 6, 4000), seed=3)
    found = JointBayesian.fit(x, labels, iterations=200, tolerance=1e-6)
    for a, b in ((found.between, truth.between), (found.within, truth.within)):
        assert np.linalg.norm(a - b) < 0.08 * np.linalg.norm(b)
    assert found.log_likelihood(x, labels) > truth.log_likelihood(x, labels)  # the maximum is above the truth


def test_the_papers_point_estimates_shrink_the_person() -> None:
    _, x, labels = _draw(500, np.full(500, 2), seed=4)
    exact = JointBayesian.fit(x, labels, iterations=100)
    paper = JointBayesian.fit(x, labels, iterations=100, point_estimates=True)
    assert np.trace(paper.between) < np.trace(exact.between)
    assert paper.log_likelihood(x, labels) < exact.log_likelihood(x, labels)


def test_it_separates_better_than_cosine_where_variation_is_lopsided() -> None:
    """One direction varies a lot within people: cosine is fooled by it, the likelihood ratio is not."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(400), 4)
    person, rest = rng.standard_normal((400, 8)), rng.standard_normal((1600, 8))
    rest[:, 0] *= 6
    x = person[labels] + 0.5 * rest
    train = labels < 200
    joint = JointBayesian.fit(x[train], labels[train])
    test = x[~train].reshape(200, 4, 8)
    same, other = (test[:, 0], test[:, 1]), (test[:, 2], np.roll(test[:, 3], 1, axis=0))

    def auc(score) -> float:
        return float((score(*same)[:, None] > score(*other)[None]).mean())

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    assert auc(joint.score) > auc(cosine) + 0.1


@pytest.mark.parametrize("shape", [(60, 10), (12, 30)])
def test_pca_keeps_what_varies_most(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1]))
    pca = Pca.fit(x, 5)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(5), atol=1e-9)
    expected = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1][:5]
    np.testing.assert_allclose(pca.variance, expected, rtol=1e-8)
    np.testing.assert_allclose(np.cov(pca(x).T), np.diag(expected), atol=1e-8 * expected[0])


def test_features_that_vary_in_fewer_directions_are_scored_by_these(caplog) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 5)
    x = rng.standard_normal((40, 3))[labels] + 0.3 * rng.standard_normal((200, 3))
    silent = np.concatenate([x, np.zeros((200, 5))], 1)  # units that never fire
    scorer = PairScorer.fit(silent, labels, dim=6)
    assert scorer.pca.components.shape == (3, 8)
    assert "3 dimensions instead of 6" in caplog.text
    np.testing.assert_allclose(
        scorer.score(silent[:9], silent[9:18]), PairScorer.fit(x, labels, dim=3).score(x[:9], x[9:18])
    )
    with pytest.raises(DataError, match="fewer than 6"):
        PairScorer.fit(np.ones((200, 8)), labels, dim=6)


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 0, 0, 0], "two people"), ([0, 1, 2, 3], "two pictures"), ([0, 0, 1], "N labels")],
)
def test_impossible_data_is_refused(labels: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        JointBayesian.fit(np.random.default_rng(0).standard_normal((4, 2)), np.array(labels))


def test_more_dimensions_than_the_data_has_are_refused() -> None:
    with pytest.raises(DataError, match="PCA"):
        Pca.fit(np.ones((5, 3)), 4)
    with pytest.raises(DataError, match="fewer than 2"):
        Pca.fit(np.outer(np.arange(6.0), np.ones(4)), 2)
