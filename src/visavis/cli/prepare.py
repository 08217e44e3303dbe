"""`visavis prepare SRC DST`: photographs become aligned crops."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.cli._detection import add_detection
from visavis.machine import usable_cores

if TYPE_CHECKING:
    from visavis.data.prepare import Account
    from visavis.data.sources.base import Source
    from visavis.vision.alignment import Antialias, Points


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="folder per identity, .rec, .bin or a list of pictures")
    parser.add_argument("target", metavar="DST", help="folder to write: images/, manifest.jsonl, rejects.jpg")
    parser.add_argument(
        "--model", metavar="MODEL", help="crops as this model's card wants them: size, template, antialias"
    )
    parser.add_argument("--size", help="crop as HEIGHTxWIDTH (default 112x112; 112x96 is SphereFace's)")
    parser.add_argument("--template", choices=["arcface", "sphereface"], help="default: told from the size")
    parser.add_argument(
        "--antialias",
        choices=["box", "area", "none"],
        help="how faces over twice the crop are reduced (default box: by whole pixels)",
    )
    parser.add_argument(
        "--fit",
        choices=["crop", "image"],
        default="crop",
        help="where the landmarks' error is least (image: as MATLAB's cp2tform, S2)",
    )
    parser.add_argument("--padding", type=float, default=0.0, help="template pixels kept around the frame (S2: 2)")
    parser.add_argument("--format", default="jpg", choices=["jpg", "png", "webp"], help="of the crops (default jpg)")
    parser.add_argument("--quality", type=int, default=95, help="of jpg and webp (default 95)")
    parser.add_argument("--landmarks", metavar="LIST", help="take five points a picture from a list, detect nothing")
    parser.add_argument("--detector", default="mtcnn", choices=["mtcnn", "yunet", "scrfd"])
    parser.add_argument(
        "--detector-model", metavar="PATH", help=".onnx of scrfd or another yunet, or a folder of MTCNN's three"
    )
    add_detection(parser, named=False)
    parser.add_argument("--min-score", type=float, default=0.0, help="reject faces the detector is less sure of")
    parser.add_argument("--all-faces", action="store_true", help="write every face, not only the large central one")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged records of a .rec out")
    parser.add_argument(
        "--youtube-faces", action="store_true", help="SRC is a YouTube Faces tree (DeepID's crop and split)"
    )
    parser.add_argument("--legacy", action="store_true", help="with --youtube-faces: crop and split as the reference")
    parser.add_argument("--seed", type=int, default=7, help="with --youtube-faces: of the split (default 7)")


def run(args: argparse.Namespace) -> int:
    if args.youtube_faces:
        return _youtube_faces(args)
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.data.prepare import PrepareSettings, copy_lists, landmark_line, prepare
    from visavis.data.sources import open_source
    from visavis.data.sources.lists import read_list
    from visavis.errors import DataError
    from visavis.files import write_atomically

    size, template, antialias = _crop(args)
    if not 1 <= args.quality <= 100:
        raise DataError(f"--quality must lie in 1 … 100, got {args.quality}")
    settings = PrepareSettings(
        size, template, args.padding, "." + args.format, args.quality, args.all_faces, args.detector,
        args.detector_model, args.min_face, args.min_score, antialias=antialias, turn=args.turn, fit=args.fit,
    )  # fmt: skip
    source = open_source(args.source, skip_damaged=args.skip_damaged)
    target = Path(args.target)
    if target.resolve() == source.path.resolve():
        raise DataError(f"{target}: SRC and DST are the same folder")
    listed = read_list(args.landmarks) if args.landmarks else None
    rejects, crops, faces, turned = [], 0, Counter(), Counter()
    lines: list[str] = []
    with embedding_bar("preparing") as show:
        for done, account in enumerate(prepare(source, target, settings, landmarks=listed, workers=args.workers), 1):
            crops += len(account.outputs)
            faces[min(account.faces, 2)] += 1
            turned[account.turned] += 1
            lines.append(landmark_line(account, int(source.labels[source.index_of(account.source)])))
            if account.reject:
                rejects.append(account)
            show(done, len(source))
    if not args.landmarks:
        write_atomically(target / "source_landmarks.txt", "".join(lines).encode())
    copied = copy_lists(Path(args.source), target)
    print(
        f"{len(source):,} pictures of {len(source.identities):,} identities -> {crops:,} crops in {target / 'images'}"
    )
    print(f"faces found in {len(source) - len(rejects):,} ({(1 - len(rejects) / len(source)):.2%}); "
          f"more than one in {faces[2]:,}; the list of everything: {target / 'manifest.jsonl'}")  # fmt: skip
    if found := sum(turned.values()) - turned[0]:
        print(f"{found:,} pictures did not stand upright: "
              f"{', '.join(f'{n:,} turned by {k}°' for k, n in sorted(turned.items()) if k)}")  # fmt: skip
    if copied:
        print(f"copied beside them: {', '.join(copied)}")
    if source.skipped:
        name, reason = source.skipped[0]
        print(f"{len(source.skipped):,} entries of SRC are no pictures, first: {name} ({reason})")
    if rejects:
        _report(source, rejects, target)
    return 0


def _crop(args: argparse.Namespace) -> tuple[tuple[int, int], str | Points, Antialias]:
    """Size, template and reduction of the crops: the model's where one is named, else as told."""
    from visavis.deploy.recognizer import card_of
    from visavis.errors import DataError

    if not args.model:
        size = parse_size(args.size or "112x112")
        template = args.template or ("sphereface" if size[0] * 96 == size[1] * 112 else "arcface")
        return size, template, args.antialias or "box"
    told = [f"--{name}" for name in ("size", "template", "padding", "antialias") if getattr(args, name)]
    if told:
        raise DataError(f"--model says the crops already; leave out {', '.join(told)}")
    spec = card_of(args.model).preprocess
    return spec.size, spec.template, spec.antialias


