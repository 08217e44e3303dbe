"""Recall and landmark error of a detector on generated scenes, whose boxes and landmarks are known.

    visavis synth SCENES --identities 12 --images-per-identity 5 --scenes
    python benchmarks/detection.py SCENES [--detector mtcnn] [--detector-model PATH] [--images N]

A face counts as found when a detection overlaps its box by an intersection over union of 0.4. The landmark error is
the mean distance of the five points in parts of the distance between the eyes. Detections that match no face are
counted as false ones.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness
import numpy as np

from visavis.opencv import cv2
from visavis.types import Detector
from visavis.vision.detection.detectors import load_detector
from visavis.vision.images import read

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


def read_scenes(path: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Per picture, the box (4,) and landmarks (5, 2) of each face."""
    lines = path.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    numbers = [
        k for k, name in enumerate(columns) if name in ("left", "top", "right", "bottom", "x1", "y1", "x2", "y2")
    ]
    found = defaultdict(list)
    for line in lines[1:]:
        fields = line.split("\t")
        values = np.array([float(v) for v in fields[-14:]])
        assert len(numbers) >= 4
        found[fields[0]].append((values[:4], values[4:].reshape(5, 2)))
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) with one box (4,)."""
    sides = np.minimum(a[:, 2:], b[2:]) - np.maximum(a[:, :2], b[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    return shared / (np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[2:] - b[:2]) - shared)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--detector-model")
    parser.add_argument("--images", type=int, default=10**9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "detection.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    detector = load_detector(args.detector, args.detector_model)
    result = {"detector": args.detector, **measure(detector, args.scenes, args.images), **harness.about(threads=1)}
    harness.write(result, args.out)


def measure(detector: Detector, scenes_folder: Path, count: int) -> dict[str, Any]:
    """Recall, false detections, landmark error and CPU seconds over generated scenes."""
    scenes = dict(list(read_scenes(scenes_folder / "scenes.tsv").items())[:count])
    faces = hits = false = 0
    errors: list[float] = []
    sizes: list[tuple[float, bool]] = []
    seconds = 0.0
    for name, truth in scenes.items():
        image = read(scenes_folder / "images" / name.removeprefix("images/"))
        started = time.process_time()
        found = detector.detect(image)
        seconds += time.process_time() - started
        taken = np.zeros(len(found), bool)
        for box, points in truth:
            share = np.where(taken, 0, overlap(found.boxes, box)) if len(found) else np.zeros(1)
            best = int(share.argmax())
            hit = bool(share[best] >= 0.4)
            faces += 1
            hits += hit
            sizes.append((float(np.ptp(box[1::2])), hit))
            if hit:
                taken[best] = True
                eyes = float(np.linalg.norm(points[1] - points[0]))
                errors.append(float(np.linalg.norm(found.landmarks[best] - points, axis=1).mean()) / max(eyes, 1.0))
        false += int((~taken).sum())
    large = [hit for side, hit in sizes if side >= 60]
    return {
        "pictures": len(scenes), "faces": faces, "recall": hits / faces, "false": false,
        "recall_of_60_pixels": sum(large) / max(1, len(large)), "faces_of_60_pixels": len(large),
        "landmark_error": {"median": float(np.median(errors)), "mean": float(np.mean(errors)),
                           "p95": float(np.percentile(errors, 95))} if errors else None,
        "seconds_per_picture": seconds / len(scenes),
    }  # fmt: skip


if __name__ == "__main__":
    main()
