"""The actions of `visavis gallery`: what each takes, does and says."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GALLERY = "the gallery's file, or postgresql://USER@HOST/DATABASE?schema=NAME"
Answer = tuple[Any, list[str]]  # values for --json, lines for people


@dataclass(frozen=True)
class Action:
    """One action: its line of help, its arguments, and what it does with an open gallery."""

    line: str
    run: Callable[[Any, argparse.Namespace], Answer]
    configure: Callable[[argparse.ArgumentParser], None] = lambda _: None


def add_threshold(parser: argparse.ArgumentParser, what: str = "similarity from which two count as one person") -> None:
    """The options by which a similarity is named."""
    parser.add_argument("--threshold", type=float, metavar="S", help=what)
    parser.add_argument("--fmr", type=float, metavar="RATE", help="or the model's threshold at this FMR")


def find_threshold(gallery: Any, args: argparse.Namespace) -> float | None:
    """The threshold typed, or that of the model remembered for the gallery; None when there is none."""
    from pathlib import Path

    from visavis.deploy.operating_point import operating_point
    from visavis.deploy.recognizer import card_of

    note = Path(args.gallery + ".model")
    model = getattr(gallery, "model_path", None) or (note.read_text().strip() if note.is_file() else None)
    card = card_of(model) if args.threshold is None and model is not None and Path(model).exists() else None
    point = operating_point(card, fmr=args.fmr, threshold=args.threshold)
    return None if point is None else point.threshold


def threshold_of(gallery: Any, args: argparse.Namespace) -> float:
    """As `find_threshold`, where one is needed."""
    from visavis.deploy.operating_point import HOW_TO
    from visavis.errors import DataError

    threshold = find_threshold(gallery, args)
    if threshold is None:
        raise DataError(f"from which similarity on? add --threshold S; the model has no calibrated one: {HOW_TO}")
    return threshold
