"""visavis identify: find who is on a picture."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from visavis.cli import _inputs
from visavis.cli._audit import add_audit, audited, tell_subjects
from visavis.cli._detection import add_detection, detection_options, turned_note
from visavis.cli.gallery_actions import GALLERY

if TYPE_CHECKING:
    from visavis.cli._inputs import Input

log = logging.getLogger(__name__)
_AT_ONCE = 64  # unknown faces that are compared with all kept ones, and kept in one transaction


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help=GALLERY)
    parser.add_argument("images", metavar="PICTURE", nargs="+", help=f"{_inputs.HELP};\nevery face is looked up")
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
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of videos look at each N-th frame (1)")
    parser.add_argument("--crops", metavar="FOLDER", help="of videos keep the best crop of each track there")
    parser.add_argument(
        "--most-crops", type=int, default=1000, metavar="N", help="with --crops: keep the newest N alone (1000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: one array, at the end")
    parser.add_argument("--json-lines", action="store_true", help="print a line of JSON for each answer, as it comes")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.cli._inputs import is_endless
    from visavis.errors import DataError

    if args.top < 1:
        raise DataError(f"--top must be at least 1, got {args.top}")
    if args.every < 1 or args.most_crops < 1:
        raise DataError(f"--every and --most-crops are at least 1, got {args.every} and {args.most_crops}")
    if args.keep_crops and not args.keep_unknown:
        raise DataError("--keep-crops keeps the crops of unknown faces: add --keep-unknown")
    if args.json and args.json_lines:
        raise DataError("--json writes one array, --json-lines a line for each answer; choose one")
    if endless := is_endless(args.images):
        if args.json:
            raise DataError("a camera does not end, and --json writes an array at the end; use --json-lines")
        if args.keep_unknown:
            raise DataError("a camera does not end, and --keep-unknown would fill the disk; group a video file instead")
    answers: list[dict] = []
    seen: set[int] = set()
    failed = 0

    def tell(answer: dict) -> None:
        nonlocal failed
        failed += "error" in answer
        seen.update(face["match"]["id"] for face in answer["faces"] if face["match"])
        if args.json:
            answers.append(answer)
        elif args.json_lines:
            print(json.dumps(answer), flush=True)
        else:
            _tell(answer)

    with audited(args, "identify", changes=args.keep_unknown) as about:
        try:
            _identify(args, tell, alone=len(args.images) == 1 and not endless)
        except KeyboardInterrupt:  # keeps what was answered
            if args.json:
                print(json.dumps(answers, indent=2), flush=True)
            raise
        finally:
            tell_subjects(about, seen)
    if args.json:
        print(json.dumps(answers, indent=2))
    return 2 if failed else 0


def _identify(args: argparse.Namespace, tell: Callable[[dict], None], *, alone: bool) -> None:
    """Answer for every input in its turn; a picture that cannot be read ends it where it is the only one typed."""
    from visavis.cli._gallery import index_kind, open_gallery, writable
    from visavis.cli._inputs import expand, tell_left_out
    from visavis.errors import DataError

    recognizer, gallery = open_gallery(
        args.gallery,
        args.model,
        read_only=not writable(args.gallery),
        **detection_options(args),
        precision=args.precision,
        approximate=index_kind(args),
    )
    with gallery:
        told, left_out = _Answers(gallery, args, tell), []
        try:
            for one in expand(args.images):
                try:
                    if one.kind == "left out":
                        left_out.append(one)
                    elif one.kind == "picture":
                        found = recognizer.find(
                            one.name,
                            gallery,
                            fmr=args.fmr,
                            threshold=args.threshold,
                            top=args.top,
                            aligned=args.aligned,
                        )
                        told.image(one.name, found)
                    else:
                        _identify_video(one, recognizer, gallery, args, told)
                except DataError as error:
                    if alone and one.name == args.images[0]:
                        raise
                    told.error(one.name, str(error))
        finally:
            told.finish()
            tell_left_out(left_out)


def _identify_video(one: Input, recognizer, gallery, args: argparse.Namespace, told: _Answers) -> None:
    """An answer for each track as it ends; after Ctrl-C for those that have not ended, too."""
    from visavis.deploy.tracking import FaceTracker, TrackingSettings
    from visavis.deploy.video_identification import CropFolder, identify_track
    from visavis.vision.video import LiveVideo, read_video, shown

    point = recognizer.point(fmr=args.fmr, threshold=args.threshold)
    settings = TrackingSettings() if point is None else TrackingSettings(threshold=point.threshold)
    tracker, name = FaceTracker(recognizer, settings), shown(one.name)
    crops = None if args.crops is None else CropFolder(args.crops, args.most_crops)

    def answer(tracks) -> None:
        for track in tracks:
            told.track(name, track, identify_track(track, gallery, point, top=args.top), crops)

    live = LiveVideo(one.name) if one.kind == "stream" else None
    recognizer.turn = "always" if args.turn == "always" else "never"  # a camera's pictures stand as they stand
    try:
        for frame in live if live is not None else read_video(one.name, every=args.every):
            if live is None or frame.number % args.every == 0:
                answer(tracker.update(frame))
    finally:
        recognizer.turn = args.turn
        if live is not None:
            live.close()
        answer(tracker.finish())
        if live is not None:
            log.info("%s: %d frames came, %d were dropped, opened again %d times", name, live.frames, live.dropped,
                     live.reconnects)  # fmt: skip
        if tracker.dropped:
            log.info("%s: %d faces seen in fewer than %d frames left out", name, tracker.dropped, settings.least)


class _Answers:
    """Makes answers of what was found, and gives them on once it is known which unknown face a stranger is like."""

    def __init__(self, gallery, args: argparse.Namespace, tell: Callable[[dict], None]) -> None:
        self.gallery, self.args, self.tell = gallery, args, tell
        self.at_once = _AT_ONCE if args.json else 1
        self.waiting: list[dict] = []
        self.strangers: list[tuple] = []

    def image(self, name: str, found) -> None:
        from visavis.deploy.json_views import identification_json

        faces = [identification_json(face, answer) for face, answer in found]
        self.strangers += [
            (name, face, entry)
            for (face, answer), entry in zip(found, faces, strict=True)
            if answer.decided and not answer.match and not answer.elsewhere
        ]
        self._add({"picture": name, "faces": faces})

    def track(self, name: str, track, answer, crops) -> None:
        from visavis.deploy.json_views import identification_json, track_json

        entry = identification_json(track.best, answer)
        if answer.decided and not answer.match:
            self.strangers.append((name, track.best, entry))
        kept = None if crops is None else crops.keep(name, track)
        self._add({"picture": name, "track": track_json(track) | {"crop": kept}, "faces": [entry]})

    def error(self, name: str, text: str) -> None:
        self._add({"picture": name, "error": text, "faces": []})

    def _add(self, answer: dict) -> None:
        self.waiting.append(answer)
        if len(self.strangers) >= self.at_once or not self.strangers:
            self.finish()

    def finish(self) -> None:
        _know_again(self.gallery, self.strangers, self.args)
        for answer in self.waiting:
            self.tell(answer)
        self.waiting.clear()


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
        files = [source_file(image) for image, _, _ in strangers]
        numbers = keep_unknown_faces(gallery, faces, files, keep_crops=args.keep_crops)
        for number, (_, _, entry) in zip(numbers, strangers, strict=True):
            entry["unknown"] = number
    strangers.clear()


def _tell(answer: dict) -> None:
    from visavis.deploy.operating_point import HOW_TO

    if "error" in answer:
        print(answer["error"], flush=True)
        return
    if not answer["faces"]:
        from visavis.deploy.no_face import WHAT_HELPS

        print(f"{answer['picture']}: no face found; {WHAT_HELPS}", flush=True)
    where = answer["picture"]
    if track := answer.get("track"):
        where += f" {track['start']:.2f} to {track['end']:.2f} s, {track['frames']} frames"
    for face in answer["faces"]:
        print(f"{where}: {_who(face)}")
        for other in face["candidates"][1:]:
            print(f"  then {other['name']} with similarity {other['similarity']:.4f}")
        if face["face"] and face["face"]["turned"]:
            print(f"  {turned_note(face['face']['turned'])}")
        for reason in face["face"]["reasons"] if face["face"] else []:
            print(f"  {reason}")
    if any(not face["decided"] for face in answer["faces"]):
        print(f"undecided: this model has no calibrated threshold; {HOW_TO}, or give --threshold")
    sys.stdout.flush()


def _who(face: dict) -> str:
    match, best = face["match"], face["candidates"][:1]
    who = match["name"] if match else "unknown" if face["decided"] else "undecided"
    if face["elsewhere"] and not match:
        other = face["elsewhere"]
        who += f", like {other['name']} (similarity {other['similarity']:.4f}), who is another face here"
    elif face["elsewhere"]:
        who += f", as {face['elsewhere']['name']} is another face here"
    who += f" (number {face['unknown']})" if "unknown" in face else ""
    like = face.get("like_unknown")
    if like and like["unknown"] != face.get("unknown"):
        who += f", like unknown {like['unknown']} with similarity {like['similarity']:.4f}"
    near = f", similarity {match['similarity']:.4f}" if match else ""
    if not near and best and not face["elsewhere"]:
        near = f", nearest {best[0]['name']} with similarity {best[0]['similarity']:.4f}"
    at = "" if face["threshold"] is None else f" (threshold {face['threshold']:.4f}"
    if face["fmr"]:
        ends = face["fpir_interval"]
        between = f" ({ends[0]:.2g} to {ends[1]:.2g})" if ends else ""
        at += f", FMR {face['fmr']:g}, FPIR about {face['fpir']:.2g}{between} with {face['searched']} subjects"
    return f"{who}{near}{at + ')' if at else ''}"
