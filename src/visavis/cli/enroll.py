"""visavis enroll: add subjects to a gallery."""

from __future__ import annotations

import argparse

from visavis.cli._audit import add_audit, audited, subject_ids, tell_subjects
from visavis.cli._detection import add_detection, detection_options
from visavis.cli.gallery_actions import GALLERY


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help=f"{GALLERY}; made when absent (then --model is needed)")
    parser.add_argument(
        "images",
        metavar="PICTURE|SRC",
        nargs="+",
        help="pictures of --name, a folder per subject, or a list: PATH TAB NAME (visavis people writes one)",
    )
    parser.add_argument("--model", metavar="MODEL", help="model folder, run folder or .onnx; remembered by the gallery")
    parser.add_argument("--name", help="the subject; without it every folder of SRC is one")
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned crops already")
    add_detection(parser)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse pictures of poor quality, and those unlike the subject's others, instead of reporting them",
    )
    parser.add_argument("--keep-crops", action="store_true", help="keep the crops in the gallery")
    parser.add_argument("--consent", default="", metavar="NOTE", help="why these people may be enrolled")
    parser.add_argument(
        "--retention-days",
        type=float,
        metavar="N",
        help="erase after N days from now; without it the end of a subject who is there stays",
    )
    parser.add_argument(
        "--sync", action="store_true", help="also report samples whose files are not among the pictures any more"
    )
    parser.add_argument("--delete", action="store_true", help="with --sync: erase these samples, and who has no others")
    add_audit(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.deploy.gallery.retention import checked_days
    from visavis.errors import DataError

    if args.retention_days is not None:
        checked_days(args.retention_days)
    people, skipped = _people(args.images, args.name)
    if args.delete and not args.sync:
        raise DataError("--delete erases what has left the folder: add --sync")
    summary: list[dict] = []
    left: list[dict] = []
    with audited(args, "enroll", changes=True) as about:
        total, complete = _enroll(args, people, summary, left)
        tell_subjects(about, subject_ids([entry["subject"] for entry in summary]))
        if args.delete:
            about |= {"erased": [entry["id"] for entry in left], "complete": complete}
    if args.json:
        values = {"enrolled": summary, "subjects": total, "skipped": [list(s) for s in skipped]}
        print(json.dumps(values | ({"left": left, "complete": complete} if args.sync else {}), indent=2))
    else:
        _tell_left(left, erased=args.delete, complete=complete)
        _tell(summary, total, terms=bool(args.consent) or args.retention_days is not None)
        for entry, reason in skipped[:10]:
            print(f"  left out {entry}: {reason}")
        if len(skipped) > 10:
            print(f"  ... {len(skipped)} left out in all; --json lists them")
    return 0 if complete and any(entry["subject"] for entry in summary) else 1


def _enroll(
    args: argparse.Namespace, people: dict[str, list[str]], summary: list[dict], left: list[dict]
) -> tuple[int | None, bool]:
    """Enroll everybody; fills the summary and what has left the folder, returns how many subjects the gallery then has.

    The second value says whether everything that was erased leaves nothing behind.
    """
    from visavis.cli._gallery import count_subjects, open_gallery, progress
    from visavis.deploy.enrollment import enroll_images
    from visavis.deploy.json_views import candidate_json, subject_json

    recognizer, gallery = open_gallery(args.gallery, args.model, create=True, **detection_options(args))
    with gallery:
        point = recognizer.point() if recognizer.card is not None and recognizer.card.thresholds else None
        for subject, images in progress(people.items(), "enrolling", quiet=args.json):
            done = enroll_images(
                recognizer,
                gallery,
                subject,
                images,
                aligned=args.aligned,
                strict=args.strict,
                keep_crops=args.keep_crops,
                consent=args.consent,
                retention_days=args.retention_days,
                threshold=None if point is None else point.threshold,
            )
            summary.append(
                {
                    "subject": None if done.enrollment is None else subject_json(done.enrollment.subject),
                    "name": subject,
                    "added": 0 if done.enrollment is None else done.enrollment.added,
                    "already": 0 if done.enrollment is None else done.enrollment.already,
                    "refused": [list(pair) for pair in done.refused],
                    "doubts": [list(pair) for pair in done.doubts],
                    "resembles": [candidate_json(c) for c in done.resembles],
                    "looks": list(done.looks),
                }
            )
        complete = _sync(args, gallery, people, left, None if point is None else point.threshold)
        return count_subjects(gallery), complete


def _sync(args: argparse.Namespace, gallery, people: dict[str, list[str]], left: list[dict], threshold) -> bool:
    """Find, and erase if asked, what has left the folder; fills `left`, returns whether nothing of it remains."""
    from visavis.deploy.folder_sync import departed, erase_departed

    if not args.sync:
        return True
    gone = list(departed(gallery, people, everybody=args.name is None))
    left += [
        {
            "id": one.subject.id,
            "name": one.subject.name,
            "samples": {sample.id: sample.source_name for sample in one.samples},
            "all": one.all,
        }
        for one in gone
    ]
    receipts = erase_departed(gallery, gone, threshold=threshold) if args.delete else []
    return all(receipt.complete for receipt in receipts)


def _tell_left(left: list[dict], *, erased: bool, complete: bool) -> None:
    for entry in left:
        files = ", ".join(name or f"sample {number}" for number, name in list(entry["samples"].items())[:5])
        more = f" and {len(entry['samples']) - 5} more" if len(entry["samples"]) > 5 else ""
        whole = ", all of theirs" if entry["all"] else ""
        print(f"{entry['name']}: {'erased' if erased else 'not there any more'}: {files}{more}{whole}")
    if left and not erased:
        print("to erase these samples, and subjects of whom nothing is left: --sync --delete")
    if not complete:
        print("something of what was erased may be left; see: visavis forget")


def _people(words: list[str], name: str | None) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Subject -> pictures from the words typed, and what was left out below their folders, with the reason."""
    from pathlib import Path

    from visavis.data.sources.folder import find_images, open_folder
    from visavis.data.sources.lists import open_list
    from visavis.errors import DataError
    from visavis.vision.images import is_image_path

    people: dict[str, list[str]] = {}
    skipped: list[tuple[str, str]] = []
    if name is None:
        listed = len(words) == 1 and Path(words[0]).is_file() and not is_image_path(words[0])
        if not listed and (len(words) != 1 or not Path(words[0]).is_dir()):
            raise DataError(
                "whose pictures are these? add --name NAME, or give one folder that holds a folder per subject"
            )
        try:
            source = open_list(Path(words[0])) if listed else open_folder(Path(words[0]))
        except DataError as error:
            if listed:
                raise
            raise DataError(
                f"{words[0]}: expected a folder per subject with pictures in it; for one subject add --name NAME"
            ) from error
        for image, label in zip(source.names, source.labels.tolist(), strict=True):
            people.setdefault(source.identities[label], []).append(str(source.path / image))
        return people, list(source.skipped)
    for word in words:
        names, left = find_images(Path(word)) if Path(word).is_dir() else ([], [])
        people.setdefault(name, []).extend([str(Path(word) / n) for n in names] if Path(word).is_dir() else [word])
        skipped += left
    if not people[name]:
        raise DataError(f"no pictures in {' '.join(words)}")
    return people, skipped


def _tell(summary: list[dict], total: int | None, *, terms: bool) -> None:
    for entry in summary:
        if len(summary) <= 20 or entry["refused"] or entry["doubts"] or entry["resembles"]:
            again = f", {entry['already']} were there already" if entry["already"] else ""
            print(f"{entry['name']}: {_images(entry['added'])} enrolled{again}")
        if terms and entry["already"] and not entry["added"]:
            print(
                "  nothing was added, so consent note and time limit stay; change them by: visavis gallery ... change"
            )
        for name, reason in entry["refused"]:
            print(f"  refused {name}: {reason}")
        for name, reason in entry["doubts"]:
            print(f"  poor    {name}: {reason}")
        for other in entry["resembles"]:
            print(f"  resembles {other['name']!r} (similarity {other['similarity']:.3f}); the same person?")
        if len(entry["looks"]) > 1 and entry["added"]:
            sizes = " and ".join(map(str, entry["looks"]))
            print(f"  samples fall into groups of {sizes}: looks of one person, or several people?")
    added, refused = sum(e["added"] for e in summary), sum(len(e["refused"]) for e in summary)
    people = "" if total is None else f"; the gallery holds {'1 subject' if total == 1 else f'{total} subjects'}"
    print(f"{_images(added)} enrolled, {refused} refused{people}")


def _images(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
