"""What the verbs that look for faces share: --detector, --min-face and --turn."""

from __future__ import annotations

import argparse
from typing import Any


def add_detection(parser: argparse.ArgumentParser, *, named: bool = True) -> None:
    """Add the options; `named` also --detector KIND=FILE."""
    if named:
        parser.add_argument(
            "--detector", metavar="KIND=FILE", help="another detector than MTCNN: yunet, yunet=FILE or scrfd=FILE"
        )
    parser.add_argument(
        "--min-face",
        type=int,
        metavar="PX",
        help="smallest face looked for, in pixels (20 up to 5.5 megapixels, 29 in 12, 59 in 48; time grows as 1/PX²)",
    )
    parser.add_argument(
        "--turn",
        choices=("auto", "never", "always"),
        default="auto",
        help="look at a picture turned by 90, 180 and 270° too: when its face is doubtful (auto), never or always",
    )


def detection_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was chosen, as `Recognizer.load` takes it."""
    return {"detector": args.detector, "min_face": args.min_face, "turn": args.turn}


def turned_note(turned: int) -> str:
    """What is said of a picture that did not stand upright."""
    return f"lay on its side or head; turned by {turned}° to stand upright"
