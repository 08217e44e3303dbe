"""`visavis detect`: where the faces of pictures are, how they look, and how fit they are; no model is wanted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visavis.cli import _inputs
from visavis.cli._detection import add_detection, turned_note

if TYPE_CHECKING:
    from visavis.cli._inputs import Input
    from visavis.vision.detection.turns import Turn

_EPILOG = """\
Of every picture: box x1 y1 x2 y2 and five landmarks in pixels, the detector's score, the head's yaw, pitch and roll in
degrees, the distance of the eyes, and what is poor about the face. With --json one object a line, a line a picture,
of videos and cameras a line a frame with its time.

  visavis detect group.jpg
  visavis detect PHOTOS --json > faces.jsonl
  visavis detect rtsp://camera.example/1 --every 5 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("images", metavar="PICTURE", nargs="+", help=_inputs.HELP)
    add("--every", type=int, default=1, metavar="N", help="of videos look at each N-th frame (1)")
    add("--max-faces", type=int, default=1000, metavar="N", help="of a picture at most so many, largest first (1000)")
    add("--json", action="store_true", help="print one JSON object a picture, a line each")
    add_detection(parser)


def run(args: argparse.Namespace) -> int:
    """Look at every picture and print what is there."""
    import json

    from visavis.cli._inputs import expand, tell_left_out
    from visavis.deploy.detectors import named_detector
    from visavis.errors import DataError

    if args.max_faces < 1:
        raise DataError(f"--max-faces must be at least 1, got {args.max_faces}")
    if args.every < 1:
        raise DataError(f"--every must be at least 1, got {args.every}")
    detector = named_detector(args.detector, min_face=args.min_face)
    failed = seen = faces = 0
    left_out = []
    alone = len(args.images) == 1
    try:
        for one in expand(args.images):
            if one.kind == "left out":
                left_out.append(one)
                continue
            for answer in _answers(one, detector, args, alone=alone and one.name == args.images[0]):
                failed, seen, faces = failed + ("error" in answer), seen + 1, faces + len(answer["faces"])
                if args.json:
                    print(json.dumps(answer, ensure_ascii=False), flush=True)
                else:
                    print("\n".join(_lines(answer)), flush=True)
        if not seen:
            raise DataError(f"{' '.join(args.images)}: expected pictures, got {len(left_out)} other entries")
    finally:  # Ctrl-C ends a camera
        if not args.json and seen > 1:
            print(f"{faces:,} faces in {seen - failed:,} pictures")
        _tell_failed(failed)
        tell_left_out(left_out)
    return 2 if failed else 0


def _answers(one: Input, detector: Any, args: argparse.Namespace, *, alone: bool) -> Iterator[dict[str, Any]]:
    """The objects of a picture, or of each frame of a video or stream."""
    from visavis.errors import DataError
    from visavis.vision.video import LiveVideo, read_video, shown

    if one.kind == "picture":
        yield _look(one.name, one.name, detector, args, turn=args.turn, alone=alone)
        return
    try:
        live = LiveVideo(one.name) if one.kind == "stream" else None
        try:
            for frame in live if live is not None else read_video(one.name, every=args.every):
                if live is None or frame.number % args.every == 0:
                    turn = "always" if args.turn == "always" else "never"
                    found = _look(shown(one.name), frame.image, detector, args, turn=turn, alone=alone)
                    yield {**found, "frame": frame.number, "time": round(frame.time, 3)}
        finally:
            if live is not None:
                live.close()
    except DataError as error:
        if alone:
            raise
        yield {"picture": shown(one.name), "error": str(error), "faces": []}


def _look(name: str, image: Any, detector: Any, args: argparse.Namespace, *, turn: Turn, alone: bool) -> dict[str, Any]:
    """The JSON object of one picture; one that cannot be read has `error`, and stops where it is the only one."""
    from visavis.deploy.find_faces import find_faces
    from visavis.deploy.json_views import face_json
    from visavis.errors import DataError
    from visavis.vision.image_inputs import load_image
    from visavis.vision.images import LARGE
    from visavis.vision.preprocessing import PreprocessSpec

    try:
        image = load_image(image, name=name, large=LARGE if args.min_face is None else None)
    except DataError as error:
        if alone:
            raise
        return {"picture": name, "error": str(error), "faces": []}
    found = find_faces(image, detector, PreprocessSpec(), turn=turn, max_faces=args.max_faces)
    faces = [face_json(face, all_faces=True) for face in found]
    return {"picture": name, "turned": found[0].turned if found else 0, "faces": faces}


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    if "error" in answer:
        yield f"{answer['picture']}: {answer['error']}"
        return
    count = len(answer["faces"])
    at = f" {answer['time']:.2f} s" if "time" in answer else ""
    yield f"{answer['picture']}{at}: {'no face' if not count else '1 face' if count == 1 else f'{count} faces'}"
    if answer["turned"]:
        yield f"  {turned_note(answer['turned'])}"
    for face in answer["faces"]:
        x1, y1, x2, y2 = (round(v) for v in face["box"])
        pose = " ".join(f"{name} {face['pose'][name]:+.0f}°" for name in ("yaw", "pitch", "roll"))
        poor = f"  ({'; '.join(face['reasons'])})" if face["reasons"] else ""
        place = f"{x1:5} {y1:5} {x2:5} {y2:5}"
        yield f"  {place}  score {face['score']:.3f}  {pose}  eyes {face['eye_distance']:.0f} px{poor}"


def _tell_failed(failed: int) -> None:
    import sys

    if failed:
        print(f"{failed:,} pictures could not be read", file=sys.stderr)
