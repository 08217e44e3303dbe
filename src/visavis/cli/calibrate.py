"""`visavis calibrate MODEL PHOTOS`: decision thresholds measured on pictures of one's own, kept in the model's card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.cli._detection import add_detection, detection_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from visavis.data.sources.base import Source
    from visavis.deploy.recognizer import Recognizer
    from visavis.evaluate.protocols.folder import FolderProtocol
    from visavis.evaluate.report.report import Report

EPILOG = """PHOTOS holds a folder per person: photographs, in which the large central face counts, or aligned crops.
Every picture is compared with every other. A rate is kept when at least ten impostor comparisons may match at it: 50
people of 4 pictures support 1e-3 (19,600 impostor comparisons). A threshold holds for people and cameras like those."""

FOUND = "found and aligned in photographs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model folder, a run folder (its best model) or a packaged model's name")
    add("photos", metavar="PHOTOS", help="a folder per person")
    add(
        "--fmr",
        type=float,
        nargs="+",
        default=[],
        metavar="RATE",
        help="rates (default: those of 1e-1 … 1e-4 supported)",
    )
    add("--aligned", action="store_true", help="PHOTOS are aligned crops (default: looked at, and said)")
    add("--identities", metavar="FILE", help="these people of PHOTOS only, a name a line")
    add("--out", metavar="DIR", help="keep a calibrated copy of the model here (default: the model folder's own card)")
    add("--json", metavar="FILE", help="write the figures")
    add("--html", metavar="FILE", help="write the report as one page")
    add("--bootstrap", metavar="N", type=int, default=200, help="draws of subjects for intervals, 0 = none (200)")
    add("--seed", type=int, default=0, help="of the draws (0)")
    add("--batch-size", metavar="N", type=int, default=64, help="pictures at once (64)")
    add_detection(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, keep and tell."""
    from visavis.evaluate.calibrate import check_rates, keep_thresholds, supported_rates, with_calibration
    from visavis.evaluate.protocols.folder import FolderProtocol, load_folder
    from visavis.evaluate.protocols.loading import ProtocolArgs, SourceImages
    from visavis.models.find import find_model
    from visavis.runtimes import REPORT, require

    if args.html:
        require(*REPORT)
    folder = model_folder(args.model)
    task = load_folder(ProtocolArgs(Path(args.photos), options={"identities": args.identities}))
    protocol, images = task.protocol, task.images
    assert isinstance(protocol, FolderProtocol)
    assert isinstance(images, SourceImages)
    assert isinstance(protocol, FolderProtocol)
    rates = tuple(args.fmr) or supported_rates(protocol.describe()["impostors_drawn"])
    check_rates(protocol, rates)
    target = copy_target(args, folder)
    report, crops = _measure(args, protocol, images.source)
    report, thresholds = with_calibration(report, rates, seed=args.seed)
    about = {"people": protocol.describe()["subjects"], "pictures": len(protocol.images), "crops": crops}
    kept_in = folder
    if target is not None:
        copy_model(folder, target)
        kept_in = find_model(target)
    keep_thresholds(kept_in, {rate: {**entry, **about} for rate, entry in thresholds.items()}, replace=True)
    _tell(args, report, rates, kept_in, copied=target is not None)
    return 0


def model_folder(model: str) -> Path:
    """The folder whose card is to keep the thresholds.

    Raises:
        RecipeError: MODEL is an exported file.
    """
    from visavis.errors import RecipeError
    from visavis.models.find import find_model

    found = find_model(model)
    if not found.is_dir():
        raise RecipeError(f"{found}: thresholds are kept in a model folder's card.json, got an exported file")
    return found


