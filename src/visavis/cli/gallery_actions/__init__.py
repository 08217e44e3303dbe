"""The actions of `visavis gallery`: what each takes, does and says."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Answer = tuple[Any, list[str]]  # values for --json, lines for people


@dataclass(frozen=True)
class Action:
    """One action: its line of help, its arguments, and what it does with an open gallery."""

    line: str
    run: Callable[[Any, argparse.Namespace], Answer]
    configure: Callable[[argparse.ArgumentParser], None] = lambda _: None


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """The options by which a similarity is named."""
    parser.add_argument("--threshold", type=float, metavar="S", help="similarity from which two count as one person")
    parser.add_argument("--fmr", type=float, metavar="RATE", help="or the model's threshold at this FMR")


def threshold_of(args: argparse.Namespace) -> float:
    """The threshold typed, or that of the model remembered beside the gallery."""
    from pathlib import Path

    from visavis.deploy.operating_point import HOW_TO, operating_point
    from visavis.deploy.recognizer import card_of
    from visavis.errors import DataError

    note = Path(args.gallery + ".model")
    card = card_of(note.read_text().strip()) if args.threshold is None and note.is_file() else None
    point = operating_point(card, fmr=args.fmr, threshold=args.threshold)
    if point is None:
        raise DataError(f"from which similarity on? add --threshold S; the model has no calibrated one: {HOW_TO}")
    return point.threshold
