"""`visavis export`: write a model for another runtime, checked there against the weights."""

from __future__ import annotations

import argparse
from typing import Any

from visavis.cli.pair_options import add_pair_options, dialect_of

_EPILOG = """\
The artifact is run in its own runtime against the weights before it is let in: fp32 must agree to max 1 − cos < 1e-5,
int8 and fp16 must keep the accuracy on --pairs within --max-drop points.

  visavis export MODEL --format onnx
  visavis export MODEL --format openvino --precision int8 --calibrate FACES --data SRC --pairs SRC/pairs.txt
  visavis export MODEL --format onnx --bundle EDGE
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's options."""
    add = parser.add_argument
    parser.epilog = _EPILOG
    add("model", metavar="MODEL", help="model folder, run folder or .onnx file")
    add("--format", default="onnx", metavar="NAME", help="onnx, openvino, torch or mindir (default: onnx)")
    add("--out", metavar="FILE", help="file to write (default: model.* in the model folder)")
    add("--precision", default="fp32", choices=("fp32", "fp16", "int8"), help="default: fp32")
    add("--int8", action="store_true", help="same as --precision int8")
    add("--data", metavar="SRC", help="pictures for the parity check (default: generated faces)")
    add(
        "--pairs",
        metavar="FILE",
        help="judge weights and export on these pairs (default with --max-drop: SRC/pairs.txt)",
    )
    add("--max-drop", type=float, metavar="POINTS", help="accuracy fp16 and int8 may lose on the pairs (default: 0.2)")
    add("--calibrate", metavar="SRC", help="pictures for int8 ranges (default: those of --data)")
    add("--calibration-count", type=int, default=300, metavar="N", help="how many of them (default: 300)")
    add(
        "--calibration-method", default="moving", metavar="HOW", help="int8 ranges: minmax, moving, entropy, percentile"
    )
    add("--crops", type=int, default=64, metavar="N", help="crops of the parity check (default: 64)")
    add(
        "--input",
        default="uint8",
        choices=("uint8", "float"),
        help="uint8 N×H×W×3 or float N×3×H×W, both RGB pixels 0–255",
    )
    add("--flip", choices=("none", "sum", "concat"), help="mirrored view inside the graph (default: the card's)")
    add(
        "--exporter",
        default="torchscript",
        choices=("torchscript", "dynamo"),
        help="torch's exporter (default: torchscript)",
    )
    add("--opset", type=int, default=18, help="ONNX operators, 17 to 23 (default: 18)")
    add("--batch", type=int, metavar="N", help="fixed batch size (default: any)")
    add(
        "--with-classifier",
        action="store_true",
        help="a second output, the logits over the identities trained on (train --with-classifier)",
    )
    add(
        "--bundle",
        metavar="DIR",
        help="also write an edge folder: model, preprocess, postprocess, runner without torch",
    )
    add_pair_options(parser)


def run(args: argparse.Namespace) -> int:
    """Open, export, prove, say."""
    from pathlib import Path

    from rich.console import Console

    from visavis.errors import RecipeError
    from visavis.export.formats.base import Options
    from visavis.export.gates.parity import crops_of
    from visavis.export.model import open_model
    from visavis.export.pipeline import export_model

    precision = "int8" if args.int8 else args.precision
    if args.crops < 1 or args.calibration_count < 1 or (args.batch is not None and args.batch < 1):
        raise RecipeError("--crops, --calibration-count and --batch must be at least 1")
    if args.bundle and args.format != "onnx":
        raise RecipeError(f"--bundle runs in ONNX Runtime and wants --format onnx, got {args.format}")
    if args.data is None and args.pairs is not None:
        args.data = str(Path(args.pairs).parent)  # the pictures lie beside their list unless said otherwise
    status = Console(stderr=True, highlight=False)
    model = open_model(args.model, flip=args.flip, with_classifier=args.with_classifier)
    crops = crops_of(args.data, model.card.preprocess, count=args.crops)
    options = Options(
        precision=precision,
        pixels=args.input,
        exporter=args.exporter,
        opset=args.opset,
        batch=args.batch,
        calibration=_calibration(args, model, precision),
        pairs=_pairs(args),
        max_drop=_budget(args, precision),
        calibration_method=args.calibration_method,
    )
    with status.status("exporting") as spinner:

        def progress(line: str) -> None:
            spinner.update(line)
            if not status.is_terminal:
                status.print(line)

        done = export_model(model, args.format, crops, out=args.out, options=options, progress=progress)
    _report(done)
    if args.bundle:
        from visavis.export.edge_bundle import write_bundle

        folder = write_bundle(args.bundle, done.path)
        print(f"edge folder: {folder} (start with its README.md)")
    return 0


def _calibration(args: argparse.Namespace, model: Any, precision: str) -> Any:
    if precision != "int8":
        return None
    from visavis.export.gates.parity import crops_of

    return crops_of(args.calibrate or args.data, model.card.preprocess, count=args.calibration_count, seed=1)


def _pairs(args: argparse.Namespace) -> Any:
    if args.pairs is None and (args.max_drop is None or args.data is None):
        return None
    from visavis.export.gates.accuracy import open_pairs

    return open_pairs(args.data, args.pairs, dialect=dialect_of(args))


def _budget(args: argparse.Namespace, precision: str) -> float | None:
    if args.max_drop is not None:
        return args.max_drop
    return 0.2 if precision != "fp32" and args.pairs is not None else None


def _report(done: Any) -> None:
    parity, record = done.record["parity"], done.record
    print(f"{done.path}: {record['format']} {record['precision']}, {record['bytes'] / 1e6:.2f} MB")
    print(
        f"  parity in {parity['runtime']}: max 1 − cos {parity['max_1_minus_cos']:.1e} over {parity['crops']} crops of "
        f"{parity['crops_from']} (allowed {parity['tolerance']:g})"
    )
    if "classifier" in record:
        logits = record["classifier"]
        print(
            f"  classifier of {logits['identities']:,} identities: logits off by {logits['difference']:.1e} of their "
            f"spread (allowed {logits['tolerance']:g}), {100 * logits['top1_agreement']:.1f} % of decisions the same"
        )
    if "accuracy" in record:
        found = record["accuracy"]
        print(
            f"  {found['pairs']:,} pairs: {100 * found['accuracy']:.2f} % "
            f"(weights {100 * found['reference_accuracy']:.2f} %), {found['points_lost']:+.2f} points lost"
        )
        if found.get("warning"):
            print(f"  {found['warning']}")
    elif record["precision"] == "int8":
        print(
            f"  accuracy not judged (--pairs FILE does); similarities of pairs move by {parity['score_noise']:.2f} of "
            "their spread (allowed 0.5)"
        )
    for line in done.notes:
        print(f"  {line}")
