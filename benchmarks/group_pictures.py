"""Recall by size of face in large group pictures made of real faces.

    python benchmarks/group_pictures.py --data ../shared/lfw-raw [--yunet FILE.onnx] [--scenes 2]

Each picture holds photographs of `--data` scaled so that their faces are 24 to 200 pixels high, as many of each size,
strewn without overlap over a ground of blurred photographs; 12 and 48 megapixels. A face counts as found when a
detection overlaps its box by an intersection over union of 0.4. Boxes are those MTCNN finds in the photographs at their
own size, where all are found. Each detector runs with its default and with the smallest face of 20 pixels. Writes
results/group_pictures.json and prints its table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np

from visavis.opencv import cv2
from visavis.vision import images
from visavis.vision.detection.detectors import choose, load_detector

SIZES = (24, 32, 40, 60, 80, 120, 200)
SHAPES = {"12 MP": (3000, 4000), "48 MP": (6000, 8000)}
EACH = 12


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--yunet", help="an .onnx file, to stand beside MTCNN")
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "group_pictures.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted((args.data / "images").glob("*/*"))
    rows: list[dict[str, Any]] = []
    for label, shape in SHAPES.items():
        scenes = [scene(files, shape, seed) for seed in range(args.scenes)]
        for name, model in (("mtcnn", None), ("yunet", args.yunet)):
            if name == "yunet" and model is None:
                continue
            for least in (None, 20):
                rows.append(measure(name, load_detector(name, model, min_face=least), scenes, label, least))
                print(line(rows[-1]), flush=True)
    harness.write(
        {**harness.about(threads=1), "faces_of_a_size": EACH * args.scenes, "rows": rows}, args.out, show=False
    )


def scene(files: list[Path], shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A group picture (H, W, 3), the boxes (N, 4) of its faces and their sizes (N,)."""
    rng = np.random.default_rng(seed)
    detector = load_detector("mtcnn")
    ground = images.read(files[rng.integers(len(files))])
    canvas = cv2.GaussianBlur(cv2.resize(ground, (shape[1] // 8, shape[0] // 8)), (0, 0), 12)
    canvas = np.asarray(cv2.resize(canvas, (shape[1], shape[0])), np.uint8)
    taken = np.zeros((shape[0] // 20, shape[1] // 20), bool)
    boxes, sizes = [], []
    for size in sorted(SIZES * EACH, reverse=True):
        photo = images.read(files[rng.integers(len(files))])
        faces = detector.detect(photo)
        box = faces.boxes[choose(faces, photo.shape)]
        scale = size / float(box[3] - box[1])
        small = images.resize(photo, (round(photo.shape[0] * scale), round(photo.shape[1] * scale)))
        left, top = place(taken, small.shape, rng)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        boxes.append((box + 0.5) * scale - 0.5 + np.array([left, top, left, top]))
        sizes.append(size)
    return canvas, np.array(boxes), np.array(sizes)


def place(taken: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """A free place for a photograph, in pixels; marks it as taken."""
    rows, columns = -(-shape[0] // 20) + 1, -(-shape[1] // 20) + 1
    while True:
        top, left = rng.integers(taken.shape[0] - rows), rng.integers(taken.shape[1] - columns)
        if not taken[top : top + rows, left : left + columns].any():
            taken[top : top + rows, left : left + columns] = True
            return int(left) * 20, int(top) * 20


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) with one box (4,)."""
    sides = np.minimum(a[:, 2:], b[2:]) - np.maximum(a[:, :2], b[:2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    return shared / (np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[2:] - b[:2]) - shared)


def measure(name: str, detector: Any, scenes: list[Any], label: str, least: int | None) -> dict[str, Any]:
    """Recall by size, detections that match no face, CPU seconds a picture."""
    hits, total, false, seconds = dict.fromkeys(SIZES, 0), dict.fromkeys(SIZES, 0), 0, 0.0
    for image, boxes, sizes in scenes:
        begun = time.process_time()
        found = detector.detect(image)
        seconds += time.process_time() - begun
        used = np.zeros(len(found), bool)
        for box, size in zip(boxes, sizes, strict=True):
            total[size] += 1
            share = np.where(used, 0, overlap(found.boxes, box)) if len(found) else np.zeros(1)
            if share.max() >= 0.4:
                hits[size] += 1
                used[share.argmax()] = True
        false += int((~used).sum())
    recall = {str(size): round(hits[size] / total[size], 3) for size in SIZES}
    return {
        "detector": name, "picture": label, "min_face": least or "default", "recall": recall, "false": false,
        "cpu_seconds": round(seconds / len(scenes), 2),
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    shares = " | ".join(f"{100 * share:.0f}" for share in row["recall"].values())
    head = f"| {row['picture']} | {row['detector']} | {row['min_face']} |"
    return f"{head} {shares} | {row['false']} | {row['cpu_seconds']} |"


if __name__ == "__main__":
    main()
