"""Every pair of the people of SRC outside a list, by a model before fine-tuning and by runs after it.

    python benchmarks/finetuning.py BEFORE RUN [RUN ...] --data SRC --trained-on LIST [--replicates 300]

The 600 pairs that come with a small set hardly move; all pairs of the same people show TMR at low FMR. Differences are
RUN minus BEFORE, their 95 % intervals from drawing the people again, for both alike. How the runs were trained:
docs/finetuning.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from four_systems_table import embedded

from visavis.data.sources import open_source
from visavis.metrics.error_rates import error_curve, rate_name
from visavis.metrics.paired_tests import PairedDecisions, paired_bootstrap
from visavis.models.load import load_embedder

FMRS = (1e-3, 1e-4)


def similarities(model: str, source: Any) -> np.ndarray:
    """Cosines of all pairs of the source's pictures, in the order of `np.triu_indices`."""
    rows = embedded(load_embedder(model), source, range(len(source)))
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


def main() -> None:
    """ValidationSet, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--trained-on", type=Path, required=True, help="names that are left out, one a line")
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetuning.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(args.data)
    known = set(args.trained_on.read_text(encoding="utf-8").split("\n"))
    source = source.only([name for name in source.identities if name not in known])
    labels = np.asarray(source.labels)
    first, second = np.triu_indices(len(labels), 1)
    genuine = labels[first] == labels[second]
    rows: dict[str, Any] = {}
    scores = {model: similarities(model, source) for model in (args.before, *args.runs)}
    for model, s in scores.items():
        curve = error_curve(s, genuine)
        row = {"eer": curve.eer, "auc": curve.auc, "d_prime": curve.d_prime}
        row |= {f"tmr_at_{rate_name(fmr)}": curve.at_fmr(fmr).tmr for fmr in FMRS}
        if model != args.before:
            # Accuracy is not asked for: every comparison counts as right.
            pair = (
                PairedDecisions(scores[args.before], np.ones_like(genuine)),
                PairedDecisions(s, np.ones_like(genuine)),
            )
            subjects = labels[first], labels[second]
            found = paired_bootstrap(pair, genuine, subjects, fmrs=FMRS, replicates=args.replicates)
            row |= {f"difference_at_{rate_name(f)}": list(found[rate_name(f)].interval) for f in FMRS}
        rows[Path(model).name] = row
        print(Path(model).name, json.dumps(row), flush=True)
    result = {
        "benchmark": "finetuning",
        "pictures": len(labels),
        "people": len(source.identities),
        "genuine": int(genuine.sum()),
        "impostor": int((~genuine).sum()),
        "replicates": args.replicates,
        **harness.about(threads=1),
        "models": rows,
    }
    harness.write(result, args.out, show=False)


if __name__ == "__main__":
    main()
