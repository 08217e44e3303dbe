"""Raw features -> decisions: accuracy over the folds of a pair list, match / no match at a threshold, or top-1.

    python postprocess.py TENSORS FEATURES --pairs pairs.txt [--threshold T] [--json FILE]
    python postprocess.py TENSORS FEATURES --labels valid.txt [--json FILE]      a model with a classifier inside

TENSORS is preprocess.py's folder (for list.txt), FEATURES run.py's. Needs numpy alone. The accuracy is that of
`visavis evaluate`: each fold judged at the threshold that decides most pairs of the other folds rightly.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np


def read_pairs(path):
    """(name, name, genuine) rows and their folds; a first line `folds size` or none. One fold is cut into ten."""
    rows, header = [], None
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines()):
        field = line.split("\t") if "\t" in line else line.split()
        if number == 0 and len(field) <= 2 and all(part.isdigit() for part in field):
            header = [int(part) for part in field]
        elif len(field) == 3 and field[2] in "01" and "." in field[1]:
            rows.append((field[0], field[1], field[2] == "1"))
        elif len(field) == 3:
            rows.append((*(f"{field[0]}/{field[0]}_{int(n):04d}.jpg" for n in field[1:]), True))
        elif len(field) == 4:
            rows.append((*(f"{field[i]}/{field[i]}_{int(field[i + 1]):04d}.jpg" for i in (0, 2)), False))
        elif field:
            raise SystemExit(f"{path}, line {number + 1}: not a pair")
    genuine = np.array([row[2] for row in rows])
    if header and len(header) == 2 and header[0] > 1:
        return rows, genuine, np.arange(len(rows)) // (2 * header[1])
    fold = np.zeros(len(rows), int)
    for kind in (genuine, ~genuine):
        fold[kind] = np.arange(kind.sum()) * 10 // max(int(kind.sum()), 1)
    return rows, genuine, fold


def best_threshold(score, genuine):
    """The middle of the thresholds that decide most comparisons rightly, half way between neighboring scores."""
    order = np.argsort(-score.astype(np.float64))
    score, step = score[order], np.where(genuine[order], 1, -1)
    gain = np.concatenate([[0], np.cumsum(step)])
    possible = np.concatenate([[True], score[1:] != score[:-1], [True]])
    best = np.flatnonzero(possible & (gain == gain[possible].max()))
    n = int(best[(len(best) - 1) // 2])
    above = float(score[n - 1]) if n else np.inf
    below = float(score[n]) if n < len(score) else -np.inf
    if not np.isfinite(below):
        return above if np.isfinite(above) else 0.0
    return float(below + 1.0) if not np.isfinite(above) else (above + below) / 2


def top1(features, files, path):
    """The share of a list's pictures (`path TAB label`) whose own person has the highest logit."""
    model = json.loads((Path(__file__).resolve().parent / "model.json").read_text(encoding="utf-8"))
    if "identities" not in model:
        raise SystemExit("the model has no classifier inside; export it with visavis export --with-classifier")
    place = {name: i for i, name in enumerate(model["identities"])}
    rows = [line.rsplit("\t", 1) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    missing = [row[0] for row in rows if row[0] not in files]
    if missing:
        raise SystemExit(f"{len(missing)} pictures of the list have no tensor, the first is {missing[0]}")
    strangers = [row[1] for row in rows if row[1] not in place]
    if strangers:
        raise SystemExit(f"{len(strangers)} labels are not among the classifier's, the first is {strangers[0]}")
    right = []
    for name, label in rows:
        logits = np.fromfile(features / "logits" / files[name], np.float32)
        right.append((logits >= logits[place[label]]).sum() == 1)  # ties count against the model
    return {"top1": float(np.mean(right)), "pictures": len(rows), "identities": len(place)}


def main():
    """Judge the pairs, or the classifier."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tensors", type=Path)
    parser.add_argument("features", type=Path)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--pairs", type=Path)
    asked.add_argument("--labels", type=Path)
    parser.add_argument(
        "--threshold", type=float, help="similarity from which a pair matches; the folds' own if absent"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    listed = [line.split("\t") for line in (args.tensors / "list.txt").read_text(encoding="utf-8").splitlines()]
    files = {name: file for file, name in listed}
    found = top1(args.features, files, args.labels) if args.labels else verify(args, files)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found) + "\n")


def verify(args, files):
    """Accuracy over the pairs."""
    rows, genuine, fold = read_pairs(args.pairs)
    names = sorted({name for row in rows for name in row[:2]})
    missing = [name for name in names if name not in files]
    if missing:
        raise SystemExit(f"{len(missing)} pictures of the pairs have no tensor, the first is {missing[0]}")
    index = {name: i for i, name in enumerate(names)}
    x = np.stack([np.fromfile(args.features / files[name], np.float32) for name in names])
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    a, b = ([index[row[i]] for row in rows] for i in (0, 1))
    score = np.einsum("nd,nd->n", x[a], x[b]).astype(np.float64)  # or thresholds would be rounded to float32
    if args.threshold is not None:
        match = score >= args.threshold
        found = {
            "threshold": args.threshold,
            "accuracy": float((match == genuine).mean()),
            "fmr": float(match[~genuine].mean()),
            "fnmr": float((~match[genuine]).mean()),
        }
    else:
        accuracy = []
        for k in np.unique(fold):
            threshold = best_threshold(score[fold != k], genuine[fold != k])
            accuracy.append(((score[fold == k] >= threshold) == genuine[fold == k]).mean())
        sizes = [int((fold == k).sum()) for k in np.unique(fold)]
        mean = float(np.average(accuracy, weights=sizes))  # a fold counts by its pairs
        deviation = float(np.sqrt(np.average((np.array(accuracy) - mean) ** 2, weights=sizes)))
        found = {"accuracy": mean, "std": deviation, "folds": len(accuracy)}
    found["pairs"] = len(rows)
    return found


if __name__ == "__main__":
    main()
