"""`visavis synth OUT`: write generated faces, aligned or in scenes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

EPILOG = """OUT/images/id_000000/000.jpg ...  aligned faces, a folder per identity
OUT/landmarks.txt                 TAB: path, x1 y1 ... x5 y5 (left eye, right eye, nose tip, mouth corners)
OUT/pairs.txt                     with --pairs: a line "folds size", then TAB: path, path, 1 or 0
OUT/images/scene_000000.jpg ...   with --scenes: several faces a picture, not aligned
OUT/scenes.tsv                    with --scenes: a line per face; its first line names the columns
OUT/videos/video_000000.avi ...   with --clips: two people a video, who come, go and pass each other, K frames each
OUT/tracks.tsv                    with --clips: a line per face and frame; its first line names the columns
OUT/aligned_images_DB/...         with --youtube-faces: id_000000/0/0.1.jpg, a folder per person and clip
The same seed gives the same pictures whatever the number of workers."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument("--identities", type=int, metavar="N", help="how many people")
    parser.add_argument("--images-per-identity", type=int, metavar="K", help="pictures of each")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the world of people (default: 0)")
    parser.add_argument("--size", type=int, default=112, metavar="PX", help="side, 16 to 1024 (default: 112)")
    parser.add_argument(
        "--difficulty", type=float, default=1.0, metavar="D", help="0 (passport photo) to 3 (default: 1)"
    )
    parser.add_argument("--first-identity", type=int, default=0, metavar="I", help="number of the first person")
    parser.add_argument("--pairs", type=int, metavar="N", help="write pairs.txt: N pairs, half of them genuine")
    parser.add_argument(
        "--folds", type=int, default=10, metavar="F", help="its folds, which share nobody (default: 10)"
    )
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one per processor)")
    parser.add_argument("--scenes", action="store_true", help="write un-aligned pictures: N × K scenes of the N people")
    parser.add_argument("--clips", action="store_true", help="write videos of 640×480 with known tracks, K frames each")
    parser.add_argument(
        "--youtube-faces",
        action="store_true",
        help="write clips in YouTube Faces' layout, 1 to 4 a person, K frames each",
    )
    parser.add_argument("--contact-sheet", metavar="FILE.png", help="also draw a sheet of the first people")


def run(args: argparse.Namespace) -> int:
    """Write what was asked for and say how fast."""
    from visavis.errors import RecipeError
    from visavis.synthetic import pairs, store
    from visavis.synthetic.render import check_request

    people, per = args.identities, args.images_per_identity
    if people is None or per is None or min(people, per) < 1:
        raise RecipeError("how many? e.g. visavis synth OUT --identities 100 --images-per-identity 10")
    if args.workers is not None and args.workers < 0:
        raise RecipeError(f"--workers must be 0 or more, got {args.workers}")
    if (args.scenes or args.youtube_faces or args.clips) and args.pairs:
        raise RecipeError("--pairs belongs to aligned faces; leave it, or --scenes, --clips and --youtube-faces, away")
    if args.scenes + args.youtube_faces + args.clips > 1:
        raise RecipeError("--scenes, --clips and --youtube-faces are kinds of data; choose one")
    if args.clips and args.contact_sheet:
        raise RecipeError("--contact-sheet draws faces and scenes, no --clips; leave one away")
    check_request(args.seed, args.first_identity, 0, args.size, args.difficulty)
    if args.youtube_faces and args.size > 512:  # a picture is twice the crop
        raise RecipeError(f"--size must lie in [16, 512] with --youtube-faces, got {args.size}")
    protocol = None
    if args.pairs:
        protocol = pairs(people, per, args.pairs, args.folds, args.seed, first_identity=args.first_identity)
    out = Path(args.out)
    wanted = (
        "identities",
        "images_per_identity",
        "seed",
        "size",
        "difficulty",
        "first_identity",
        "pairs",
        "scenes",
        "youtube_faces",
        "clips",
    )
    store.claim(out, {"made_by": "visavis synth", **{name: getattr(args, name) for name in wanted}})
    identities = range(args.first_identity, args.first_identity + people)
    if args.scenes:
        _scenes(args, out, identities)
    elif args.clips:
        _videos(args, out, identities)
    elif args.youtube_faces:
        _clips(args, out, identities)
    else:
        _faces(args, out, identities)
    if protocol is not None:
        store.write_pairs(out / "pairs.txt", protocol)
        print(f"{out / 'pairs.txt'}: {len(protocol)} pairs in {args.folds} folds")
    return 0


