"""visavis forget: erase subjects from a gallery, and prove it."""

from __future__ import annotations

import argparse

from visavis.cli._audit import add_audit, audited
from visavis.cli.gallery_actions import GALLERY, add_threshold


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help=GALLERY)
    parser.add_argument("names", metavar="NAME", nargs="*", help="subjects to erase")
    parser.add_argument("--id", type=int, action="append", default=[], metavar="N", help="a subject by number")
    parser.add_argument(
        "--sample",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="erase only this sample of the one subject named (see: visavis gallery GALLERY samples NAME)",
    )
    add_threshold(parser, "also erase unknown faces this similar to the subjects; the model's threshold without")
    parser.add_argument("--expired", action="store_true", help="erase everybody whose retention period is over")
    add_audit(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json
    import sys

    from visavis.cli._gallery import count_subjects
    from visavis.cli.gallery_actions import find_threshold
    from visavis.deploy.gallery.opening import open_gallery
    from visavis.deploy.json_views import forgotten_json
    from visavis.errors import DataError

    if not args.names and not args.id and not args.expired:
        raise DataError("whom? give names, --id N, or --expired")
    whom = [*args.names, *args.id]
    if args.sample and (len(whom) != 1 or args.expired):
        raise DataError(f"--sample is of one subject: give one NAME or --id, got {len(whom)}")

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"{text} ...", file=sys.stderr)

    with audited(args, "forget", changes=True) as about, open_gallery(args.gallery) as gallery:
        threshold = find_threshold(gallery, args)
        if args.sample:
            about |= {"subjects": [gallery.subject(whom[0]).id], "samples": args.sample}
            receipts = [gallery.forget_samples(whom[0], args.sample, threshold=threshold, progress=say)]
        else:
            receipts = [gallery.forget(*whom, threshold=threshold, progress=say)] if whom else []
        if args.expired and (swept := gallery.sweep(threshold=threshold, progress=say)):
            receipts.append(swept)
        about["complete"] = all(receipt.complete for receipt in receipts)
        about.setdefault("subjects", [number for receipt in receipts for number in receipt.ids])
        left = count_subjects(gallery)
    if args.json:
        print(json.dumps({"receipts": [forgotten_json(r) for r in receipts], "subjects": left}, indent=2))
    for receipt in () if args.json else receipts:
        faces = f", {receipt.unknown_faces} unknown faces" if receipt.unknown_faces else ""
        print(
            f"erased {receipt.subjects} subjects, {receipt.samples} samples, {receipt.crops} crops{faces}"
            + (
                f"; searched {receipt.bytes_searched:,} bytes of {', '.join(receipt.files)} for {receipt.fingerprints} "
                f"pieces: {receipt.found} found"
                if receipt.files
                else f"; {receipt.found} rows found"
            )
        )
        if receipt.note:
            print(f"  {receipt.note}")
    if not args.json and left is not None:
        print(f"the gallery holds {'1 subject' if left == 1 else f'{left} subjects'}")
    return 0 if all(receipt.complete for receipt in receipts) else 1
