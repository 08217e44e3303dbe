"""ValidationSet the runs of four_systems.py on unseen people, compare them pair by pair, and write the table.

Figures are means over the seeds. Intervals and differences come from drawing the people again (with both of a pair's
people, for all systems and seeds alike), so that they hold for other people; a few seeds cannot say how far other seeds
would fall apart, so the difference of each seed is listed too.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

REPLICATES = 2000
CLAIMS = (
    ("ArcFace is better than softmax", "arcface", "softmax"),
    ("ArcFace is better than SphereFace", "arcface", "sphereface"),
    ("ArcFace is better than CosFace", "arcface", "cosface"),
    ("... at the same scale", "arcface-32", "cosface"),
    ("CosFace is better than softmax", "cosface", "softmax"),
    ("SphereFace is better than softmax", "sphereface", "softmax"),
    ("Triplet fine-tuning improves its softmax start", "triplet", "softmax"),
    ("... more than as many steps of softmax do", "triplet", "softmax-longer"),
    ("Joint Bayesian improves on cosine for DeepID", "deepid-joint-bayesian", "deepid"),
)


def embedded(embedder: Any, source: Any, wanted: Any) -> Any:
    """Embeddings (N, D) of the pictures `wanted` of a source; one that cannot be read ends the benchmark."""
    from visavis.evaluate import embed_images
    from visavis.evaluate.protocols.loading import SourceImages

    found = embed_images(embedder, [source.names[i] for i in wanted], SourceImages(source))
    if found.failed:
        raise SystemExit(f"{source.path}: {found.failed}")
    return found.vectors


def _opened(run: Path, judge: Path, listed: Path) -> tuple[Any, Any, Any]:
    """The embedder, the pairs and the embeddings of their pictures."""
    from visavis.data.pair_lists.base import check_pairs
    from visavis.data.pair_lists.reader import read_pairs
    from visavis.data.sources import open_source
    from visavis.models.load import load_embedder

    source, pairs, embedder = open_source(judge), read_pairs(listed), load_embedder(run)
    return embedder, pairs, embedded(embedder, source, check_pairs(pairs, source))


def similarities(run: Path, judge: Path, listed: Path) -> Any:
    """Cosines of the held-out pairs by a trained run."""
    from visavis.metrics.verification import pair_similarities

    _, pairs, rows = _opened(run, judge, listed)
    return pair_similarities(rows, pairs.reference, pairs.probe)


def joint_bayesian(run: Path, judge: Path, listed: Path, data: Path, names: Path) -> Any:
    """Scores of the held-out pairs by PCA and Joint Bayesian, learned from people DeepID's network has not seen."""
    from visavis.data.sources import open_source
    from visavis.metrics.joint_bayesian import PairScorer

    embedder, pairs, rows = _opened(run, judge, listed)
    learn = open_source(data).only(names.read_text(encoding="utf-8").split())
    scorer = PairScorer.fit(embedded(embedder, learn, np.arange(len(learn))), learn.labels, dim=100)
    return scorer.score(rows[pairs.reference], rows[pairs.probe])


def _area(scores: Any, genuine: Any, weights: Any) -> Any:
    """AUC under weights (B, N) of the comparisons (N,): the share of genuine-impostor pairs in the right order."""
    order = np.argsort(scores, kind="stable")
    w, g = weights[:, order], genuine[order]
    impostors = np.cumsum(w * ~g, axis=1)
    return (w * g * impostors).sum(1) / ((w * g).sum(1) * impostors[:, -1])


