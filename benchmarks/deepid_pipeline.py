"""The DeepID paper's pipeline on people nobody has trained on: patches, concatenated features, PCA, Joint Bayesian.

    python benchmarks/deepid_pipeline.py [--data SRC --people LIST --pairs FILE] [--patches 10] [--steps 1500]

Without --data generated people are used. Some training people teach PCA and Joint Bayesian and none of the networks, as
in the paper (section 4). Prints a table and writes JSON; every figure has a 95 % interval over subjects.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from visavis import synthetic
from visavis.data.pair_lists.base import check_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.patches import Patch, PatchSource, deepid_patches
from visavis.data.sources import open_source, read_identities
from visavis.data.sources.base import Source
from visavis.data.sources.rec_writer import write_records
from visavis.evaluate.protocols.pairs import subjects_of
from visavis.metrics.intervals import comparison_weights, subject_weights, wilson
from visavis.metrics.joint_bayesian import PairScorer
from visavis.metrics.verification import verify_scores
from visavis.models.torch import TorchEmbedder, load_model
from visavis.train.loop import train
from visavis.train.recipe import load_recipe
from visavis.types import ByteArray, IntArray, Pairs
from visavis.vision import images

FIRST_TEST_PERSON = 20_000_000


class Crops(Source):
    """Aligned crops in memory as a source."""

    def __init__(self, crops: ByteArray, labels: IntArray) -> None:
        self.crops, self.labels, self.path = crops, labels.astype(np.int64), Path("generated")
        self.identities = tuple(f"id_{k:06d}" for k in range(int(labels.max()) + 1))
        self.names = tuple(f"{self.identities[k]}/{i}.png" for i, k in enumerate(labels))

    def read(self, index: int) -> bytes:
        """The picture as a PNG file."""
        return images.encode(self.crops[index], ".png")

    def image(self, index: int) -> ByteArray:
        """The picture."""
        return self.crops[index]


def generated(args: argparse.Namespace) -> tuple[Source, ByteArray, Pairs]:
    """Training people, and crops and pairs of other people."""
    kept = args.out / f"generated-{args.identities}-{args.images}-{args.test_identities}-{args.seed}.npz"
    if not kept.is_file():
        crops, labels, _ = synthetic.generate(args.seed, range(args.identities), args.images, workers=args.workers)
        people = range(FIRST_TEST_PERSON, FIRST_TEST_PERSON + args.test_identities)
        test, _, _ = synthetic.generate(args.seed, people, 8, workers=args.workers)
        args.out.mkdir(parents=True, exist_ok=True)
        np.savez(kept, crops=crops, labels=labels, test=test)
    with np.load(kept) as stored:
        crops, labels, test = stored["crops"], stored["labels"], stored["test"]
    return Crops(crops, labels), test, synthetic.pairs(args.test_identities, 8, args.test_pairs, 10, args.seed)


def real(args: argparse.Namespace) -> tuple[Source, ByteArray, Pairs]:
    """Training people of a folder, and the pairs of a list; nobody of the pairs may be among them."""
    source = open_source(args.data)
    pairs = read_pairs(args.pairs or Path(args.data) / "pairs.txt")
    index = check_pairs(pairs, source)
    tested = {source.identities[k] for k in np.unique(source.labels[index])}
    training = source.only(read_identities(args.people)) if args.people else source.without(tested)
    shared = tested & set(training.identities)
    if shared:
        sys.exit(f"{len(shared)} people are both trained on and tested, e.g. {sorted(shared)[0]}")
    crops = np.stack([source.image(int(i)) for i in index])
    kept = np.flatnonzero(np.bincount(training.labels)[training.labels] >= 2)
    crops_train = np.stack([training.image(int(i)) for i in kept])
    return Crops(crops_train, np.unique(training.labels[kept], return_inverse=True)[1]), crops, pairs


def teach_the_scorer(training: Source, args: argparse.Namespace) -> np.ndarray:
    """Which training pictures (N,) teach PCA and Joint Bayesian: of people the networks do not see.

    Where people have few pictures, those with fewest: a classifier wants several of each, a covariance many people.
    """
    count = np.bincount(training.labels)
    if args.data:
        return count[training.labels] < args.network_images
    drawn = np.random.default_rng(args.seed).permutation(len(count))[: len(count) // 5]
    return np.isin(training.labels, drawn)


def features(run: Path, patch: Patch, crops: ByteArray) -> np.ndarray:
    """Features of a patch and of its mirror image side by side, (N, 320), unit rows."""
    network, card = load_model(run / "best")
    return TorchEmbedder(network, card.preprocess, batch_size=256).embed(patch.cut(crops))


def judge(scores: np.ndarray, pairs: Pairs, drawn: np.ndarray) -> dict[str, Any]:
    """Ten-fold accuracy, EER and the accuracy's interval over subjects."""
    found = verify_scores(scores.astype(np.float32), pairs.genuine, pairs.fold)
    assert found.folds is not None
    right = found.folds.match == pairs.genuine
    replicates = weighted(right, pairs, drawn)
    return {
        "accuracy": found.accuracy,
        "interval_pairs": list(wilson(int(right.sum()), len(right))),
        "interval_subjects": np.quantile(replicates, [0.025, 0.975]).tolist(),
        "eer": found.eer,
        "auc": found.auc,
        "right": right,
        "replicates": replicates,
    }


