"""visavis compare: a paired test of evaluations on the same comparisons, or of groups of seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from visavis.runtimes import REPORT, require

_EPILOG = """\
  visavis compare a.json b.json                  b against a: McNemar, bootstrap over subjects
  visavis compare a.json b.json c.json --html c.html
  visavis compare a1.json a2.json a3.json --versus b1.json b2.json b3.json      runs that differ by their seed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("reports", nargs="+", metavar="JSON", help="evaluations; each is tested against the first")
    add(
        "--versus", nargs="+", metavar="JSON", help="runs of another setting: the positional ones are runs of the first"
    )
    add("--data", metavar="SRC", help="the pictures: shows the hardest pairs, and those the models differ on")
    add("--bootstrap", metavar="N", type=int, default=1000, help="draws of subjects, 0 = none (1000)")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    add("--json", metavar="FILE", help="write the figures")
    add("--html", metavar="FILE", help="write one page")
    add("--markdown", metavar="FILE", help="write the tables in Markdown")
    add("--latex", metavar="FILE", help="write the tables in LaTeX")


def run(args: argparse.Namespace) -> int:
    """Read, test, print, write."""
    if args.html:
        require(*REPORT)
    from visavis.cli.evaluate import write_report
    from visavis.evaluate.compare.comparison import compare
    from visavis.evaluate.compare.saved import read_evaluation

    if args.versus:
        report = _seeds(args)
    else:
        evaluations = [read_evaluation(path) for path in args.reports]
        report = compare(evaluations, replicates=args.bootstrap, seed=args.seed, images=_images(args))
    print(report)
    write_report(args, report)
    return 0


def _images(args: argparse.Namespace) -> Any:
    if args.data is None:
        return None
    from visavis.data.sources import open_source
    from visavis.evaluate.protocols.loading import SourceImages

    return SourceImages(open_source(args.data))


def _seeds(args: argparse.Namespace) -> Any:
    from visavis.evaluate.compare.seeds import compare_seeds

    return compare_seeds([Path(p) for p in args.reports], [Path(p) for p in args.versus])
