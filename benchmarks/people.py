"""A photo library by person: pair precision and recall of `visavis people`, its speed, and 100,000 pictures.

    visavis import ../shared/weights/mobilefacenet_casia_112x96.ckpt --out mbf
    visavis export mbf --format onnx
    python benchmarks/people.py --model mbf/model.onnx --data ../shared/lfw-dev --photographs ../shared/lfw-raw

Each set is a library made by `run_library`, as the verb does, at the threshold where the FMR of all pairs of other
people is 1e-3 and 1e-4:

- real people: those of the folds of `--data`/pairs.txt, aligned crops, at most 16 of a person; the threshold is fixed
  on the people of no fold,
- photographs: `--photographs`, whole, searched for faces; judged are the large and central ones, whose the folder says,
  at the same thresholds; the faces in the background are counted, each as somebody of its own ("with background"),
- generated people: 100 of 6 pictures, the threshold fixed on 60 others.

A pair is joined when both are in one group; precision is the share of joined pairs that are of one person, recall the
share of one person's pairs that are joined. Beside it the same embeddings are grouped by average linkage over all pairs
(SciPy) at the same threshold and by HDBSCAN (scikit-learn), which takes none. Then `--images` files of a few bytes,
whose "faces" are drawn from their content, ten of a person, go through all of a library but the network. Writes
results/people.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from clustering import hdbscan, judge, pair_threshold, ways
from harness import RESULTS, about, write
from templates import MOST, embed

from visavis.deploy.face import Face
from visavis.deploy.photo_library.library import run_library
from visavis.deploy.quality import Quality
from visavis.deploy.recognizer import Recognizer
from visavis.models.card import ModelCard
from visavis.synthetic.parallel import people
from visavis.vision import images
from visavis.vision.preprocessing import PreprocessSpec

RATES = (1e-3, 1e-4)
OTHERS, GENERATED, EACH = 60, 100, 6


def library(
    recognizer: Recognizer, root: Path, paths: list[str], threshold: float, out: Path, *, aligned: bool
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Rows (path, person or −id, whether it is its picture's first face, embedding), and what the run took."""
    begun = time.perf_counter()
    done = run_library(recognizer, root, paths, out, threshold=threshold, aligned=aligned)
    took = {"pictures/s": len(paths) / (time.perf_counter() - begun), "people": done.grouping.people,
            "poor faces": done.grouping.poor}  # fmt: skip
    query = (
        "SELECT (SELECT min(path) FROM files WHERE digest = f.digest), coalesce(person, -id), "
        "id = (SELECT min(id) FROM faces WHERE digest = f.digest), embedding FROM faces f ORDER BY id"
    )
    with sqlite3.connect(out / "library.db") as db:
        rows = db.execute(query).fetchall()
    db.close()
    return rows, took


def measure(
    recognizer: Recognizer, root: Path, paths: list[str], thresholds: dict[float, float], *, aligned: bool
) -> dict[str, Any]:
    """Each way of grouping the faces the pictures are about, at each threshold."""
    found: dict[str, Any] = {"pictures": len(paths)}
    with tempfile.TemporaryDirectory() as folder:
        for rate, threshold in thresholds.items():  # the second time every picture is known
            rows, took = library(recognizer, root, paths, threshold, Path(folder) / "people", aligned=aligned)
            first = np.array([bool(row[2]) for row in rows])
            who = np.array([Path(row[0]).parent.name if row[2] else f"somebody {i}" for i, row in enumerate(rows)])
            label, vectors = np.array([row[1] for row in rows]), np.stack([np.frombuffer(row[3], "f4") for row in rows])
            if "people" not in found:
                found |= {"people": len(np.unique(who[first])), "faces": len(rows), "first run": took}
                found["HDBSCAN"] = judge(hdbscan(vectors[first]), who[first])
            plain = ways(vectors[first], threshold)["average linkage over all pairs"]
            found[f"FMR {rate:g}"] = {
                "threshold": threshold,
                "visavis people": judge(label[first], who[first]),
                "average linkage over all pairs": judge(plain(), who[first]),
            }
            if not first.all():
                everything = ways(vectors, threshold)["average linkage over all pairs"]
                found[f"FMR {rate:g}"]["with background"] = {
                    "visavis people": judge(label, who),
                    "average linkage over all pairs": judge(everything(), who),
                    "HDBSCAN": judge(hdbscan(vectors), who),
                }
    return found


def fold_people(data: Path) -> set[str]:
    """The people of the folds."""
    fields = [line.split("\t") for line in (data / "pairs.txt").read_text(encoding="utf-8").splitlines()[1:]]
    return {name for row in fields for name in ([row[0]] if len(row) == 3 else [row[0], row[2]])}


