"""`visavis recipes`: the recipes that come with visavis, or the text of one."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe")


def run(args: argparse.Namespace) -> int:
    """Print."""
    from visavis.train.recipe import recipe_names, recipe_text

    if args.name:
        print(recipe_text(args.name), end="")
        return 0
    width = max(map(len, recipe_names()))
    for name in recipe_names():
        first = recipe_text(name).splitlines()[0].lstrip("# ")
        print(f"{name:{width}}  {first}")
    print("\nprint one: visavis recipes NAME; train one: visavis train NAME --out RUN")
    return 0
