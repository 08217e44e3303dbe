"""`visavis detect`: where the faces of pictures are, how they look, and how fit they are; no model is wanted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from visavis.cli._detection import add_detection, turned_note

_EPILOG = """\
Of every picture: box x1 y1 x2 y2 and five landmarks in pixels, the detector's score, the head's yaw, pitch and roll in
degrees, the distance of the eyes, and what is poor about the face. With --json one object a line, a line a picture.

  visavis detect group.jpg
  visavis detect PHOTOS --json > faces.jsonl
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("pictures", metavar="PICTURE", nargs="+", help="pictures, or folders, in which all pictures are looked at")
    add("--max-faces", type=int, default=1000, metavar="N", help="of a picture at most so many, largest first (1000)")
    add("--json", action="store_true", help="print one JSON object a picture, a line each")
    add_detection(parser)


def run(args: argparse.Namespace) -> int:
    """Look at every picture and print what is there."""
    import json

    from visavis.deploy.detectors import named_detector
    from visavis.errors import DataError

    if args.max_faces < 1:
        raise DataError(f"--max-faces must be at least 1, got {args.max_faces}")
    pictures, left_out = _pictures(args.pictures)
    detector = named_detector(args.detector, min_face=args.min_face)
    failed = seen = faces = 0
    for picture in pictures:
        answer = _look(picture, detector, args, alone=len(pictures) == 1)
        failed, seen, faces = failed + ("error" in answer), seen + 1, faces + len(answer["faces"])
        if args.json:
            print(json.dumps(answer, ensure_ascii=False), flush=True)
        else:
            print("\n".join(_lines(answer)), flush=True)
    if not args.json and len(pictures) > 1:
        print(f"{faces:,} faces in {seen - failed:,} pictures")
    _tell_left_out(failed, left_out)
    return 2 if failed else 0


def _pictures(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Files as named, folders walked as every verb walks them; and what was left out of these, with the reason."""
    from pathlib import Path

    from visavis.data.sources.folder import find_images
    from visavis.errors import DataError

    pictures: list[str] = []
    left_out: list[tuple[str, str]] = []
    for word in words:
        if not Path(word).is_dir():
            pictures.append(word)
            continue
        names, left = find_images(Path(word))
        if not names:
            raise DataError(f"{word}: expected pictures, got {len(left)} other entries")
        pictures += [str(Path(word) / name) for name in names]
        left_out += [(str(Path(word) / name), reason) for name, reason in left]
    return pictures, left_out


def _look(picture: str, detector: Any, args: argparse.Namespace, *, alone: bool) -> dict[str, Any]:
    """The JSON object of one picture; one that cannot be read has `error`, and stops where it is the only one."""
    from visavis.deploy.find_faces import find_faces
    from visavis.deploy.json_views import face_json
    from visavis.errors import DataError
    from visavis.vision.image_inputs import load_image
    from visavis.vision.images import LARGE
    from visavis.vision.preprocessing import PreprocessSpec

    try:
        image = load_image(picture, name=picture, large=LARGE if args.min_face is None else None)
    except DataError as error:
        if alone:
            raise
        return {"picture": picture, "error": str(error), "faces": []}
    found = find_faces(image, detector, PreprocessSpec(), turn=args.turn, max_faces=args.max_faces)
    faces = [face_json(face, all_faces=True) for face in found]
    return {"picture": picture, "turned": found[0].turned if found else 0, "faces": faces}


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    if "error" in answer:
        yield f"{answer['picture']}: {answer['error']}"
        return
    count = len(answer["faces"])
    yield f"{answer['picture']}: {'no face' if not count else '1 face' if count == 1 else f'{count} faces'}"
    if answer["turned"]:
        yield f"  {turned_note(answer['turned'])}"
    for face in answer["faces"]:
        x1, y1, x2, y2 = (round(v) for v in face["box"])
        pose = " ".join(f"{name} {face['pose'][name]:+.0f}°" for name in ("yaw", "pitch", "roll"))
        poor = f"  ({'; '.join(face['reasons'])})" if face["reasons"] else ""
        place = f"{x1:5} {y1:5} {x2:5} {y2:5}"
        yield f"  {place}  score {face['score']:.3f}  {pose}  eyes {face['eye_distance']:.0f} px{poor}"


def _tell_left_out(failed: int, left_out: list[tuple[str, str]]) -> None:
    import sys

    if failed:
        print(f"{failed:,} pictures could not be read", file=sys.stderr)
    if left_out:
        name, reason = left_out[0]
        print(f"{len(left_out):,} entries are no pictures, first: {name} ({reason})", file=sys.stderr)
