"""The whole gallery: duplicates, FPIR, backup, check, export, import, migrate."""

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
    from visavis.deploy.gallery.exchange import export_gallery

    count = export_gallery(gallery, args.file)
    plain = "; nothing in it is encrypted" if gallery.encrypted else ""
    return {"subjects": count, "file": args.file}, [f"{args.file}: {count} subjects{plain}"]


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.npz", help="an export of a gallery of the same model")
    parser.add_argument("--model", metavar="MODEL", help="make the gallery when it is absent, for this model")


def _import(gallery, args) -> Answer:
    from visavis.deploy.gallery.exchange import import_gallery

    done = import_gallery(gallery, args.file)
    line = (
        f"{done.subjects} subjects, {done.samples} samples and {done.unknown_faces} unknown faces added from "
        f"{args.file}; {done.already} were there already"
    )
    over = [f"{done.expired} subjects were left out: their time is over"] if done.expired else []
    return {**vars(done), "file": args.file}, [line, *over]


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file to write; it must not be there yet")


def _backup(gallery, args) -> Answer:
    from pathlib import Path

    from visavis.deploy.gallery.postgres_address import is_postgres
    from visavis.errors import DataError

    target = Path(args.file)
    if target.exists():
        raise DataError(f"{target}: is there already; name a new file")
    gallery.store.backup(target)
    size = target.stat().st_size
    how = "open it as any gallery"
    if is_postgres(gallery.path):
        how = f"bring it back into a database with the extension vector by: pg_restore --dbname=DATABASE {args.file}"
    return {"file": args.file, "bytes": size}, [f"{args.file}: {size:,} bytes; {how}"]


def _check(gallery, args) -> Answer:
    gallery.verify()
    count = gallery.refresh()
    lines = [f"{gallery.path}: every row is as it was written, {count} subjects can be found"]
    lacking = getattr(gallery.store, "lacks_log", False)
    if lacking:
        lines.append(
            "but it was copied while in use, without its log: what was written last may be missing; copy by: visavis "
            "gallery GALLERY backup FILE (this is said once)"
        )
        gallery.store.said_of_missing_log()
    return {"subjects": count, "ok": not lacking, "lacks_log": lacking}, lines


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="BACKUP-FILE", help="where pg_dump writes the gallery as it was, before")
    parser.epilog = "A gallery in a file needs none of this: it is brought up to date, with a copy, when it is opened."


def _migrate(_, args) -> Answer:
    from pathlib import Path

    from visavis.deploy.gallery.postgres_address import is_postgres
    from visavis.deploy.gallery.postgres_migration import backup_and_migrate
    from visavis.errors import DataError

    if not is_postgres(args.gallery):
        raise DataError(f"{args.gallery}: a file is brought up to date when it is opened: visavis gallery FILE check")
    done = backup_and_migrate(args.gallery, Path(args.file))
    if not done:
        return {"migrated": False}, [f"{args.gallery}: is up to date already, nothing was done"]
    return {"migrated": True, "file": args.file}, [f"{args.gallery}: up to date; as it was: {args.file}"]


ACTIONS = {
    "duplicates": Action("subjects so alike that they may be one person", _duplicates, add_threshold),
    "fpir": Action("how often a stranger would be matched in this gallery", _fpir, add_threshold),
    "export": Action("write everything, decrypted, as arrays", _export, _export_arguments),
    "import": Action("add an export of the same model; what is there already stays once", _import, _import_arguments),
    "backup": Action("copy the gallery into one file, also while it is served", _backup, _backup_arguments),
    "check": Action("read everything: pages, the checksum of every row, the length of every vector", _check),
}
MIGRATE = Action("bring a gallery in PostgreSQL of an earlier format up to date", _migrate, _migrate_arguments)
