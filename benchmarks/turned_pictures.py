"""Photographs turned by 90, 180 and 270 degrees: how many are embedded as the upright ones, and what upright ones pay.

    python benchmarks/turned_pictures.py --model MODEL --data ../shared/lfw-raw [--images N] [--auto-only]

A turned photograph counts as embedded like the upright one when the cosine of the two embeddings is at least 0.99. The
cost is CPU time of detection with `auto` over that with `never`, on the upright photographs. Writes
results/turned_pictures.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import harness
import numpy as np

from visavis.deploy.recognizer import Recognizer
from visavis.opencv import cv2
from visavis.vision import images
from visavis.vision.detection.turns import detect_turned


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10**9, help="about so many, evenly over the set")
    parser.add_argument("--auto-only", action="store_true", help="leave out what not turning makes of turned ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "turned_pictures.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    recognizer = Recognizer.load(args.model, threads=1)
    plain = Recognizer(recognizer.embedder, spec=recognizer.spec, detector=recognizer.detector, turn="never")
    files = sorted((args.data / "images").glob("*/*"))
    files = files[:: max(1, len(files) // args.images)]
    seconds = {"never": 0.0, "auto": 0.0}
    ways = {"auto": recognizer} if args.auto_only else {"never": plain, "auto": recognizer}
    same = {how: dict.fromkeys((90, 180, 270), 0) for how in ways}
    upright_turned, missed = 0, []
    for done, path in enumerate(files):
        if done and done % 50 == 0:
            print(f"{done} of {len(files)}, missed: {missed}", file=sys.stderr, flush=True)
        image = images.read(path)
        for how in ("never", "auto"):
            begun = time.process_time()
            _, degrees = detect_turned(recognizer.detector, image, turn=how)
            seconds[how] += time.process_time() - begun
        upright_turned += degrees != 0
        reference = plain.best(image).embedding
        for quarters in (1, 2, 3):
            came = np.ascontiguousarray(np.rot90(image, -quarters))
            for how, one in ways.items():
                found = one.get(came, max_faces=1)
                hit = bool(found) and float(found[0].embedding @ reference) >= 0.99
                same[how][90 * quarters] += hit
                if how == "auto" and not hit:
                    missed.append(f"{path.parent.name}/{path.name} by {90 * quarters}")
    count = len(files)
    result = {
        "what": "cosine of at least 0.99 between a turned photograph's embedding and the upright one's",
        "pictures": count,
        "share": {how: {k: n / count for k, n in part.items()} for how, part in same.items()},
        "share_of_all_turned": {how: sum(part.values()) / (3 * count) for how, part in same.items()},
        "upright_taken_for_turned": upright_turned,
        "upright_cpu": {how: value / count for how, value in seconds.items()},
        "upright_cost": seconds["auto"] / seconds["never"],
        "missed": missed,
        **harness.about(threads=1),
    }
    harness.write(result, args.out)


if __name__ == "__main__":
    main()
