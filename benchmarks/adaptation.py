"""What embeddings gain from few people without training: random draws of people, judged on all pairs of others.

    visavis embed MODEL SRC --out embeddings.npz
    python benchmarks/adaptation.py embeddings.npz [--people 20 50 100 300] [--draws 20] [--out FILE]

Of each draw so many people with two pictures or more are one's own, 400 of the rest the others; at most ten pictures of
anybody. TMR at FMR 1e-3 and 1e-4 over all pairs of the others, with a method minus without; the interval is Student's
over the draws. They share people: it says how a draw matters, less what another population would.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import harness
import numpy as np

from visavis.metrics.centering import centered, person_mean
from visavis.metrics.joint_bayesian import JointBayesian, Pca
from visavis.metrics.similarity import unit_rows

FMRS = (1e-3, 1e-4)
NEAREST = 10  # people of the cohort that a score is normalized by
T_975 = {9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045}  # Student's quantiles by degrees of freedom
Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # own (N, D), their labels, others (M, D) -> (M, M)


def main() -> None:
    """Draw, judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings")
    parser.add_argument("--people", type=int, nargs="+", default=[20, 50, 100, 300])
    parser.add_argument("--draws", type=int, default=20, choices=[d + 1 for d in T_975])
    parser.add_argument("--others", type=int, default=400)
    parser.add_argument("--most", type=int, default=10, help="pictures of anybody")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "adaptation.json")
    args = parser.parse_args()
    with np.load(args.embeddings, allow_pickle=False) as file:
        rows, labels = unit_rows(file["embeddings"]), file["labels"]
    sizes = {str(people): judge_size(rows, labels, people, args) for people in args.people}
    result = {
        "benchmark": "adaptation",
        "draws": args.draws,
        "others": args.others,
        "pictures_of_anybody": args.most,
        **harness.about(threads=1),
        "people": sizes,
    }
    harness.write(result, args.out, show=False)


def judge_size(rows: np.ndarray, labels: np.ndarray, people: int, args: argparse.Namespace) -> dict[str, object]:
    """Every method on all draws of so many own people."""
    able = np.flatnonzero(np.bincount(labels) >= 2)
    found: dict[str, list[list[float]]] = {"plain": []}
    for draw in range(args.draws):
        rng = np.random.default_rng([draw, people])
        order = rng.permutation(able)
        own, others = (images(labels, part, args.most, rng) for part in (order[:people], order[people:][: args.others]))
        first, second = np.triu_indices(len(others), 1)
        genuine = labels[others][first] == labels[others][second]
        for name, scores in {"plain": plain, **METHODS}.items():
            if name.startswith("Joint Bayesian") and people <= int(name.split()[-1]) + 1:
                continue
            similarity = scores(rows[own], labels[own], rows[others])[first, second]
            found.setdefault(name, []).append(tmr(similarity, genuine))
    before = np.array(found["plain"])
    quantile = T_975[args.draws - 1]
    table: dict[str, object] = {"plain": dict(zip(("1e-3", "1e-4"), before.mean(0).tolist(), strict=True))}
    for name, values in found.items():
        if name == "plain":
            continue
        difference = np.array(values) - before
        half = quantile * difference.std(0, ddof=1) / np.sqrt(args.draws)
        mean = difference.mean(0)
        table[name] = {
            rate: {"difference": m, "interval": [m - h, m + h]}
            for rate, m, h in zip(("1e-3", "1e-4"), mean.tolist(), half.tolist(), strict=True)
        }
        shown = "   ".join(
            f"{100 * m:+.2f} ({100 * (m - h):+.2f} to {100 * (m + h):+.2f})" for m, h in zip(mean, half, strict=True)
        )
        print(f"{people:4} people  {name:44} {shown}", flush=True)
    return table


def images(labels: np.ndarray, people: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `most` pictures of each, drawn."""
    return np.concatenate([rng.permutation(np.flatnonzero(labels == person))[:most] for person in people])


def tmr(similarity: np.ndarray, genuine: np.ndarray) -> list[float]:
    """TMR at each rate: above the highest similarity that lets more impostors match than it allows."""
    impostor = similarity[~genuine]
    places = [len(impostor) - int(len(impostor) * fmr) - 1 for fmr in FMRS]
    bounds = np.partition(impostor, places)
    return [float((similarity[genuine] > bounds[place]).mean()) for place in places]


def plain(own: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The cosine."""
    return others @ others.T


def about_person_mean(own: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What `visavis adapt` writes."""
    moved = centered(others, person_mean(own, labels))
    return moved @ moved.T


def about_image_mean(own: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean over pictures: who has many counts for more."""
    moved = centered(others, own.mean(0))
    return moved @ moved.T


def _within(own: np.ndarray, labels: np.ndarray, shrinkage: float) -> np.ndarray:
    """W^(−1/2), W the covariance within people, shrunk towards its mean variance."""
    _, who = np.unique(labels, return_inverse=True)
    sums = np.zeros((who.max() + 1, own.shape[1]))
    np.add.at(sums, who, own)
    rest = own - (sums / np.bincount(who)[:, None])[who]
    covariance = rest.T @ rest / (len(own) - who.max() - 1)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance)
    )
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(values)) @ vectors.T


def within_class(shrinkage: float, *, center: bool) -> Scores:
    """WCCN, or LDA where the classes' own scatter is round: directions in which people vary made small."""

    def scores(own: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
        if center:
            mean = person_mean(own, labels)
            own, others = centered(own, mean), centered(others, mean)
        moved = unit_rows(others @ _within(own, labels, shrinkage))
        return moved @ moved.T

    return scores


def joint_bayesian(dim: int) -> Scores:
    """PCA and the likelihood ratio (two-covariance PLDA)."""

    def scores(own: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
        pca = Pca.fit(own, dim)
        model = JointBayesian.fit(pca(own), labels, iterations=20)
        a, g, c = model.matrices()
        rows = pca(others) - model.mean
        own_terms = np.einsum("nd,de,ne->n", rows, a, rows)
        return 0.5 * (own_terms[:, None] + own_terms) - rows @ g @ rows.T + c

    return scores


def score_normalization(*, scale: bool) -> Scores:
    """s − ½(μ_a + μ_b), μ the mean similarity to the ten nearest people of the cohort; with `scale` over σ too."""

    def scores(own: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
        people = unit_rows(np.array([own[labels == person].mean(0) for person in np.unique(labels)]))
        near = np.partition(others @ people.T, len(people) - NEAREST, axis=1)[:, -NEAREST:]
        mean, spread = near.mean(1), near.std(1)
        similarity = others @ others.T
        if not scale:
            return similarity - 0.5 * (mean[:, None] + mean)
        return 0.5 * ((similarity - mean[:, None]) / spread[:, None] + (similarity - mean) / spread)

    return scores


METHODS: dict[str, Scores] = {
    "about the mean over people": about_person_mean,
    "about the mean over pictures": about_image_mean,
    "score normalization, mean of 10 nearest": score_normalization(scale=False),
    "score normalization, mean and deviation": score_normalization(scale=True),
    "WCCN, shrunk by 0.5": within_class(0.5, center=False),
    "mean over people, WCCN shrunk by 0.8": within_class(0.8, center=True),
    "Joint Bayesian after PCA to 40": joint_bayesian(40),
}


if __name__ == "__main__":
    main()
