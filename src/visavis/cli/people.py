"""visavis people: a photo library by person."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from visavis.cli._detection import add_detection, detection_options

if TYPE_CHECKING:
    from visavis.deploy.photo_library.library import LibraryRun
    from visavis.deploy.photo_library.scan import Scan

EPILOG = """PEOPLE/people/NAME/...   the faces of each person, cut out; person-1, person-2 until somebody names them
PEOPLE/index.html        a page to look through, name, merge and split; it saves corrections.json
PEOPLE/corrections.json  put there, the next run applies it (and calls it corrections.applied.json)
PEOPLE/enroll.tsv        path TAB name: visavis enroll GALLERY PEOPLE/enroll.tsv --model MODEL --aligned
PEOPLE/others/...        faces that are like no other, or too poor to tell (small, blurred, cut off)
PEOPLE/library.db        what is known, embeddings too, not encrypted; readable by its owner only
Run it again over days: what is known is skipped, what a killed run had found is kept, people keep number and name."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of photographs, with folders in it or not")
    parser.add_argument("--out", metavar="PEOPLE", required=True, help="the folder to write and to go on from")
    parser.add_argument("--model", metavar="MODEL", required=True, help="model folder, run folder or .onnx")
    parser.add_argument(
        "--fmr", type=float, metavar="RATE", help="false match rate to group at (1e-3, or the strictest calibrated)"
    )
    parser.add_argument("--threshold", type=float, metavar="S", help="group at this cosine similarity instead")
    parser.add_argument(
        "--min-faces", type=int, default=2, metavar="N", help="faces from which a group is a person (2)"
    )
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned crops already")
    parser.add_argument(
        "--corrections", metavar="FILE", help="apply this file (PEOPLE/corrections.json where there is one)"
    )
    parser.add_argument("--prune", action="store_true", help="erase what came of files that are not in PHOTOS any more")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one per processor)")
    add_detection(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from visavis.data.sources.folder import find_images
    from visavis.deploy.operating_point import HOW_TO
    from visavis.deploy.photo_library.library import run_library
    from visavis.deploy.recognizer import Recognizer
    from visavis.errors import DataError
    from visavis.machine import usable_cores

    if args.min_faces < 2:
        raise DataError(f"--min-faces must be at least 2, got {args.min_faces}")
    if args.workers is not None and args.workers < 1:
        raise DataError(f"--workers must be 1 or more, got {args.workers}")
    root, out = Path(args.photos).resolve(), Path(args.out).resolve()
    if not root.is_dir():
        raise DataError(f"{args.photos}: expected a folder of photographs, there is none")
    if root.is_relative_to(out):
        raise DataError(f"{args.out}: PEOPLE must be another folder than PHOTOS, and not around it")
    names, skipped = find_images(root)
    paths = [path for path in (str(root / name) for name in names) if not Path(path).is_relative_to(out)]
    if not paths and not (out / "library.db").is_file():
        raise DataError(f"{args.photos}: no pictures in it; {len(skipped)} other entries")
    recognizer = Recognizer.load(args.model, threads=1, **detection_options(args))
    point = recognizer.point(fmr=args.fmr, threshold=args.threshold)
    if point is None:
        raise DataError(f"this model has no calibrated threshold to group at; {HOW_TO}, or give --threshold")
    looked_for = {"aligned": str(args.aligned), "min_face": str(args.min_face), "turn": args.turn,
                  "detector": str(args.detector and args.detector.partition("=")[0])}  # fmt: skip
    workers = max(1, min(args.workers or usable_cores(), len(paths)))
    with _Progress(len(paths)) as progress:
        done = run_library(
            recognizer, root, paths, out, threshold=point.threshold, min_size=args.min_faces, settings=looked_for,
            corrections_file=args.corrections, prune=args.prune, aligned=args.aligned, workers=workers,
            command=f"visavis people {args.photos} --out {args.out} --model {args.model}", progress=progress,
        )  # fmt: skip
    outside = [(name, reason) for name, reason in skipped if not (root / name).is_relative_to(out)]
    _tell(args, done, point.threshold, outside)
    return 2 if done.scan.unread and not done.faces else 0


class _Progress:
    """A bar where somebody looks on, a line every half minute where nobody does."""

    def __init__(self, total: int) -> None:
        import time

        from visavis.cli.progress import console, make_bar

        self.bar, self.total, self.clock, self.terminal = make_bar(), total, time.monotonic, console.is_terminal
        self.said = self.begun = self.clock()

    def __enter__(self) -> _Progress:
        self.bar.start()
        self.task = self.bar.add_task("pictures", total=self.total, detail="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, done: int, scan: Scan) -> None:
        import sys

        self.bar.update(self.task, completed=done, detail=f"{scan.faces} faces")
        if not self.terminal and self.clock() - self.said > 30:
            self.said = self.clock()
            rate = done / (self.said - self.begun)
            print(
                f"{done:,} of {self.total:,} pictures, {scan.faces:,} faces, {rate:.1f}/s", file=sys.stderr, flush=True
            )


def _tell(args: argparse.Namespace, done: LibraryRun, threshold: float, skipped: list[tuple[str, str]]) -> None:
    import json

    if args.json:
        values = {
            "new": done.scan.new, "known": done.scan.known, "pictures": done.images, "faces": done.faces,
            "people": done.grouping.people, "faces_of_people": done.grouping.faces,
            "like_no_other": done.grouping.alone, "poor": done.grouping.poor,
            "threshold": threshold, "corrected": done.corrected, "erased": done.erased, "missing": list(done.missing),
            "unread": [list(pair) for pair in done.scan.unread], "skipped": [list(pair) for pair in skipped],
        }  # fmt: skip
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    print(f"{done.scan.new:,} pictures looked at, {done.scan.known:,} known; the library has {done.images:,} with "
          f"{done.faces:,} faces")  # fmt: skip
    if done.corrected:
        print(f"corrections applied to {done.corrected:,} faces")
    print(f"{done.grouping.people:,} people with {done.grouping.faces:,} faces, {done.grouping.alone:,} faces like no "
          f"other, {done.grouping.poor:,} too poor to tell (threshold {threshold:.4f})")  # fmt: skip
    for title, entries in (("could not be read", done.scan.unread), ("left out", skipped)):
        for name, reason in entries[:10]:
            print(f"  {title}: {name}: {reason}")
        if len(entries) > 10:
            print(f"  ... {len(entries):,} {title} in all; --json lists them")
    if done.erased:
        print(f"{done.erased:,} faces of files that are gone erased")
    if done.missing:
        print(f"{len(done.missing):,} known files are not there any more; to erase their faces: --prune")
    print(f"look through: {args.out}/index.html")
    print(f"enroll: visavis enroll GALLERY {args.out}/enroll.tsv --model {args.model} --aligned")
