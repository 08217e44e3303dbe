"""The packaged models through the command line: accuracy, thresholds, size and time; the figures their cards ship.

    python benchmarks/packaged_models.py ../shared/lfw-raw --work DIR [--models NAME ...] [--detectors NAME ...]
        [--save DETECTOR]

For each detector and model: `visavis prepare SRC --model MODEL` (photographs to crops), `visavis evaluate` on
SRC/pairs.txt, and `visavis calibrate` on all pairs of pictures of all people, its intervals over subjects. Times are
CPU seconds of one thread. --save writes the thresholds found with one detector into the cards that ship.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np

from visavis.files import write_atomically
from visavis.models.card import read_card
from visavis.models.find import find_model
from visavis.models.load import load_embedder
from visavis.models.packaged import PACKAGED, packaged_card

CARDS = Path(__file__).resolve().parents[1] / "src" / "visavis" / "models" / "packaged_cards"
KEPT = (
    "threshold", "interval", "fmr", "fmr_interval", "tmr", "tmr_interval", "genuine", "impostor", "comparisons",
    "calibration", "protocol",
)  # fmt: skip


def visavis(*words: object) -> None:
    """Run a verb as a user does."""
    print("visavis", *words, flush=True)
    subprocess.run([sys.executable, "-m", "visavis", *map(str, words)], check=True)


def measure(model: str, detector: str, source: Path, work: Path) -> dict[str, Any]:
    """All figures of a model behind a detector."""
    crops, pairs = work / f"crops-{detector}-{model}", work / f"{detector}-{model}.pairs.json"
    calibrated = work / f"calibrated-{detector}-{model}"
    if not crops.exists():
        visavis("prepare", source, crops, "--detector", detector, "--model", model, "--workers", 1)
    visavis(
        "evaluate", model, "--protocol", "pairs", "--data", crops, "--pairs", source / "pairs.txt", "--json", pairs,
        "--no-baseline", "--cache", work / "cache",
    )  # fmt: skip
    if not calibrated.exists():
        visavis("calibrate", model, crops, "--aligned", "--fmr", "1e-2", "1e-3", "1e-4", "--out", calibrated)
    found = json.loads(pairs.read_text())
    scores = np.load(pairs.with_suffix(".scores.npz"))
    thresholds = {
        rate: {key: entry[key] for key in KEPT if key in entry}
        for rate, entry in read_card(calibrated).thresholds.items()
    }
    at = {
        rate: float(np.mean((scores["similarity"] >= entry["threshold"]) == scores["genuine"].astype(bool)))
        for rate, entry in thresholds.items()
    }
    levels = np.unique(scores["similarity"])
    best = max(float(np.mean((scores["similarity"] >= t) == scores["genuine"].astype(bool))) for t in levels)
    return {
        "pairs": {"comparisons": len(scores["genuine"]), "folds": found["accuracy"], "best": best, "at": at},
        "thresholds": thresholds,
    }


def times(model: str) -> dict[str, float]:
    """CPU seconds of loading and milliseconds of a face, one thread, the card's rule for the mirrored picture."""
    find_model(model)
    started = time.process_time()
    embedder = load_embedder(model, threads=1)
    loading = time.process_time() - started
    crop = np.zeros((1, *packaged_card(model).preprocess.size, 3), np.uint8)
    seconds = harness.take_turns({"face": lambda: embedder.embed(crop)}, 9, warm=2)["face"]
    return {"load_seconds": loading, "face_ms": 1000 * seconds["median"]}


def save(model: str, thresholds: dict[str, Any], said: str) -> None:
    """Into the card that ships."""
    path = CARDS / f"{model}.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["thresholds"] = {
        rate: {**entry, "digest": card["weights_digest"], "measured_on": said} for rate, entry in thresholds.items()
    }
    write_atomically(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="crops and reports are kept here")
    parser.add_argument("--models", nargs="+", default=list(PACKAGED))
    parser.add_argument("--detectors", nargs="+", default=["mtcnn", "yunet"])
    parser.add_argument("--save", metavar="DETECTOR")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "packaged_models.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pictures = sorted(args.source.rglob("*.jpg"))
    people = len({path.parent for path in pictures})
    figures: dict[str, Any] = {}
    for model in args.models:
        size = PACKAGED[model].file.checked(model).stat().st_size
        figures[model] = {"bytes": size, **times(model), "detectors": {}}
        for detector in args.detectors:
            figures[model]["detectors"][detector] = measure(model, detector, args.source, args.work)
        if args.save:
            said = (
                f"all pairs of {len(pictures)} photographs of {people} people of LFW (adults, mostly frontal, of the "
                f"press), faces found by {args.save}; benchmarks/packaged_models.py"
            )
            save(model, figures[model]["detectors"][args.save]["thresholds"], said)
    found = {"about": harness.about(threads=1, source=args.source.name), "models": figures}
    write_atomically(args.out, (json.dumps(found, indent=2) + "\n").encode())
    for model, entry in figures.items():
        for detector, row in entry["detectors"].items():
            rates = ", ".join(f"{r}: {100 * t['tmr']:.2f} %" for r, t in row["thresholds"].items())
            best = f"{100 * row['pairs']['best']:.2f} %"
            print(f"{model:12} {detector:6} best {best}, TMR {rates}; {entry['face_ms']:.1f} ms a face")


if __name__ == "__main__":
    main()
