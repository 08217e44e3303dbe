"""visavis identify: find who is on a picture."""

from __future__ import annotations

import argparse

from visavis.cli._audit import add_audit, audited, tell_subjects
from visavis.cli._detection import add_detection, detection_options, turned_note
from visavis.cli.gallery_actions import GALLERY

_AT_ONCE = 64  # unknown faces that are compared with all kept ones, and kept in one transaction


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help=GALLERY)
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", help="pictures; every face is looked up")
    parser.add_argument("--model", metavar="MODEL", help="the model, where it is not the one remembered")
    parser.add_argument(
        "--fmr", type=float, metavar="RATE", help="false match rate to decide at (1e-3, or the strictest calibrated)"
    )
    parser.add_argument("--threshold", type=float, metavar="S", help="decide at this cosine similarity instead")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="candidates to show (3)")
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned crops already")
    add_detection(parser)
    parser.add_argument("--precision", default="float32", metavar="P", help="index in memory: float32, float16 or int8")
    parser.add_argument(
        "--index",
        choices=("exact", "cells", "graph"),
        help="how large galleries are searched: exact (default), or by cells or a graph, which may miss a subject",
    )
    parser.add_argument("--approximate", action="store_true", help="same as --index cells")
    parser.add_argument("--keep-unknown", action="store_true", help="keep embeddings of unknown faces, to group them")
    parser.add_argument("--keep-crops", action="store_true", help="with --keep-unknown: keep their crops, to look at")
    add_audit(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.errors import DataError

    if args.top < 1:
        raise DataError(f"--top must be at least 1, got {args.top}")
    if args.keep_crops and not args.keep_unknown:
        raise DataError("--keep-crops keeps the crops of unknown faces: add --keep-unknown")
    with audited(args, "identify", changes=args.keep_unknown) as about:
        answers, failed = _identify(args)
        tell_subjects(about, (face["match"]["id"] for a in answers for face in a["faces"] if face["match"]))
    if args.json:
        print(json.dumps(answers, indent=2))
    else:
        _tell(answers)
    return 2 if failed else 0


def _identify(args: argparse.Namespace) -> tuple[list[dict], int]:
    """The answers, and how many pictures could not be read."""
    from visavis.cli._gallery import index_kind, open_gallery, writable
    from visavis.deploy.json_views import identification_json
    from visavis.errors import DataError

    recognizer, gallery = open_gallery(
        args.gallery,
        args.model,
        read_only=not writable(args.gallery),
        **detection_options(args),
        precision=args.precision,
        approximate=index_kind(args),
    )
    answers: list[dict] = []
    strangers: list[tuple] = []
    failed = 0
    with gallery:
        for picture in args.pictures:
            try:
                found = recognizer.find(
                    picture, gallery, fmr=args.fmr, threshold=args.threshold, top=args.top, aligned=args.aligned
                )
            except DataError as error:
                if len(args.pictures) == 1:
                    raise
                failed += 1
                answers.append({"picture": picture, "error": str(error), "faces": []})
                continue
            faces = [identification_json(f, a) for f, a in found]
            answers.append({"picture": picture, "faces": faces})
            strangers += [
                (picture, face, entry)
                for (face, answer), entry in zip(found, faces, strict=True)
                if answer.decided and not answer.match
            ]
            if len(strangers) >= _AT_ONCE:
                _know_again(gallery, strangers, args)
        _know_again(gallery, strangers, args)
    return answers, failed


def _know_again(gallery, strangers: list[tuple], args: argparse.Namespace) -> None:
    """Say of unknown faces which kept one each is like, keep them if asked, and empty the list."""
    from visavis.deploy.enrollment import keep_unknown_faces, source_file
    from visavis.deploy.gallery.unknowns import known_unknowns

    faces = [face for _, face, _ in strangers]
    threshold = strangers[0][2]["threshold"] if strangers else 0.0
    like = known_unknowns(gallery, [face.embedding for face in faces], threshold)
    for found, (_, _, entry) in zip(like, strangers, strict=True):
        entry["like_unknown"] = None if found is None else {"unknown": found[0], "similarity": found[1]}
    if args.keep_unknown:
        files = [source_file(picture) for picture, _, _ in strangers]
        numbers = keep_unknown_faces(gallery, faces, files, keep_crops=args.keep_crops)
        for number, (_, _, entry) in zip(numbers, strangers, strict=True):
            entry["unknown"] = number
    strangers.clear()


def _tell(answers: list[dict]) -> None:
    from visavis.deploy.operating_point import HOW_TO

    undecided = False
    for answer in answers:
        if "error" in answer:
            print(answer["error"])
        elif not answer["faces"]:
            print(f"{answer['picture']}: no face found")
        for face in answer["faces"]:
            undecided |= not face["decided"]
            match, best = face["match"], face["candidates"][:1]
            who = match["name"] if match else "unknown" if face["decided"] else "undecided"
            who += f" (number {face['unknown']})" if "unknown" in face else ""
            like = face.get("like_unknown")
            if like and like["unknown"] != face.get("unknown"):
                who += f", like unknown {like['unknown']} with similarity {like['similarity']:.4f}"
            near = f", similarity {match['similarity']:.4f}" if match else ""
            near = near or (f", nearest {best[0]['name']} with similarity {best[0]['similarity']:.4f}" if best else "")
            at = "" if face["threshold"] is None else f" (threshold {face['threshold']:.4f}"
            if face["fmr"]:
                ends = face["fpir_interval"]
                between = f" ({ends[0]:.2g} to {ends[1]:.2g})" if ends else ""
                at += f", FMR {face['fmr']:g}, FPIR about {face['fpir']:.2g}{between} with {face['searched']} subjects"
            print(f"{answer['picture']}: {who}{near}{at + ')' if at else ''}")
            for other in face["candidates"][1:]:
                print(f"  then {other['name']} with similarity {other['similarity']:.4f}")
            if face["face"] and face["face"]["turned"]:
                print(f"  {turned_note(face['face']['turned'])}")
            for reason in face["face"]["reasons"] if face["face"] else []:
                print(f"  {reason}")
    if undecided:
        print(f"undecided: this model has no calibrated threshold; {HOW_TO}, or give --threshold")