def copy_target(args: argparse.Namespace, folder: Path) -> Path | None:
    """Where a copy goes: --out, for a packaged model a folder of its own in the cache, else nowhere.

    Raises:
        DataError: --out is there already.
    """
    import hashlib

    from visavis.errors import DataError
    from visavis.files import digest_of
    from visavis.machine import cache_home
    from visavis.models.card import CARD

    if args.out:
        out = Path(args.out)
        if out.exists():
            raise DataError(f"{out} is there already; name a new folder with --out, or delete it")
        return out
    models = cache_home() / "models"
    if Path(args.model).exists() or not folder.resolve().is_relative_to(models.resolve()):
        return None
    place = f"{args.photos} {Path(args.photos).resolve()} {digest_of(folder / CARD)}"
    return models / f"{args.model}-calibrated-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def copy_model(folder: Path, target: Path) -> None:
    """Copy a model folder without a run's checkpoint, whole or not at all; an earlier copy there is replaced."""
    import shutil

    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part, ignore=shutil.ignore_patterns("checkpoint*", "identities.json", "*.part", ".lock"))
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def _measure(args: argparse.Namespace, protocol: FolderProtocol, source: Source) -> tuple[Report, str]:
    """All pairs of the faces, and in words how the crops were come by."""
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.data.validate.trained_on import read_trained_on
    from visavis.deploy.recognizer import Recognizer
    from visavis.evaluate.protocols.base import EvaluationSettings
    from visavis.evaluate.runner import evaluate
    from visavis.models.caution import caution

    recognizer = Recognizer.load(args.model, **detection_options(args))
    crop, said = crops_of(recognizer, source, aligned=args.aligned)
    print(f"{len(source):,} pictures of {len(source.identities):,} people; faces are {said}")
    with embedding_bar("comparing") as show:
        report = evaluate(
            recognizer.embedder,
            protocol,
            crop,
            settings=EvaluationSettings(bootstrap=args.bootstrap, seed=args.seed, fmrs=(1e-1, 1e-2, 1e-3, 1e-4)),
            batch_size=args.batch_size,
            progress=show,
            model={"path": str(args.model)},
            caution=caution(recognizer.card),
            trained_on=read_trained_on(args.model),
        )
    return report, said


def crops_of(recognizer: Recognizer, source: Source, *, aligned: bool) -> tuple[Callable[[str], Any], str]:
    """A function from a picture's name to its crop, and in words how crops are come by: found, or taken as they are.

    Unless told that they are `aligned`, pictures whose faces lie elsewhere than a crop's, or whose shape is no crop's,
    are photographs.
    """
    from visavis.data.photographs import look_like_photographs
    from visavis.errors import DataError
    from visavis.vision.preprocessing import fit_crop

    place = {name: i for i, name in enumerate(source.names)}

    def image(name: str) -> Any:
        return source.image(place[name])

    def has_no_crops_shape(name: str) -> bool:
        try:
            pixels = image(name)
        except DataError:
            return False  # unreadable: whoever embeds it says so
        try:
            fit_crop(pixels, recognizer.spec)
        except DataError:
            return True
        return False

    photographs = not aligned and (
        any(map(has_no_crops_shape, source.names[:: max(1, len(source) // 9)]))
        or look_like_photographs(image, source.names, recognizer.spec)
    )
    if photographs:
        return lambda name: recognizer.crop(image(name), name=name), FOUND
    height, width = recognizer.spec.size
    return image, f"taken for aligned crops of {height}×{width}{'' if aligned else ', which they look like'}"


def _tell(args: argparse.Namespace, report: Report, rates: tuple[float, ...], folder: Path, *, copied: bool) -> None:
    from visavis.cli.evaluate import print_failures, write_report
    from visavis.evaluate.calibrate import DEFAULT_RATES
    from visavis.metrics.error_rates import rate_name

    counts = report.results["comparisons"]
    print("".join(f"{warning}\n" for warning in report.warnings), end="")
    print(f"{counts['genuine']:,} genuine and {counts['impostor']:,} impostor comparisons\n")
    print(report.tables[1].to_text())
    for rate in rates:
        if (few := int(rate * counts["impostor"] * (1 + 1e-12))) < 10:
            print(f"FMR {rate_name(rate)} rests on {few} false matches: take it as a guess, or show more people")
    for rate in (r for r in DEFAULT_RATES if r < min(rates)):
        wanted = round(10 / rate)
        print(f"not supported: FMR {rate_name(rate)} wants {wanted:,} impostor comparisons (ten false matches)")
        break
    print_failures(report.context["failures_to_acquire"])
    _tell_closest(report)
    args.markdown = args.latex = None
    write_report(args, report)
    print(
        f"\nkept in {folder / 'card.json'}; visavis verify {folder if copied else args.model} A.jpg B.jpg decides by it"
    )


def _tell_closest(report: Report) -> None:
    """The two most similar pictures of two people: one person twice among them would spoil every threshold."""
    import numpy as np

    scores = report.scores
    similarity = np.where(scores["genuine"], -np.inf, np.nan_to_num(scores["similarity"], nan=-np.inf))
    first = int(np.argmax(similarity))
    names = [str(scores["names"][scores[side][first]]) for side in ("reference", "probe")]
    print(f"most alike of two people ({similarity[first]:.4f}): {names[0]} and {names[1]}; are they two?")
