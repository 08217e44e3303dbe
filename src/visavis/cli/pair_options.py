"""The options of every verb that reads a pair list: how the list is written."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visavis.data.pair_lists.dialect import Dialect


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("how the pair list is written")
    add = group.add_argument
    add("--pairs-extension", metavar="EXT", default=".jpg", help="of the pictures `name n` means (default .jpg)")
    add("--pairs-digits", metavar="N", type=int, default=4, help="their number is padded to (default 4; 0: not padded)")
    add(
        "--pairs-separator",
        choices=("auto", "tab", "blank", "comma", "semicolon"),
        default="auto",
        help="of the fields (default auto: TABs where a line has one, else blanks)",
    )
    add("--pairs-folds", metavar="N", type=int, default=10, help="folds of a list that states none (default 10)")


def dialect_of(args: argparse.Namespace) -> Dialect:
    """What was typed."""
    from visavis.data.pair_lists.dialect import Dialect

    return Dialect(args.pairs_extension, args.pairs_digits, args.pairs_separator, args.pairs_folds)
