"""Subjects: list, rename, change, merge."""

from __future__ import annotations

import argparse

from visavis.cli.gallery_actions import Action, Answer


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="*", help="only those whose name contains TEXT")


def _list(gallery, args) -> Answer:
    from visavis.deploy.json_views import subject_json

    people = [subject_json(s) for s in gallery.subjects(" ".join(args.text))]
    lines = [
        f"{p['id']:>8}  {p['name']}  {p['samples']} samples"
        + (f"  until {p['expires']}" if p["expires"] else "")
        + (f"  consent: {p['consent']}" if p["consent"] else "")
        for p in people
    ]
    return people, [*lines, f"{len(people)} subjects"]


def _rename_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the subject's name")
    parser.add_argument("new", metavar="NEW", help="the name to be")


def _rename(gallery, args) -> Answer:
    from visavis.deploy.json_views import subject_json

    subject = gallery.update(args.old, name=args.new)
    return subject_json(subject), [f"{args.old} is now called {subject.name}"]


def _change_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the subject")
    parser.add_argument("--retention-days", type=float, metavar="N", help="keep for N days from now, then erase")
    parser.add_argument("--consent", metavar="NOTE", help="replace the consent note")


def _change(gallery, args) -> Answer:
    from visavis.deploy.json_views import subject_json
    from visavis.errors import DataError

    if args.retention_days is None and args.consent is None:
        raise DataError("change what? add --retention-days N or --consent NOTE")
    values = subject_json(gallery.update(args.name, consent=args.consent, retention_days=args.retention_days))
    kept = f"until {values['expires']}" if values["expires"] else "without a time limit"
    return values, [f"{values['name']}: kept {kept}, consent: {values['consent'] or 'none noted'}"]


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("into", metavar="INTO", help="the subject who stays")
    parser.add_argument("others", metavar="OTHER", nargs="+", help="subjects whose samples INTO gets")
    parser.epilog = "The subject is kept until the earliest end of all, and the consent notes are joined."


def _merge(gallery, args) -> Answer:
    from visavis.deploy.json_views import merge_json, merge_notes

    done = gallery.merge(args.into, *args.others)
    return merge_json(done), [f"{done.subject.name} now has {done.subject.samples} samples", *merge_notes(done)]


ACTIONS = {
    "list": Action("subjects, or those whose name contains a text", _list, _list_arguments),
    "rename": Action("give a subject another name", _rename, _rename_arguments),
    "change": Action("change how long a subject is kept, or the consent note", _change, _change_arguments),
    "merge": Action("several subjects are one person", _merge, _merge_arguments),
}
