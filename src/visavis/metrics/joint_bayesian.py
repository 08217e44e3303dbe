"""Joint Bayesian: are two features one person's? A likelihood ratio learned from many people, after PCA."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.types import FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pca:
    """Principal components: y = V (x − m), rows of V (D', D) orthonormal, by falling variance."""

    mean: Matrix
    components: Matrix
    variance: Matrix

    @classmethod
    def fit(cls, features: Float[FloatArray, "N D"], dim: int, *, or_fewer: bool = False) -> Pca:
        """Keep the `dim` directions of largest variance of features (N, D).

        Raises:
            DataError: fewer than `dim` directions vary, unless `or_fewer`, when as many are kept as do; or none varies.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or len(x) < 2 or not 1 <= dim <= min(x.shape[1], len(x) - 1):
            raise DataError(f"PCA to {dim} dimensions wants more features (N, D) than that in N and D, got {x.shape}")
        mean = x.mean(0)
        x = x - mean
        # The smaller of covariance (D × D) and Gram matrix (N × N).
        wide = x.shape[1] > len(x)
        values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
        values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
        vary = int(np.count_nonzero(values > 1e-12 * values[0]))
        if or_fewer and 0 < vary < dim:  # units that never fire, behind a ReLU, say
            log.warning("PCA keeps %d dimensions instead of %d: the features vary in no more", vary, dim)
            dim, values, vectors = vary, values[:vary], vectors[:, :vary]
        if vary < dim:
            raise DataError(f"PCA: the features vary in fewer than {dim} directions; ask for fewer dimensions")
        rows = (x.T @ vectors / np.sqrt(values)).T if wide else vectors.T
        return cls(mean, np.ascontiguousarray(rows), values / (len(x) - 1))

    def __call__(self, features: Float[FloatArray, "N D"]) -> Float[Matrix, "N K"]:
        """Project features (N, D) to (N, D')."""
        return (np.asarray(features, np.float64) - self.mean) @ self.components.T


@dataclass(frozen=True)
class JointBayesian:
    """A feature is person plus variation, x = μ + ε with μ ~ N(0, S_μ), ε ~ N(0, S_ε), both around `mean`.

        s(x₁, x₂) = log P(x₁, x₂ | one person) − log P(x₁, x₂ | two)
                  = ½ (x₁ᵀ A x₁ + x₂ᵀ A x₂ − 2 x₁ᵀ G x₂) + c
        A = (S_μ + S_ε)⁻¹ − (F + G),  F = S_ε⁻¹,  G = −(2 S_μ + S_ε)⁻¹ S_μ S_ε⁻¹

    The paper leaves ½ and c out, which no threshold minds; with them s is the log likelihood ratio itself, so that 0 is
    where both are as likely. Chen, Cao, Wang, Wen, Sun: Bayesian Face Revisited, ECCV 2012, equations 4–7.
    """

    mean: Matrix
    between: Matrix  # S_μ (D, D)
    within: Matrix  # S_ε (D, D)

    @classmethod
    def fit(
        cls,
        features: Float[FloatArray, "N D"],
        labels: Integer[IntArray, " L"],
        *,
        iterations: int = 50,
        tolerance: float = 1e-4,
        point_estimates: bool = False,
    ) -> JointBayesian:
        """Learn both covariances by expectation maximization.

            E:  E[μ] = S_μ (S_ε + m S_μ)⁻¹ Σᵢ xᵢ,  E[εᵢ] = xᵢ − E[μ],  V = S_μ (S_ε + m S_μ)⁻¹ S_ε
            M:  S_μ = mean over people of E[μ] E[μ]ᵀ + V,  S_ε = mean over pictures of E[ε] E[ε]ᵀ + V

        for a person of m pictures. The paper's M-step takes the covariances of the expectations alone (no V), under
        which the likelihood may fall; `point_estimates` does so too.

        Args:
            features: (N, D), fewer dimensions than people (see `Pca`).
            labels: (N,) who is on each.
            iterations: at most so many.
            tolerance: stop when neither covariance changes by more than this share of its size.
            point_estimates: the paper's M-step.

        Raises:
            DataError: nobody with two pictures, one person only, or features that are not finite.
        """
        x, who = np.asarray(features, np.float64), np.unique(labels, return_inverse=True)[1].ravel()
        if x.ndim != 2 or len(x) != len(who) or not np.isfinite(x).all():
            raise DataError(f"Joint Bayesian wants finite features (N, D) and N labels, got {x.shape} and {len(who)}")
        counts = np.bincount(who)
        if len(counts) < 2 or counts.max() < 2:
            raise DataError("Joint Bayesian wants at least two people, and one with at least two pictures")
        mean = x.mean(0)
        x = x - mean
        sums = np.zeros((len(counts), x.shape[1]))
        np.add.at(sums, who, x)
        between, within = _start(x, sums, who, counts)
        for _ in range(iterations):
            before = between, within
            between, within = _step(x, sums, who, counts, between, within, spread=not point_estimates)
            change = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip((between, within), before, strict=True)]
            if max(change) < tolerance:
                break
        return cls(mean, between, within)

    def matrices(self) -> tuple[Matrix, Matrix, float]:
        """A (D, D), G (D, D) and the constant c."""
        both = self.between + self.within
        total = np.linalg.inv(both)
        f = np.linalg.inv(self.within)
        g = -np.linalg.solve(2 * self.between + self.within, self.between) @ f
        logdet = [float(np.linalg.slogdet(m)[1]) for m in (both, self.within, 2 * self.between + self.within)]
        # The covariance of a pair is [[S_μ + S_ε, S_μ], [S_μ, S_μ + S_ε]]: determinant |S_ε| · |2 S_μ + S_ε|.
        return total - (f + g), (g + g.T) / 2, logdet[0] - 0.5 * (logdet[1] + logdet[2])

    def score(
        self, first: Float[FloatArray, "N D"], second: Float[FloatArray, "N D"]
    ) -> Float[npt.NDArray[np.float64], " N"]:
        """Log likelihood ratios (N,) of pairs of features (N, D); above 0 one person is likelier than two."""
        a, g, constant = self.matrices()
        x, y = np.asarray(first, np.float64) - self.mean, np.asarray(second, np.float64) - self.mean
        own = np.einsum("nd,nd->n", x @ a, x) + np.einsum("nd,nd->n", y @ a, y)
        return 0.5 * own - np.einsum("nd,nd->n", x @ g, y) + constant

    def log_likelihood(self, features: Float[FloatArray, "N D"], labels: Integer[IntArray, " N"]) -> float:
        """log P(features | labels), each person's pictures sharing one μ."""
        x, who = np.asarray(features, np.float64) - self.mean, np.unique(labels, return_inverse=True)[1].ravel()
        counts = np.bincount(who)
        means = np.zeros((len(counts), x.shape[1]))
        np.add.at(means, who, x)
        means /= counts[:, None]
        rest = x - means[who]
        total = np.einsum("nd,nd->", rest @ np.linalg.inv(self.within), rest)
        total += (len(x) - len(counts)) * np.linalg.slogdet(self.within)[1] + x.size * np.log(2 * np.pi)
        for m in np.unique(counts).tolist():
            spread: Matrix = self.within + m * self.between
            some = means[counts == m]
            total += m * np.einsum("nd,nd->", some @ np.linalg.inv(spread), some)
            total += len(some) * np.linalg.slogdet(spread)[1]
        return -0.5 * float(total)


def _start(x: Matrix, sums: Matrix, who: IntArray, counts: IntArray) -> tuple[Matrix, Matrix]:
    """Covariance of the people's means, and of the pictures around them, kept off singularity."""
    means = sums / counts[:, None]
    rest = x - means[who]
    ridge = 1e-6 * np.trace(x.T @ x) / x.size * np.eye(x.shape[1])
    return means.T @ means / len(means) + ridge, rest.T @ rest / max(1, len(x) - len(means)) + ridge


def _step(
    x: Matrix, sums: Matrix, who: IntArray, counts: IntArray, between: Matrix, within: Matrix, *, spread: bool
) -> tuple[Matrix, Matrix]:
    """One E and one M step; people with as many pictures share their matrices."""
    person = np.empty_like(sums)
    shared = np.zeros_like(between), np.zeros_like(within)
    for m in np.unique(counts).tolist():
        which = counts == m
        gain: Matrix = np.asarray(
            np.linalg.solve(within + float(m) * between, between), np.float64
        ).T  # S_μ (S_ε + m S_μ)⁻¹
        person[which] = sums[which] @ gain.T
        if spread:
            left = gain @ within
            shared[0][:] += which.sum() * left
            shared[1][:] += m * which.sum() * left
    rest = x - person[who]
    between = (person.T @ person + shared[0]) / len(person)
    within = (rest.T @ rest + shared[1]) / len(x)
    return (between + between.T) / 2, (within + within.T) / 2


@dataclass(frozen=True)
class PairScorer:
    """PCA and Joint Bayesian together: raw features in, log likelihood ratios out."""

    pca: Pca
    joint: JointBayesian

    @classmethod
    def fit(cls, features: Float[FloatArray, "N D"], labels: Integer[IntArray, " L"], *, dim: int = 150) -> PairScorer:
        """Learn both from features (N, D) of people whom the networks that made them have not been trained on.

        PCA keeps `dim` dimensions, or as many as the features vary in.
        """
        pca = Pca.fit(features, dim, or_fewer=True)
        return cls(pca, JointBayesian.fit(pca(features), labels))

    def score(
        self, first: Float[FloatArray, "N D"], second: Float[FloatArray, "N D"]
    ) -> Float[npt.NDArray[np.float64], " N"]:
        """Log likelihood ratios (N,) of pairs of features (N, D)."""
        return self.joint.score(self.pca(first), self.pca(second))
