"""`visavis convert SRC DST`: from any data format of the field to any other."""

from __future__ import annotations

import argparse
from pathlib import Path

from visavis.cli.pair_options import add_pair_options, dialect_of


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="folder per identity, train.rec or its folder, .bin, list")
    parser.add_argument("target", metavar="DST", help="folder, .rec, .bin or a list (.txt, .csv)")
    parser.add_argument("--to", choices=["folder", "record", "bin", "list", "mass"], help="default: told from DST")
    parser.add_argument("--pairs", metavar="FILE", help="comparisons for .bin and mass (default: SRC/pairs.txt)")
    parser.add_argument("--only", metavar="LIST", help="only the identities in a list, one a line")
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave damaged records of a .rec out, and count them"
    )
    add_pair_options(parser)


def run(args: argparse.Namespace) -> int:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.data.convert import convert, copy_beside, target_of
    from visavis.data.pair_lists.reader import read_pairs
    from visavis.data.sources import open_source, read_identities
    from visavis.errors import DataError

    given, target = Path(args.source), Path(args.target)
    source = open_source(given, skip_damaged=args.skip_damaged)
    if args.only:
        source = source.only(read_identities(args.only))
    kind = args.to or target_of(target, source=given)
    if target.resolve() in (given.resolve(), source.path.resolve()):
        raise DataError(f"{target}: SRC and DST are the same")
    listed = Path(args.pairs) if args.pairs else given / "pairs.txt"
    pairs = (
        read_pairs(listed, dialect_of(args)) if args.pairs or (kind in ("bin", "mass") and listed.is_file()) else None
    )
    total = 2 * len(pairs) if pairs is not None and kind in ("bin", "mass") else len(source)
    done = 0
    with embedding_bar("converting") as show:
        for done in convert(source, target, kind, pairs=pairs):
            show(done, total)
    print(f"{done:,} pictures of {len(source.identities):,} identities -> {target} ({kind})")
    if kind == "folder" and (copied := copy_beside(given, target)):
        print(f"copied beside them: {', '.join(copied)}")
    for name, reason in source.skipped[:10]:
        print(f"  left out: {name}: {reason}")
    if len(source.skipped) > 10:
        print(f"  ... {len(source.skipped):,} left out in all")
    return 0
