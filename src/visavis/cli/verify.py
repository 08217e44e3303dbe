"""visavis verify: one picture against another."""

from __future__ import annotations

import argparse

from visavis.cli._detection import add_detection, detection_options, turned_note

WORDS = "words"
EXIT_CODES = {True: 0, False: 1, None: 3}  # with --exit-code; 2 is a mistake in what was typed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "visavis verify [MODEL] A B [options]"
    parser.add_argument(
        "words",
        nargs="+",
        metavar="[MODEL] A B",
        help="two pictures; before them a model folder, run folder, .onnx file or packaged\n"
        "model (see: visavis models), the default one when left out",
    )
    parser.add_argument(
        "--fmr", type=float, metavar="RATE", help="false match rate to decide at (1e-3, or the strictest calibrated)"
    )
    parser.add_argument("--threshold", type=float, metavar="S", help="decide at this cosine similarity instead")
    parser.add_argument(
        "--aligned", action="store_true", help="both are aligned crops already; do not search for faces"
    )
    add_detection(parser)
    parser.add_argument("--show", metavar="OUT.png", help="write the two crops side by side")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 0 for a match, 1 for none, 3 where there is no decision"
    )


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.deploy.json_views import verification_json
    from visavis.deploy.recognizer import Recognizer
    from visavis.errors import RecipeError

    if len(args.words) not in (2, 3):
        raise RecipeError(f"verify compares two pictures: visavis verify [MODEL] A B, got {len(args.words)} words")
    reference, probe = args.words[-2:]
    recognizer = Recognizer.load(args.words[0] if len(args.words) == 3 else None, **detection_options(args))
    result = recognizer.verify(reference, probe, fmr=args.fmr, threshold=args.threshold, aligned=args.aligned)
    if args.show:
        from visavis.deploy.contact_image import write_pair

        write_pair(args.show, result)
    if args.json:
        print(json.dumps(verification_json(result), indent=2))
    else:
        _tell(args, result, (reference, probe))
    return EXIT_CODES[result.match] if args.exit_code else 0


def _tell(args: argparse.Namespace, result, names: tuple[str, str]) -> None:
    verdict = {True: "match", False: "no match", None: "undecided"}[result.match]
    at = "" if result.threshold is None else f", threshold {result.threshold:.4f}"
    at += "" if result.fmr is None else f" at FMR {result.fmr:g}"
    chance = "" if result.probability is None else f", probability {result.probability:.4f}"
    print(f"{verdict}: similarity {result.similarity:.4f}{at}{chance}")
    for note in result.notes:
        print(f"  {note}")
    for name, face in zip(names, (result.reference, result.probe), strict=True):
        if face.turned:
            print(f"  {name}: {turned_note(face.turned)}")
        for reason in face.reasons:
            print(f"  {name}: {reason}")
    if args.show:
        print(f"  crops: {args.show}")
