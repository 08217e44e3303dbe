"""`visavis adapt MODEL PHOTOS --out ADAPTED`: what few people of one's own can do for a model, without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.cli._detection import add_detection, detection_options

if TYPE_CHECKING:
    from visavis.metrics.centering import CenteringGain

EPILOG = """PHOTOS holds a folder per person, of photographs or aligned crops, twenty people at least. The mean of their
embeddings is taken away behind the network: what all of one's people have in common makes no two of them alike any
more. First it is tried: half of the people give the mean, all pairs of the others are judged. TMR at FMR 1e-3 of 400
others: imported MobileFaceNet +1.2 points with 100 people, +1.0 with 20; sface +0.2 and +0.1 (docs/finetuning.md).
Calibrate the result on other people, or on these where there are no others: visavis calibrate ADAPTED PHOTOS."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder with an ONNX export, .onnx file or packaged model")
    add("photos", metavar="PHOTOS", help="a folder per person")
    add("--out", metavar="ADAPTED", required=True, help="model folder to write")
    add("--aligned", action="store_true", help="PHOTOS are aligned crops (default: looked at, and said)")
    add("--identities", metavar="FILE", help="these people of PHOTOS only, a name a line")
    add("--anyway", action="store_true", help="write it also where the trial shows no gain")
    add("--seed", type=int, default=0, help="of the trial's halves (0)")
    add("--batch-size", metavar="N", type=int, default=64, help="pictures at once (64)")
    add_detection(parser)


def run(args: argparse.Namespace) -> int:
    """Embed, try, tell, write."""
    import numpy as np

    from visavis.cli.calibrate import crops_of
    from visavis.data.sources import open_source, read_identities
    from visavis.deploy.recognizer import Recognizer, card_of
    from visavis.errors import DataError
    from visavis.export.centered_model import write_centered
    from visavis.metrics.centering import FEWEST_PEOPLE, expected_gain

    if Path(args.out).exists():
        raise DataError(f"{args.out} is there already; name a new folder with --out, or delete it")
    source = open_source(args.photos)
    if args.identities:
        source = source.only(read_identities(args.identities))
    if len(source.identities) < FEWEST_PEOPLE:
        raise DataError(f"{args.photos}: adapt wants {FEWEST_PEOPLE} people at least, got {len(source.identities)}")
    embedder = graph_embedder(args.model, args.batch_size)
    recognizer = Recognizer.load(args.model, **detection_options(args))
    crop, said = crops_of(recognizer, source, aligned=args.aligned)
    print(f"{len(source):,} pictures of {len(source.identities):,} people; faces are {said}")
    features, labels, some, failed = _features(embedder, source, crop, args.batch_size)
    for name, reason in failed[:10]:
        print(f"  left out: {name}: {reason}")
    if len(failed) > 10:
        print(f"  ... {len(failed):,} pictures left out in all")
    gain = expected_gain(features, labels, seed=args.seed)
    worth = _tell(gain, len(np.unique(labels)))
    if not worth and not args.anyway:
        print(f"nothing is written; to write it all the same add --anyway. Use {args.model} as it is")
        return 1
    write_centered(embedder, features, labels, args.out, card=card_of(args.model), try_on=np.stack(some))
    print(f"{args.out}: written; its thresholds are its own: visavis calibrate {args.out} OTHER-PHOTOS")
    return 0


def graph_embedder(model: str, batch_size: int) -> Any:
    """The model run from an ONNX file.

    Raises:
        ModelFormatError: it has none made of its weights; says how to write it.
    """
    from visavis.models.load import load_embedder

    return load_embedder(model, batch_size=batch_size, runtime="onnxruntime")


def _features(
    embedder: Any, source: Any, crop: Any, batch_size: int
) -> tuple[Any, Any, list[Any], list[tuple[str, str]]]:
    """Features and labels of the pictures whose face was found, some crops, and what was left out with the reason."""
    import numpy as np

    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.errors import DataError
    from visavis.export.centered_model import graph_features
    from visavis.vision.preprocessing import fit_crops

    rows: list[Any] = []
    labels: list[int] = []
    waiting: list[Any] = []
    some: list[Any] = []
    failed: list[tuple[str, str]] = []

    def flush() -> None:
        if waiting:
            rows.append(graph_features(embedder, np.stack(waiting)))
            waiting.clear()

    with embedding_bar("embedding") as show:
        for index, name in enumerate(source.names):
            try:
                waiting.append(fit_crops(crop(name)[None], embedder.spec)[0])
                labels.append(int(source.labels[index]))
            except DataError as error:
                failed.append((name, str(error)))
            if len(some) < 16 and waiting:
                some.append(waiting[-1])
            if len(waiting) == batch_size:
                flush()
            show(index + 1, len(source))
        flush()
    if not rows:
        raise DataError(
            f"no face was found in any of {len(source)} pictures; the first: {failed[0][0]}: {failed[0][1]}"
        )
    return np.concatenate(rows), np.array(labels), some, failed


def _tell(gain: CenteringGain, people: int) -> bool:
    """Print the trial; whether it shows a gain: the mean difference is above its standard deviation over the draws."""
    from visavis.evaluate.report.tables import percent
    from visavis.metrics.error_rates import rate_name

    worth = gain.difference > 0 and gain.difference > gain.spread / 2
    print(
        f"tried on halves of the {people} people, {len(gain.before)} draws: TMR at FMR {rate_name(gain.fmr)} of the "
        f"other half from {percent(gain.before.mean())} to {percent(gain.after.mean())} "
        f"({100 * gain.difference:+.2f} points, standard deviation over draws {100 * gain.spread:.2f})"
    )
    print("a gain is shown" if worth else "no gain is shown")
    return worth