def real(recognizer: Recognizer, data: Path, photographs: Path) -> dict[str, Any]:
    """The people of the folds as crops, and photographs as they are."""
    inside = fold_people(data)
    folders = {folder.name: sorted(folder.iterdir())[:MOST] for folder in sorted((data / "images").iterdir())}
    outside = [files for name, files in folders.items() if name not in inside]
    rows = embed(recognizer, [file for files in outside for file in files])
    person = np.repeat(np.arange(len(outside)), [len(files) for files in outside])
    thresholds = {rate: pair_threshold(rows, person, rate) for rate in RATES}
    crops = [str(file.resolve()) for name, files in folders.items() if name in inside for file in files]
    whole = sorted(str(file.resolve()) for file in (photographs / "images").rglob("*.jpg"))
    return {
        "real people": measure(recognizer, data.resolve(), crops, thresholds, aligned=True),
        "photographs": measure(recognizer, photographs.resolve(), whole, thresholds, aligned=False),
    }


def generated(recognizer: Recognizer) -> dict[str, Any]:
    """Generated people, the threshold fixed on others."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pictures"
        for number, (crops, _) in enumerate(people(0, range(OTHERS + GENERATED), EACH)):
            (root / f"{number:04d}").mkdir(parents=True)
            for i, crop in enumerate(crops):
                images.write(root / f"{number:04d}" / f"{i}.png", crop)
        files = sorted(root.rglob("*.png"))
        others = embed(recognizer, files[: OTHERS * EACH])
        person = np.repeat(np.arange(OTHERS), EACH)
        thresholds = {rate: pair_threshold(others, person, rate) for rate in RATES}
        return measure(recognizer, root, [str(file) for file in files[OTHERS * EACH :]], thresholds, aligned=True)


class Drawn:
    """In a recognizer's place: a picture holds a number, its face is drawn from it."""

    dim = 128

    def __init__(self) -> None:
        card = ModelCard("drawn", "none", self.dim, PreprocessSpec(), weights_digest="d" * 64)
        self.identity = Recognizer(self, spec=card.preprocess, card=card).identity
        self.crop = next(iter(people(0, range(1), 1)))[0][0]
        self.quality = Quality(0.9, (), 50.0, 0.1, 0.0, 0.0, 0.0, 1.0)

    def embed(self, crops: Any) -> Any:
        """Not needed: faces come embedded."""
        raise NotImplementedError

    def get(self, data: bytes, *, aligned: bool, name: str) -> list[Face]:
        """One face, ten numbers to a person."""
        number = int(data)
        center = np.random.default_rng([1, number // 10]).standard_normal(self.dim)
        row = center + 1.2 * np.random.default_rng([2, number]).standard_normal(self.dim)
        row = (row / np.linalg.norm(row)).astype(np.float32)
        box = np.array([0, 0, 111, 111], np.float32)
        points = np.zeros((5, 2), np.float32)
        return [Face(box, 1.0, points, self.crop, self.quality, embedding=row)]


def many(count: int) -> dict[str, Any]:
    """A library of `count` pictures, looked at once and then again when all are known."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "pictures", Path(folder) / "people"
        root.mkdir()
        paths = [str(root / f"{i}.jpg") for i in range(count)]
        for i, path in enumerate(paths):
            Path(path).write_text(str(i))
        drawn: Any = Drawn()
        peak, marks, begun = [peak_gb()], [], time.perf_counter()

        def progress(done: int, scan: Any) -> None:
            if done % (count // 4) == 0:
                marks.append(round(peak_gb(), 3))

        done = run_library(drawn, root, paths, out, threshold=0.28, progress=progress)
        first = time.perf_counter() - begun
        peak.append(peak_gb())
        begun = time.perf_counter()
        again = run_library(drawn, root, paths, out, threshold=0.28)
        return {
            "pictures": count, "people": done.grouping.people, "known the second time": again.scan.known,
            "memory before, GB": peak[0], "after each quarter of looking, GB": marks[:4], "most memory, GB": peak[1],
            "first run without the network, s": first, "second run, s": time.perf_counter() - begun,
            "library.db, GB": (out / "library.db").stat().st_size / 1e9,
            "page's data, GB": (out / "people.js").stat().st_size / 1e9,
        }  # fmt: skip


def peak_gb() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path, help="a folder with pairs.txt and images/ of aligned 112×112 crops")
    parser.add_argument("--photographs", type=Path, help="a folder with images/ of whole photographs")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--only-many", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "people.json")
    args = parser.parse_args()
    if args.only_many:
        print(json.dumps(many(args.images)))
        return
    command = [sys.executable, __file__, "--only-many", "--images", str(args.images)]
    large = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    recognizer = Recognizer.load(args.model, threads=1)
    settings = {"model": Path(args.model).parent.name, "data": args.data.name, "photographs": args.photographs.name}
    found = real(recognizer, args.data, args.photographs)
    write(
        {**about(threads=1, **settings), **found, "generated people": generated(recognizer), "large": large}, args.out
    )


if __name__ == "__main__":
    main()
