"""Unknown faces: group, adopt, erase."""

from __future__ import annotations

import argparse

from visavis.cli.gallery_actions import Action, Answer, add_threshold, threshold_of


def _unknowns_arguments(parser: argparse.ArgumentParser) -> None:
    add_threshold(parser)
    parser.add_argument("--min-size", type=int, default=2, metavar="N", help="smallest group (2)")


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
    return values, [*lines, f"{kept} unknown faces, {len(clusters)} groups at {threshold:.4f}"]


def _adopt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the subject; made when new")
    parser.add_argument("numbers", metavar="NUMBER", type=int, nargs="+", help="unknown faces, by number")
    parser.add_argument("--consent", default="", metavar="NOTE", help="why this person may be enrolled")


def _adopt(gallery, args) -> Answer:
    from visavis.deploy.gallery.unknowns import adopt
    from visavis.deploy.json_views import subject_json

    done = adopt(gallery, args.name, args.numbers, consent=args.consent)
    return subject_json(done.subject), [f"{done.subject.name}: {done.added} samples enrolled"]


def _drop(gallery, args) -> Answer:
    from visavis.deploy.gallery.unknowns import drop_unknowns

    count = drop_unknowns(gallery)
    return {"erased": count}, [f"{count} unknown faces erased"]


ACTIONS = {
    "unknowns": Action(
        "group the unknown faces kept by: visavis identify --keep-unknown", _unknowns, _unknowns_arguments
    ),
    "adopt": Action("enrol unknown faces as a subject", _adopt, _adopt_arguments),
    "drop-unknowns": Action("erase the unknown faces", _drop),
}