def weighted(right: np.ndarray, pairs: Pairs, drawn: np.ndarray) -> np.ndarray:
    """Accuracy in each bootstrap draw of the subjects."""
    who = subjects_of(pairs.images)
    weights = comparison_weights(drawn, who[pairs.reference], who[pairs.probe])
    return (weights * right).sum(1) / weights.sum(1)


def main() -> None:
    """Train, learn to score, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--people", help="training identities, one a line")
    parser.add_argument("--pairs")
    parser.add_argument("--network-images", type=int, default=5, help="with --data: people with fewer teach the scorer")
    parser.add_argument("--identities", type=int, default=500)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--test-identities", type=int, default=200)
    parser.add_argument("--test-pairs", type=int, default=6000)
    parser.add_argument("--patches", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/deepid-pipeline"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/deepid_pipeline.json"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    begun = time.perf_counter()
    training, test, pairs = real(args) if args.data else generated(args)
    print(f"{len(training)} pictures of {len(training.identities)} people, {len(pairs)} pairs", flush=True)

    held_out = teach_the_scorer(training, args)
    networks, scorer_set = training.subset(np.flatnonzero(~held_out)), training.subset(np.flatnonzero(held_out))
    held = np.stack([scorer_set.image(i) for i in range(len(scorer_set))])
    known, unseen = [], []
    for patch in deepid_patches()[: args.patches]:
        run, records = args.out / patch.name, args.out / "patches" / patch.name
        if not run.is_dir():
            part = run.with_name(run.name + ".part")
            shutil.rmtree(part, ignore_errors=True)  # of an interrupted call
            deque(write_records(PatchSource(networks, patch), records), maxlen=0)
            options = (
                f"--data.source={records}", "--data.synthetic.identities=0", "--evaluate.synthetic_identities=0",
                f"--loop.steps={args.steps}", f"--seed={args.seed}", f"--loop.threads={args.threads}",
                f"--name=deepid-{patch.name}",
            )  # fmt: skip
            done = train(load_recipe("deepid-small", options), part)
            part.replace(run)
            print(f"  {patch.name}: {done.images_per_second:.0f} pictures/s, {time.perf_counter() - begun:.0f} s")
        known.append(features(run, patch, held))
        unseen.append(features(run, patch, test))

    subjects = subject_weights(int(subjects_of(pairs.images).max()) + 1, replicates=1000, seed=args.seed)
    rows: dict[str, dict[str, Any]] = {}
    for name, count in (("one network", 1), (f"{len(known)} patches", len(known))):
        have, new = np.hstack(known[:count]), np.hstack(unseen[:count])
        unit = new / np.linalg.norm(new, axis=1, keepdims=True)
        cosine = (unit[pairs.reference] * unit[pairs.probe]).sum(1)
        rows[f"{name}, cosine"] = judge(cosine, pairs, subjects)
        dim = min(args.dim, have.shape[1], len(scorer_set.identities) - 1)
        scorer = PairScorer.fit(have, scorer_set.labels, dim=dim)
        ratio = scorer.score(new[pairs.reference], new[pairs.probe])
        rows[f"{name}, PCA {dim} + Joint Bayesian"] = judge(ratio, pairs, subjects)
    print(f"\n{'':44} accuracy   95 % (subjects)      EER")
    base = rows["one network, cosine"]
    for name, row in rows.items():
        gain = row["replicates"] - base["replicates"]
        row["gain_over_one_network"] = {
            "mean": row["accuracy"] - base["accuracy"], "interval": np.quantile(gain, [0.025, 0.975]).tolist(),
        }  # fmt: skip
        low, high = row["interval_subjects"]
        print(f"{name:44} {row['accuracy']:8.2%}   {low:.2%} – {high:.2%}   {row['eer']:6.2%}")
    for row in rows.values():
        del row["right"], row["replicates"]
    report = {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "training": {"people": len(training.identities), "pictures": len(training)},
        "pairs": len(pairs),
        "systems": rows,
        "seconds": time.perf_counter() - begun,
        **harness.about(threads=torch.get_num_threads()),
    }
    harness.write(report, args.json, show=False)


if __name__ == "__main__":
    main()
