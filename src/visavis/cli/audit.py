"""visavis audit: whether an audit log is whole."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help="check: nothing was changed, removed, inserted or cut off")
    parser.add_argument("files", metavar="FILE", nargs="+", help="the log, after the files it was rotated to")
    parser.add_argument(
        "--start", type=int, default=1, metavar="N", help="number of the first record, when older files are no more (1)"
    )
    parser.add_argument(
        "--anchor", metavar="N:DIGEST", help="a record's number and digest kept elsewhere, which must be in the log"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.deploy.server.audit_chain import Link
    from visavis.deploy.server.audit_check import check_audit
    from visavis.errors import DataError, RecipeError, unknown_name

    if args.action != "check":
        raise RecipeError(unknown_name("action", args.action, ["check"]))
    if args.start < 1:
        raise DataError(f"--start counts from 1, got {args.start}")
    anchor = None
    if args.anchor is not None:
        number, _, digest = args.anchor.partition(":")
        if not number.isdigit() or len(digest) != 64:
            raise DataError("--anchor wants a record's number and its 64 hexadecimal digits, like 120:5f3a...")
        anchor = Link(int(number), digest)
    done = check_audit(args.files, start=args.start, anchor=anchor)
    if args.json:
        print(json.dumps({**vars(done), "head": vars(done.head), "whole": not done.findings}, indent=2))
        return 1 if done.findings else 0
    for line in (*done.notes[:20], *done.findings[:100]):
        print(line)
    hidden = max(0, len(done.notes) - 20) + max(0, len(done.findings) - 100)
    if hidden:
        print(f"... and {hidden} more")
    span = f", {done.first} to {done.last}" if done.records else ""
    state = f"{len(done.findings)} findings" if done.findings else "whole"
    print(f"{done.records} records{span}: {state}")
    if done.records:
        print(f"last record {done.head.number}:{done.head.digest}")
    return 1 if done.findings else 0