def _faces(args: argparse.Namespace, out: Path, identities: range) -> None:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.machine import usable_cores
    from visavis.synthetic import store
    from visavis.synthetic.parallel import people

    workers = max(1, min(usable_cores() if args.workers is None else args.workers, len(identities)))
    start = time.perf_counter()
    with embedding_bar("drawing faces") as bar:
        count = store.write_people(
            out, args.seed, identities, args.images_per_identity, size=args.size, difficulty=args.difficulty,
            workers=workers, progress=bar,
        )  # fmt: skip
    spent = time.perf_counter() - start
    speed = f"{count / spent:.0f} pictures/s, {count / spent / workers:.0f} per core"
    print(f"{out / 'images'}: {count:,} pictures of {len(identities):,} people in {spent:.1f} s ({speed})")
    if args.contact_sheet:
        shown = people(args.seed, identities[:6], min(10, args.images_per_identity), difficulty=args.difficulty)
        _save(args.contact_sheet, store.contact_sheet([list(crops) for crops, _ in shown]))


def _scenes(args: argparse.Namespace, out: Path, identities: range) -> None:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.synthetic import store
    from visavis.synthetic.scenes import scene

    count = len(identities) * args.images_per_identity
    start = time.perf_counter()
    with embedding_bar("drawing scenes") as bar:
        faces = store.write_scenes(out, args.seed, identities, count, difficulty=args.difficulty, progress=bar)
    spent = time.perf_counter() - start
    print(f"{out / 'images'}: {count:,} scenes with {faces:,} faces in {spent:.1f} s ({count / spent:.1f} scenes/s)")
    if args.contact_sheet:
        drawn = [
            scene(args.seed, k, identities, size=(480, 480), difficulty=args.difficulty) for k in range(min(6, count))
        ]
        marked = [store.outline_faces(s.image, s.boxes, s.landmarks) for s in drawn]
        _save(args.contact_sheet, store.contact_sheet([marked[k : k + 3] for k in range(0, len(marked), 3)], cell=480))


def _videos(args: argparse.Namespace, out: Path, identities: range) -> None:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.synthetic.moving_scenes import write_videos

    start, frames, videos = time.perf_counter(), args.images_per_identity, 0
    with embedding_bar("drawing videos") as bar:
        for videos in write_videos(out, args.seed, identities, frames, difficulty=args.difficulty):
            bar(videos, -(-len(identities) // 2))
    spent = time.perf_counter() - start
    print(f"{out / 'videos'}: {videos:,} videos of {frames:,} frames in {spent:.1f} s "
          f"({videos * frames / spent:.0f} frames/s); who is where: {out / 'tracks.tsv'}")  # fmt: skip


def _clips(args: argparse.Namespace, out: Path, identities: range) -> None:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.machine import usable_cores
    from visavis.synthetic import store
    from visavis.synthetic.clips import clip, write_clips

    workers = max(1, min(usable_cores() if args.workers is None else args.workers, len(identities)))
    start, frames, per = time.perf_counter(), 0, args.images_per_identity
    with embedding_bar("drawing clips") as bar:
        # The face fills the middle half, so that a crop of --size wants a picture of twice that side.
        written = write_clips(
            out, args.seed, identities, per, size=2 * args.size, difficulty=args.difficulty, workers=workers
        )
        for done, count in enumerate(written, 1):
            frames += count
            bar(done, len(identities))
    spent = time.perf_counter() - start
    speed = f"{frames / spent:.0f} frames/s, {frames / spent / workers:.0f} per core"
    print(f"{out / 'aligned_images_DB'}: {frames:,} frames of {len(identities):,} people in {spent:.1f} s ({speed})")
    if args.contact_sheet:
        rows = []
        for identity in identities[:6]:
            shown, _ = clip(args.seed, identity, 0, min(8, per) * 6, size=2 * args.size, difficulty=args.difficulty)
            rows.append(list(shown[::6]))
        _save(args.contact_sheet, store.contact_sheet(rows))


def _save(path: str, sheet: object) -> None:
    import numpy as np

    from visavis.errors import DataError
    from visavis.vision import images

    try:
        images.write(path, np.asarray(sheet, np.uint8))
    except OSError as error:
        raise DataError(f"{path}: cannot write ({error.strerror})") from error
    print(path)
