"""The detectors beside each other, so that the default is chosen by a table: recall, landmarks, verification, time.

    visavis synth SCENES --identities 12 --images-per-identity 5 --scenes
    python benchmarks/detectors.py --data ../shared/lfw-raw --scenes SCENES [--model sface] [--images N]

For each detector: the photographs of `--data` in which it finds a face, CPU milliseconds each; the figures of `--model`
on the pairs of `--data`, its crops aligned by that detector's landmarks (a photograph without a face is a failure to
acquire); recall and landmark error on generated scenes; recall by size of face in a group picture of 12 megapixels,
whose boxes are those MTCNN finds in the photographs at their own size. Writes results/detectors.json, prints a table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import detection
import group_images
import harness
import numpy as np

from visavis.data.pair_lists.reader import read_pairs
from visavis.data.sources import open_source
from visavis.metrics.similarity import unit_rows
from visavis.metrics.verification import verify_pairs
from visavis.models.load import load_embedder
from visavis.opencv import cv2
from visavis.types import Detector
from visavis.vision.alignment import align
from visavis.vision.detection.detectors import choose, load_detector

DETECTORS = ("mtcnn", "yunet")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--model", default="sface")
    parser.add_argument("--images", type=int, default=10**9, help="of the scenes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "detectors.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    embedder = load_embedder(args.model, threads=1)
    files = sorted((args.data / "images").glob("*/*"))
    group = [group_images.scene(files, (3000, 4000), 0)]
    rows = {}
    for name in DETECTORS:
        rows[name] = {
            **photographs(load_detector(name), args.data, embedder),
            "scenes": detection.measure(load_detector(name), args.scenes, args.images),
            "group_12_megapixels": {
                str(least or "default"): group_images.measure(
                    name, load_detector(name, min_face=least), group, "12 MP", least
                )
                for least in (None, 20)
            },
        }
        print(line(name, rows[name]), flush=True)
    harness.write({"model": args.model, "detectors": rows, **harness.about(threads=1)}, args.out, show=False)


def photographs(detector: Detector, data: Path, embedder: Any) -> dict[str, Any]:
    """How many photographs show a face to the detector, its CPU time, and the pairs judged on its crops."""
    pairs, source = read_pairs(data / "pairs.txt"), open_source(data)
    vectors = np.full((len(pairs.images), embedder.dim), np.nan, np.float32)
    seconds, missed, crops, places = 0.0, [], [], []
    for place, name in enumerate(pairs.images):
        image = source.image(source.index_of(name))
        begun = time.process_time()
        found = detector.detect(image)
        seconds += time.process_time() - begun
        if not len(found):
            missed.append(name)
            continue
        spec = embedder.spec
        points = found.landmarks[choose(found, image.shape)]
        crops.append(align(image, points, template=spec.template, size=spec.size, antialias=spec.antialias))
        places.append(place)
    vectors[places] = unit_rows(embedder.embed(np.stack(crops)))
    figures = verify_pairs(vectors, pairs)
    return {
        "photographs": len(pairs.images),
        "found": len(places) / len(pairs.images),
        "missed": missed,
        "cpu_ms": 1e3 * seconds / len(pairs.images),
        "verification": {
            "pairs": len(pairs),
            "accuracy": figures.accuracy,
            "eer": figures.eer,
            "auc": figures.auc,
            "interval": figures.to_dict()["accuracy"]["interval"],
        },
    }


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    scenes, judged, group = row["scenes"], row["verification"], row["group_12_megapixels"]
    by_size = ", ".join(f"{size}: {100 * share:.0f}" for size, share in group["20"]["recall"].items())
    return (
        f"| {name} | {100 * row['found']:.2f} % | {row['cpu_ms']:.1f} | {100 * judged['accuracy']:.2f} % | "
        f"{100 * judged['eer']:.2f} % | {100 * scenes['recall']:.1f} % | {scenes['false']} | "
        f"{100 * scenes['landmark_error']['median']:.1f} % | {1e3 * scenes['seconds_per_picture']:.0f} | {by_size} | "
        f"{group['20']['cpu_seconds']} |"
    )


if __name__ == "__main__":
    main()
