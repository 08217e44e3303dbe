"""visavis gallery: look after a gallery: list, rename, merge, doubles, unknown faces, FPIR, check, export, import."""

from __future__ import annotations

import argparse

EPILOG = """actions:
  list [TEXT]              subjects, or those whose name contains TEXT
  rename OLD NEW           give a subject another name
  change NAME              keep for --retention-days N from now, or replace the --consent note
  merge INTO OTHER...      these are one person
  duplicates               subjects so alike that they may be one person (--threshold)
  fpir                     how often a stranger would be matched in this gallery (--threshold)
  unknowns                 group the unknown faces kept by: visavis identify --keep-unknown
  adopt NAME NUMBER...     enrol unknown faces as a subject
  drop-unknowns            erase the unknown faces
  export FILE.npz          write subjects and samples, decrypted
  import FILE.npz          add the subjects of an export of the same model
  check                    read every page of the file
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("gallery", metavar="GALLERY", help="the gallery's file")
    parser.add_argument("action", metavar="ACTION", help="see below")
    parser.add_argument("words", metavar="WORD", nargs="*", help="what the action is about")
    parser.add_argument("--threshold", type=float, metavar="S", help="similarity from which two count as one person")
    parser.add_argument("--fmr", type=float, metavar="RATE", help="or the model's threshold at this FMR")
    parser.add_argument("--min-size", type=int, default=2, metavar="N", help="smallest group of unknown faces (2)")
    parser.add_argument("--consent", default="", metavar="NOTE", help="for adopt and change")
    parser.add_argument("--retention-days", type=float, metavar="N", help="for change")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.deploy.gallery.sqlite import Gallery
    from visavis.errors import RecipeError, unknown_name

    actions = {
        "list": _list,
        "rename": _rename,
        "change": _change,
        "merge": _merge,
        "duplicates": _duplicates,
        "fpir": _fpir,
        "unknowns": _unknowns,
        "adopt": _adopt,
        "drop-unknowns": _drop,
        "export": _export,
        "import": _import,
        "check": _check,
    }
    if args.action not in actions:
        raise RecipeError(unknown_name("action", args.action, actions))
    with Gallery(args.gallery) as gallery:
        values, lines = actions[args.action](gallery, args)
    print(json.dumps(values, indent=2) if args.json else "\n".join(lines))
    return 0


def _words(args: argparse.Namespace, least: int, most: int, form: str) -> list[str]:
    from visavis.errors import DataError

    if not least <= len(args.words) <= most:
        raise DataError(f"expected: visavis gallery GALLERY {form}")
    return args.words


def _threshold(args: argparse.Namespace) -> float:
    """The threshold typed, or that of the model remembered beside the gallery."""
    from pathlib import Path

    from visavis.deploy.operating_point import HOW_TO, operating_point
    from visavis.deploy.recognizer import card_of
    from visavis.errors import DataError

    note = Path(args.gallery + ".model")
    card = card_of(note.read_text().strip()) if args.threshold is None and note.is_file() else None
    point = operating_point(card, fmr=args.fmr, threshold=args.threshold)
    if point is None:
        raise DataError(f"from which similarity on? add --threshold S; the model has no calibrated one: {HOW_TO}")
    return point.threshold


def _list(gallery, args):
    from visavis.deploy.json_views import subject_json

    people = [subject_json(s) for s in gallery.subjects(" ".join(_words(args, 0, 9, "list [TEXT]")))]
    lines = [
        f"{p['id']:>8}  {p['name']}  {p['samples']} samples"
        + (f"  until {p['expires']}" if p["expires"] else "")
        + (f"  consent: {p['consent']}" if p["consent"] else "")
        for p in people
    ]
    return people, [*lines, f"{len(people)} subjects"]


def _rename(gallery, args):
    from visavis.deploy.json_views import subject_json

    old, new = _words(args, 2, 2, "rename OLD NEW")
    subject = gallery.update(old, name=new)
    return subject_json(subject), [f"{old} is now called {subject.name}"]


def _change(gallery, args):
    from visavis.deploy.json_views import subject_json
    from visavis.errors import DataError

    [name] = _words(args, 1, 1, "change NAME --retention-days N --consent NOTE")
    if args.retention_days is None and not args.consent:
        raise DataError("change what? add --retention-days N or --consent NOTE")
    values = subject_json(gallery.update(name, consent=args.consent or None, retention_days=args.retention_days))
    until = values["expires"] or "without a time limit"
    return values, [f"{values['name']}: kept {until}, consent: {values['consent'] or 'none noted'}"]


def _merge(gallery, args):
    from visavis.deploy.json_views import merge_json, merge_notes

    into, *others = _words(args, 2, 10_000, "merge INTO OTHER...")
    done = gallery.merge(into, *others)
    return merge_json(done), [f"{done.subject.name} now has {done.subject.samples} samples", *merge_notes(done)]


def _duplicates(gallery, args):
    from visavis.deploy.gallery.maintenance import duplicates
    from visavis.deploy.json_views import candidate_json

    threshold = _threshold(args)
    found = duplicates(gallery, threshold)
    lines = [f"{d.first.similarity:.4f}  {d.first.name}  =  {d.second.name} ?" for d in found]
    return (
        [{"first": candidate_json(d.first), "second": candidate_json(d.second)} for d in found],
        [*lines, f"{len(found)} pairs at or above {threshold:.4f}"],
    )


def _fpir(gallery, args):
    from visavis.deploy.gallery.maintenance import measure_fpir

    result = measure_fpir(gallery, _threshold(args))
    said = (
        f"FPIR {result.rate:.4g} ({result.interval[0]:.4g} to {result.interval[1]:.4g}): {result.matched} of "
        f"{result.probes} enrolled people, searched among all others, reach"
    )
    return {**vars(result), "interval": list(result.interval)}, [f"{said} {result.threshold:.4f}"]


def _unknowns(gallery, args):
    from visavis.deploy.gallery.unknowns import cluster_unknowns, read_unknowns

    kept = len(read_unknowns(gallery)[0])
    threshold = _threshold(args)
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


def _adopt(gallery, args):
    from visavis.deploy.gallery.unknowns import adopt
    from visavis.deploy.json_views import subject_json
    from visavis.errors import DataError

    name, *numbers = _words(args, 2, 10_000, "adopt NAME NUMBER...")
    if not all(number.isdigit() for number in numbers):
        raise DataError(f"unknown faces go by number (see: visavis gallery GALLERY unknowns), got {' '.join(numbers)}")
    done = adopt(gallery, name, [int(number) for number in numbers], consent=args.consent)
    return subject_json(done.subject), [f"{done.subject.name}: {done.added} samples enrolled"]


def _drop(gallery, args):
    from visavis.deploy.gallery.unknowns import drop_unknowns

    _words(args, 0, 0, "drop-unknowns")
    count = drop_unknowns(gallery)
    return {"erased": count}, [f"{count} unknown faces erased"]


def _export(gallery, args):
    from visavis.deploy.gallery.maintenance import export_gallery

    [path] = _words(args, 1, 1, "export FILE.npz")
    count = export_gallery(gallery, path)
    plain = "; its embeddings are not encrypted" if gallery.encrypted else ""
    return {"subjects": count, "file": path}, [f"{path}: {count} subjects{plain}"]


def _import(gallery, args):
    from visavis.deploy.gallery.maintenance import import_gallery

    [path] = _words(args, 1, 1, "import FILE.npz")
    count = import_gallery(gallery, path)
    return {"subjects": count, "file": path}, [f"{count} subjects added from {path}"]


def _check(gallery, args):
    gallery.store.verify()
    count = gallery.refresh()
    return {"subjects": count, "ok": True}, [f"{args.gallery}: every page is readable, {count} subjects can be found"]
