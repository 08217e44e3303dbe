"""How a large face is best reduced, judged on real ones: sampled, averaged to the crop's scale, or by whole pixels.

    visavis import MOBILEFACENET.ckpt --out mbf
    python benchmarks/alignment.py mbf ../shared/lfw-raw

Photographs (a folder per person) are used as they are, and enlarged three times as a camera of more pixels would have
shown them: smooth (cubic), and with that camera's grain (normal noise of 10 levels a pixel). Landmarks are found once,
in the photographs as they are. Genuine and impostor pairs are all pairs of pictures; a way's TMR is taken at its own
threshold for the FMR, its difference to `none` with an interval over subjects. `faithful` is the mean cosine to the
crop of the photograph as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import harness
import numpy as np

from visavis.data.sources import open_source
from visavis.metrics.error_rates import ErrorCurve
from visavis.metrics.intervals import subject_difference
from visavis.models.load import load_embedder
from visavis.opencv import cv2
from visavis.vision.alignment import align, estimate_similarity, template_points
from visavis.vision.detection.detectors import choose, load_detector

WAYS = ("none", "area", "box")
FMRS = (1e-2, 1e-3, 1e-4)
KINDS = {"as they are": (1, 0.0), "3x smooth": (3, 0.0), "3x with grain": (3, 10.0)}


def enlarged(image: np.ndarray, points: np.ndarray, factor: int, grain: float, seed: int):
    """A photograph of `factor` times as many pixels a side, and where its landmarks (5, 2) are then."""
    if factor == 1:
        return image, points
    large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(seed).normal(0, grain, large.shape) if grain else 0
    return np.clip(large + noise, 0, 255).round().astype(np.uint8), (points + 0.5) * factor - 0.5


def scores(vectors: np.ndarray, labels: np.ndarray):
    """Similarities of all pairs, whether they are genuine, and the first one's subject."""
    a, b = np.triu_indices(len(vectors), 1)
    return np.einsum("nd,nd->n", vectors[a], vectors[b]), labels[a] == labels[b], labels[a]


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=10**9)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "alignment.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    source, detector, embedder = open_source(args.photographs), load_detector(), load_embedder(args.model)
    spec = embedder.spec  # pyright: ignore[reportAttributeAccessIssue]
    images = [source.image(i) for i in range(min(args.images, len(source)))]
    faces = [detector.detect(image) for image in images]
    good = [i for i, found in enumerate(faces) if len(found)]
    points = {i: faces[i].landmarks[choose(faces[i], images[i].shape)].astype(float) for i in good}
    labels = source.labels[good]
    target = template_points(spec.template, spec.size)
    result, plain = {}, None
    for kind, (factor, grain) in KINDS.items():
        crops = {way: [] for way in WAYS}
        scale = []
        for i in good:
            image, landmarks = enlarged(images[i], points[i], factor, grain, i)
            scale.append(float(np.hypot(*estimate_similarity(landmarks, target)[:, 0])))
            for way in WAYS:
                crop = align(image, landmarks, template=spec.template, size=spec.size, antialias=way)
                crops[way].append(crop)
        rows = {"scale": {"min": min(scale), "median": float(np.median(scale)), "max": max(scale)}}
        hits = {}
        for way in WAYS:
            vectors = embedder.embed(np.stack(crops[way]))
            plain = vectors if plain is None else plain
            similarity, genuine, subject = scores(vectors, labels)
            curve = ErrorCurve(np.sort(similarity[genuine]), np.sort(similarity[~genuine]))
            at = {f"{fmr:.0e}": curve.at_fmr(fmr) for fmr in FMRS}
            hits[way] = {name: similarity[genuine] >= p.threshold for name, p in at.items()}
            spread = np.sqrt((curve.genuine.var() + curve.impostor.var()) / 2)
            rows[way] = {
                "tmr": {name: p.tmr for name, p in at.items()},
                "eer": curve.eer,
                "d_prime": float((curve.genuine.mean() - curve.impostor.mean()) / spread),
                "faithful": float((vectors * plain).sum(1).mean()),
            }
            if way != "none":
                rows[way]["tmr_minus_none"] = {
                    name: subject_difference(hits["none"][name], hits[way][name], subject[genuine], replicates=2000)
                    for name in at
                }
        rows["pairs"] = {"genuine": int(genuine.sum()), "impostor": int((~genuine).sum())}
        result[kind] = rows
    harness.write({**harness.about(images=len(good)), "kinds": result}, args.out)


if __name__ == "__main__":
    main()