def judge(rows: dict[str, Any], scores: dict[str, list[Any]], listed: Path) -> dict[str, Any]:
    """Figures of every row, over folds and seeds, and every claim with the intervals of its differences."""
    from visavis.data.pair_lists.reader import read_pairs
    from visavis.metrics.intervals import comparison_weights, percentile_interval, subject_weights
    from visavis.metrics.verification import verify_scores

    pairs = read_pairs(listed)
    owners = np.array([str(PurePosixPath(name).parent) for name in pairs.images])
    names, subject = np.unique(owners, return_inverse=True)
    drawn = subject_weights(len(names), replicates=REPLICATES, seed=0)
    weights = comparison_weights(drawn, subject[pairs.reference], subject[pairs.probe])
    weights = weights[(weights @ pairs.genuine > 0) & (weights @ ~pairs.genuine > 0)]
    weights = np.concatenate([np.ones((1, len(pairs))), weights])  # the first is the observation itself
    accuracy, area = {}, {}
    for name, several in scores.items():
        found = [verify_scores(s, pairs.genuine, pairs.fold) for s in several]
        right = [(v.folds.match == pairs.genuine).astype(float) for v in found if v.folds is not None]
        accuracy[name] = np.stack([weights @ r / weights.sum(1) for r in right])
        area[name] = np.stack([_area(s, pairs.genuine, weights) for s in several])
        plain = [v.to_dict() for v in found]
        low, high = percentile_interval(accuracy[name].mean(0)[1:])
        rows[name] |= {
            "accuracy": {"mean": float(accuracy[name][:, 0].mean()), "interval": [low, high]},
            "accuracy_by_seed": accuracy[name][:, 0].tolist(),
            "auc": float(area[name][:, 0].mean()),
            "eer": float(np.mean([p["eer"] for p in plain])),
            "tmr_at_fmr_1e-2": float(np.mean([p["tmr_at_fmr"]["1e-2"] for p in plain])),
        }
    claims = []
    for claim, better, worse in CLAIMS:
        if better in scores and worse in scores:
            made: dict[str, Any] = {"claim": claim, "better": better, "worse": worse}
            for key, values in (("accuracy", accuracy), ("auc", area)):
                gain = values[better] - values[worse]
                made[key] = float(gain[:, 0].mean())
                made[f"{key}_interval"] = list(percentile_interval(gain.mean(0)[1:]))
                made[f"{key}_by_seed"] = gain[:, 0].tolist()
            claims.append({**made, "verdict": verdict(made)})
    return {"pairs": len(pairs), "people": len(names), "systems": rows, "claims": claims}


def verdict(found: dict[str, Any]) -> str:
    """Shown or denied only where an interval leaves out 0 and neither the other nor a seed says the opposite."""
    seeds = found["accuracy_by_seed"] + found["auc_by_seed"]
    intervals = {key: found[f"{key}_interval"] for key in ("accuracy", "auc")}
    for sign, word in ((1, "shown"), (-1, "denied: the other way round")):
        sure = [key for key, ends in intervals.items() if min(sign * e for e in ends) > 0]
        against = [key for key, ends in intervals.items() if max(sign * e for e in ends) < 0]
        if sure and not against and min(sign * s for s in seeds) >= 0:
            by = "" if len(sure) == 2 else f" by {'AUC' if sure[0] == 'auc' else 'accuracy'} only"
            return word + by
    return "not shown: within chance"


def _points(values: list[float]) -> str:
    return " / ".join(f"{100 * v:+.2f}" for v in values)


def markdown(result: dict[str, Any]) -> str:
    """The tables and the claims, for docs/results.md."""
    lines = []
    for data, part in result["data"].items():
        lines += [f"### Four systems: {data}", ""]
        lines += [f"{part['pairs']:,} pairs of {part['people']} people nobody trained on; seeds {result['seeds']}.", ""]
        lines += ["| system | accuracy (95 %, people) | each seed | EER | AUC | TMR at FMR 1e-2 | seconds |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, row in part["systems"].items():
            low, high = (100 * v for v in row["accuracy"]["interval"])
            mean = f"{100 * row['accuracy']['mean']:.2f} % ({low:.2f} to {high:.2f})"
            each = " / ".join(f"{100 * v:.2f}" for v in row["accuracy_by_seed"])
            seconds = np.mean([r["seconds"] for r in row["runs"]])
            rest = f"{100 * row['eer']:.2f} % | {row['auc']:.4f} | {100 * row['tmr_at_fmr_1e-2']:.1f} % | {seconds:.0f}"
            lines.append(f"| {row['shows']} (`{name}`) | {mean} | {each} | {rest} |")
        lines += ["", "| claim | accuracy, points (95 %, people) | each seed | AUC (95 %, people) | |"]
        lines += ["|---|---|---|---|---|"]
        for claim in part["claims"]:
            (al, ah), (bl, bh) = claim["accuracy_interval"], claim["auc_interval"]
            lines.append(
                f"| {claim['claim']} | {100 * claim['accuracy']:+.2f} ({100 * al:+.2f} to {100 * ah:+.2f}) "
                f"| {_points(claim['accuracy_by_seed'])} | {claim['auc']:+.4f} ({bl:+.4f} to {bh:+.4f}) "
                f"| {claim['verdict']} |"
            )
        lines.append("")
    return "\n".join(lines)