def parse_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH in pixels."""
    from visavis.errors import DataError

    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and 8 <= int(p) <= 2048 for p in parts):
        raise DataError(f"--size wants HEIGHTxWIDTH with sides in [8, 2048], like 112x112, got {text!r}")
    return int(parts[0]), int(parts[1])


def _report(source: Source, rejects: list[Account], target: Path) -> None:
    from visavis.data.contact_sheets import as_jpeg, contact_sheet
    from visavis.errors import DataError
    from visavis.files import write_atomically

    reasons = Counter(account.reject.split(" (")[0].split(":")[0] for account in rejects)
    for reason, count in reasons.most_common(8):
        print(f"  rejected {count:,}: {reason}")
    images = []
    for account in rejects[:400]:
        try:
            images.append(source.image(source.index_of(account.source)))
        except DataError:
            images.append(None)
    captions = [account.source for account in rejects[:400]]
    write_atomically(target / "rejects.jpg", as_jpeg(contact_sheet(images, captions)))
    print(f"contact sheet of {len(images)} rejects: {target / 'rejects.jpg'}")


def _youtube_faces(args: argparse.Namespace) -> int:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.data.sources.youtube_faces import prepare_youtube_faces

    with embedding_bar("preparing") as show:
        done = prepare_youtube_faces(
            args.source, args.target, seed=args.seed, legacy=args.legacy, workers=args.workers, progress=show
        )
    lists, target = done.split, Path(args.target)
    print(f"{done.frames:,} frames -> {len(lists.train):,} to train and {len(lists.valid):,} to validate on, of "
          f"{len(lists.people):,} people; {len(lists.pairs):,} pairs of {len(lists.test_people):,} others")  # fmt: skip
    print(f"{target / 'images'}: crops of 47 × 55; lists beside it: train.txt, valid.txt, pairs.txt, split.json")
    if lists.pairs_within_a_clip:
        print(f"{lists.pairs_within_a_clip:,} genuine pairs are of one clip: they flatter any model")
    for what, found in (("people are in no list", lists.unused), ("frames could not be read", done.unreadable)):
        if found:
            name, reason = next(iter(found.items()))
            print(f"{len(found):,} {what}, first: {name} ({reason}); all in {target / 'split.json'}")
    if done.skipped:
        print(f"{done.skipped:,} entries of SRC are no frames")
    print(f"next: visavis train deepid --data {target / 'train.txt'}")
    return 0
