"""Subjects and their samples: list, rename, change, merge, samples, split."""

from __future__ import annotations

import argparse

from visavis.cli.gallery_actions import Action, Answer, add_threshold, find_threshold

_TEMPLATES = "below which samples get templates of their own; the model's without"


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
    add_threshold(parser, _TEMPLATES)
    parser.epilog = "The subject is kept until the earliest end of all, and the consent notes are joined."


def _merge(gallery, args) -> Answer:
    from visavis.deploy.json_views import merge_json, merge_notes

    done = gallery.merge(args.into, *args.others, threshold=find_threshold(gallery, args))
    lines = [f"{done.subject.name} now has {done.subject.samples} samples", *merge_notes(done)]
    for other, samples in done.absorbed:
        options = " ".join(f"--sample {sample}" for sample in samples[:20])
        more = f" and {len(samples) - 20} more" if len(samples) > 20 else ""
        lines.append(
            f"to undo: visavis gallery {args.gallery} split {done.subject.name!r} {other.name!r} {options}{more}"
        )
    return merge_json(done), lines


def _samples_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the subject")


def _samples(gallery, args) -> Answer:
    from visavis.deploy.json_views import sample_json

    samples = [sample_json(sample) for sample in gallery.samples(args.name)]
    templates = len({s["template"] for s in samples})
    lines = [
        f"{s['sample']:>8}  {s['created']}  "
        + ("quality unknown" if s["quality"] is None else f"quality {s['quality']:.2f}")
        + (f"  template {s['template'] + 1}" if templates > 1 else "")
        + (f"  {s['source']}" if s["source"] else "")
        + ("  crop kept" if s["crop"] else "")
        for s in samples
    ]
    return samples, [*lines, f"{len(samples)} samples in {templates} template{'s' if templates > 1 else ''}"]


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the subject")
    parser.add_argument("new", metavar="NEW", help="the name of the new subject, who gets the samples")
    parser.add_argument(
        "--sample", type=int, action="append", required=True, metavar="N", help="a sample by number; several times"
    )
    add_threshold(parser, _TEMPLATES)
    parser.epilog = (
        "The new subject has the same consent note and time limit; see: visavis gallery GALLERY samples NAME"
    )


def _split(gallery, args) -> Answer:
    from visavis.deploy.json_views import subject_json

    subjects = gallery.split(args.name, args.sample, args.new, threshold=find_threshold(gallery, args))
    lines = [f"{subject.name} has {subject.samples} samples" for subject in subjects]
    return [subject_json(subject) for subject in subjects], lines


ACTIONS = {
    "list": Action("subjects, or those whose name contains a text", _list, _list_arguments),
    "rename": Action("give a subject another name", _rename, _rename_arguments),
    "change": Action("change how long a subject is kept, or the consent note", _change, _change_arguments),
    "merge": Action("several subjects are one person", _merge, _merge_arguments),
    "samples": Action("a subject's samples: number, time, quality, file", _samples, _samples_arguments),
    "split": Action("samples of a subject are another person", _split, _split_arguments),
}
