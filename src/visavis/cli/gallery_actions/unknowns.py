"""Unknown faces: group, look at, adopt, erase."""

from __future__ import annotations

import argparse

from visavis.cli.gallery_actions import Action, Answer, add_threshold, find_threshold, threshold_of


def _unknowns_arguments(parser: argparse.ArgumentParser) -> None:
    add_threshold(parser)
    parser.add_argument("--min-size", type=int, default=2, metavar="N", help="smallest group (2)")
    parser.add_argument(
        "--show", metavar="FILE", help="write the groups' kept crops as one picture (.png, .jpg, .webp)"
    )


def _unknowns(gallery, args) -> Answer:
    from visavis.deploy.gallery.unknowns import cluster_unknowns, read_unknowns

    kept = len(read_unknowns(gallery)[0])
    threshold = threshold_of(gallery, args)
    clusters = cluster_unknowns(gallery, threshold, min_size=args.min_size)
    lines = [
        f"{len(c.unknowns)} faces, lowest similarity {c.lowest:.3f}: {' '.join(map(str, c.unknowns))}" for c in clusters
    ]
    values = {
        "unknown": kept,
        "threshold": threshold,
        "clusters": [{"unknowns": list(c.unknowns), "lowest_similarity": c.lowest} for c in clusters],
    }
    if args.show:
        lines.append(_show(gallery, clusters, args.show))
    return values, [*lines, f"{kept} unknown faces, {len(clusters)} groups at {threshold:.4f}"]


def _show(gallery, clusters, path: str) -> str:
    """Write the sheet; says how many faces are on it."""
    from visavis.deploy.contact_image import write_groups
    from visavis.deploy.gallery.unknowns import unknown_faces
    from visavis.errors import DataError
    from visavis.vision.images import decode

    rows, shown, faces = [], 0, 0
    for c in clusters:
        crops = [decode(face.crop) for face in unknown_faces(gallery, c.unknowns) if face.crop is not None]
        rows.append((f"{len(c.unknowns)} faces, {c.lowest:.3f}: {' '.join(map(str, c.unknowns[:20]))}", crops))
        shown, faces = shown + len(crops), faces + len(c.unknowns)
    if not shown:
        raise DataError("no crops to show: none of the groups' faces was kept with --keep-crops")
    write_groups(path, rows)
    without = f"; of {faces - shown} no crop is kept" if faces > shown else ""
    return f"{shown} faces shown in {path}{without}"


def _adopt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the subject; made when new")
    parser.add_argument("numbers", metavar="NUMBER", type=int, nargs="+", help="unknown faces, by number")
    parser.add_argument("--consent", default="", metavar="NOTE", help="why this person may be enrolled")
    parser.add_argument("--retention-days", type=float, metavar="N", help="erase after N days from now")
    add_threshold(parser, "below which samples of the subject get templates of their own; the model's without")


def _adopt(gallery, args) -> Answer:
    from visavis.deploy.gallery.unknowns import adopt
    from visavis.deploy.json_views import subject_json

    done = adopt(
        gallery,
        args.name,
        args.numbers,
        consent=args.consent,
        retention_days=args.retention_days,
        threshold=find_threshold(gallery, args),
    )
    again = f", {done.already} were there already" if done.already else ""
    return subject_json(done.subject), [f"{done.subject.name}: {done.added} samples enrolled{again}"]


def _drop_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", metavar="NUMBER", type=int, nargs="*", help="only these; all without")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="only those kept for longer")


def _drop(gallery, args) -> Answer:
    from visavis.deploy.gallery.unknowns import forget_unknowns
    from visavis.deploy.json_views import forgotten_json

    receipt = forget_unknowns(gallery, args.numbers or None, older_than_days=args.older_than)
    lines = [f"{receipt.unknown_faces} unknown faces erased; {receipt.found} pieces of them found"]
    values = {"erased": receipt.unknown_faces, "receipt": forgotten_json(receipt), "ok": receipt.complete}
    return values, [*lines, *([receipt.note] if receipt.note else [])]


ACTIONS = {
    "unknowns": Action(
        "group the unknown faces kept by: visavis identify --keep-unknown", _unknowns, _unknowns_arguments
    ),
    "adopt": Action("enroll unknown faces as a subject", _adopt, _adopt_arguments),
    "drop-unknowns": Action("erase unknown faces", _drop, _drop_arguments),
}
