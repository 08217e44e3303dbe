"""The whole gallery: duplicates, FPIR, check, export, import."""

from __future__ import annotations

import argparse

from visavis.cli.gallery_actions import Action, Answer, add_threshold, threshold_of


def _duplicates(gallery, args) -> Answer:
    from visavis.deploy.gallery.maintenance import duplicates
    from visavis.deploy.json_views import candidate_json

    threshold = threshold_of(gallery, args)
    found = duplicates(gallery, threshold)
    lines = [f"{d.first.similarity:.4f}  {d.first.name}  =  {d.second.name} ?" for d in found]
    return (
        [{"first": candidate_json(d.first), "second": candidate_json(d.second)} for d in found],
        [*lines, f"{len(found)} pairs at or above {threshold:.4f}"],
    )


def _fpir(gallery, args) -> Answer:
    from visavis.deploy.gallery.maintenance import measure_fpir

    result = measure_fpir(gallery, threshold_of(gallery, args))
    said = (
        f"FPIR {result.rate:.4g} ({result.interval[0]:.4g} to {result.interval[1]:.4g}): {result.matched} of "
        f"{result.probes} enrolled people, searched among all others, reach"
    )
    return {**vars(result), "interval": list(result.interval)}, [f"{said} {result.threshold:.4f}"]


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.npz", help="the file to write")


def _export(gallery, args) -> Answer:
    from visavis.deploy.gallery.maintenance import export_gallery

    count = export_gallery(gallery, args.file)
    plain = "; its embeddings are not encrypted" if gallery.encrypted else ""
    return {"subjects": count, "file": args.file}, [f"{args.file}: {count} subjects{plain}"]


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.npz", help="an export of a gallery of the same model")


def _import(gallery, args) -> Answer:
    from visavis.deploy.gallery.maintenance import import_gallery

    count = import_gallery(gallery, args.file)
    return {"subjects": count, "file": args.file}, [f"{count} subjects added from {args.file}"]


def _check(gallery, args) -> Answer:
    gallery.store.verify()
    count = gallery.refresh()
    return {"subjects": count, "ok": True}, [f"{args.gallery}: every page is readable, {count} subjects can be found"]


ACTIONS = {
    "duplicates": Action("subjects so alike that they may be one person", _duplicates, add_threshold),
    "fpir": Action("how often a stranger would be matched in this gallery", _fpir, add_threshold),
    "export": Action("write subjects and samples, decrypted", _export, _export_arguments),
    "import": Action("add the subjects of an export of the same model", _import, _import_arguments),
    "check": Action("read every page of the file", _check),
}
