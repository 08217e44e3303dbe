"""visavis evaluate: run a protocol on a model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from visavis.cli.pair_options import add_pair_options, dialect_of
from visavis.runtimes import REPORT, require

# Names of visavis.evaluate.protocols, typed again: that room takes longer to import than help may.
PROTOCOLS = (
    "pairs, folder, lfw, cfp-ff, cfp-fp, agedb-30, calfw, cplfw, xqlfw, youtube-faces, closed-set,\n"
    "ijb, ijb-search, rfw, groups, identification, tinyface, megaface"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model folder, a run folder (its best model) or an .onnx file")
    add("--protocol", metavar="NAME", default="pairs", help=f"what to run (default: pairs), of:\n{PROTOCOLS}")
    add("--data", metavar="SRC", required=True, help="the pictures: a folder per identity, or any format of visavis")
    add("--pairs", metavar="FILE", help="the pair list (default: SRC/pairs.txt)")
    add("--identities", metavar="FILE", help="folder, closed-set: these people of SRC only, a name a line")
    add("--preset", metavar="NAME", help="judge as a published system does: deepid, sphereface, massface, arcface")
    add("--flip", choices=("none", "sum", "concat"), help="how the mirrored picture joins (default: the model card's)")
    rates = "find the threshold of each false match rate on these impostors and keep it in the model's card"
    add(
        "--calibrate",
        metavar="FMR",
        nargs="*",
        type=float,
        help=rates + "\n(without a rate: 1e-1 to 1e-4, as supported)",
    )
    add("--json", metavar="FILE", help="write the figures")
    add("--html", metavar="FILE", help="write the report as one page")
    add("--scores", metavar="FILE", help="write the scores (default with --json: beside it, .scores.npz)")
    add("--scores-csv", metavar="FILE", help="pairs: write a comparison a line, in the columns of bob.bio")
    add("--score-columns", type=int, choices=(4, 5), default=5, help="... four or five of them (5)")
    add("--markdown", metavar="FILE", help="write the tables in Markdown")
    add("--latex", metavar="FILE", help="write the tables in LaTeX")
    add("--cache", metavar="DIR", help="keep embeddings here by the content of their pictures")
    add("--bootstrap", metavar="N", type=int, default=1000, help="draws of subjects for intervals, 0 = none (1000)")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    add("--batch-size", metavar="N", type=int, default=64, help="pictures at once (64)")
    add("--group-fmr", type=float, default=1e-3, metavar="FMR", help="groups: compared at this rate's threshold (1e-3)")
    add("--max-frames", type=int, metavar="N", help="youtube-faces: so many frames of a video (default: all)")
    add("--no-detector-scores", action="store_true", help="ijb: do not weight pictures by their detector score")
    add(
        "--feature-norms",
        action="store_true",
        help="ijb, youtube-faces: weight pictures by the length of their raw feature",
    )
    add(
        "--allow-missing",
        action="store_true",
        help="listed pictures that are not there (rejected by prepare, say)\ncount as failures to acquire",
    )
    add("--all", action="store_true", help="judge all checkpoints RUN has kept (loop.keep), newest first")
    add("--joint-bayesian", metavar="SRC", help="pairs: score by Joint Bayesian, learned from the people of SRC")
    add("--jb-identities", metavar="FILE", help="... from these of them only, a name a line")
    add("--joint-dim", metavar="N", type=int, default=100, help="... after PCA to so many dimensions (100)")
    add(
        "--classifier",
        action="store_true",
        help="closed-set: by the classifier trained along (train --with-classifier), on SRC/valid.txt",
    )
    add("--no-baseline", action="store_true", help="leave out the raw-pixel row")
    add_pair_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run it, print the table, write what was asked for."""
    if args.html:
        require(*REPORT)
    from visavis.cli.evaluate_all import check_all, evaluate_all, kept_models
    from visavis.errors import ProtocolError
    from visavis.evaluate.calibrate import check_rates
    from visavis.evaluate.presets import get_preset
    from visavis.evaluate.protocols.registry import load_protocol

    if args.all:
        check_all(args)
    if args.preset is not None:
        args.flip = args.flip or get_preset(args.preset).flip
    if args.calibrate is not None:
        _check_calibration(args)
    if args.identities is not None and args.protocol not in ("folder", "closed-set"):
        raise ProtocolError(f"--identities names people of --protocol folder or closed-set, not of {args.protocol}")
    if args.joint_bayesian is not None:
        _check_joint_bayesian(args)
    if args.classifier:
        _check_classifier(args)
    options = {
        "classes": _classes(args) if args.classifier else (),
        "frames": args.max_frames,
        "norms": args.feature_norms,
        "detector_scores": not args.no_detector_scores,
        "allow_missing": args.allow_missing,
        "dialect": dialect_of(args),
        "identities": args.identities,
    }
    task = load_protocol(
        args.protocol,
        args.data,
        pairs=args.pairs,
        model=str(kept_models(args.model)[0][1]) if args.all else args.model,
        **options,
    )
    if args.calibrate is not None:
        check_rates(task.protocol, args.calibrate)
    report = (
        evaluate_all(args, lambda model: _evaluate(args, task, model))
        if args.all
        else _evaluate(args, task, args.model)
    )
    run_folder = Path(args.model)
    if (run_folder / "metrics.jsonl").is_file():
        from visavis.evaluate.report.training_curves import training_plots

        report = report.with_additions(plots=training_plots(run_folder))
    if args.calibrate is not None:
        report = _calibrate(args, report)
    if args.scores_csv:
        from visavis.evaluate.score_files import write_score_csv

        write_score_csv(args.scores_csv, report.scores, columns=args.score_columns)
    print(report)
    print_failures(report.context["failures_to_acquire"])
    write_report(args, report)
    return 0


def _evaluate(args: argparse.Namespace, task: Any, model: str) -> Any:
    """The report of one model."""
    from visavis.data.photographs import warn_of_photographs
    from visavis.data.validate.trained_on import read_trained_on
    from visavis.evaluate.protocols.base import EvaluationSettings
    from visavis.evaluate.runner import evaluate
    from visavis.files import digest_of
    from visavis.models.card import read_card
    from visavis.models.caution import caution
    from visavis.models.find import find_model
    from visavis.models.load import load_embedder
    from visavis.models.logits import load_logits

    load = load_logits if args.classifier else load_embedder
    found = find_model(model)
    embedder = load(model, flip=args.flip, batch_size=args.batch_size)
    warn_of_photographs(task.images, task.protocol.images, getattr(embedder, "spec", None))
    protocol = task.protocol if args.joint_bayesian is None else _joint_bayesian(args, embedder, task.protocol)
    with _bar() as progress:
        report = evaluate(
            embedder,
            protocol,
            task.images,
            settings=EvaluationSettings(args.preset, args.bootstrap, args.seed, group_fmr=args.group_fmr),
            batch_size=args.batch_size,
            progress=progress,
            cache=_cache(args.cache, embedder, model),
            scores=None if args.all else _scores_path(args),
            model=_about(args, model),
            baseline=not (args.no_baseline or args.all or args.classifier or args.joint_bayesian is not None),
            caution=caution(read_card(found) if found.is_dir() else getattr(embedder, "card", None)),
            trained_on=read_trained_on(model),
        )
    data = {"source": str(args.data), "lists": {p.name: digest_of(p) for p in task.lists}}
    return report.with_additions(context={"data": {**report.context["data"], **data}})


def _bar() -> Any:
    from visavis.cli.evaluation_progress import embedding_bar

    return embedding_bar()


def _check_joint_bayesian(args: argparse.Namespace) -> None:
    from visavis.errors import ProtocolError

    for option, given in (("--preset", args.preset is not None), ("--calibrate", args.calibrate is not None)):
        if given:
            raise ProtocolError(f"--joint-bayesian: its scores are no cosines, which {option} is about; leave one out")


def _check_classifier(args: argparse.Namespace) -> None:
    from visavis.errors import ProtocolError

    if args.protocol != "closed-set":
        raise ProtocolError(
            f"--classifier knows the people trained on alone: --protocol closed-set, got {args.protocol}"
        )
    for option, given in (
        ("--preset", args.preset is not None),
        ("--calibrate", args.calibrate is not None),
        ("--joint-bayesian", args.joint_bayesian is not None),
    ):
        if given:
            raise ProtocolError(f"--classifier: its logits are no cosines, which {option} is about; leave one out")
    if args.identities is not None:
        raise ProtocolError("--classifier: whom it knows is in the model; leave --identities out")


def _classes(args: argparse.Namespace) -> tuple[str, ...]:
    """Whom the model's classifier knows."""
    from visavis.cli.evaluate_all import kept_models
    from visavis.models.logits import load_logits

    return load_logits(str(kept_models(args.model)[0][1]) if args.all else args.model, flip=args.flip).identities


def _joint_bayesian(args: argparse.Namespace, embedder: Any, protocol: Any) -> Any:
    """The protocol with a scorer learned from other people."""
    from visavis.data.sources import open_source, read_identities
    from visavis.evaluate.protocols.joint_bayesian import JointPairs, learn_scorer

    source = open_source(args.joint_bayesian)
    if args.jb_identities is not None:
        source = source.only(read_identities(args.jb_identities))
    with _bar() as progress:
        scorer = learn_scorer(
            embedder, source, protocol, dim=args.joint_dim, batch_size=args.batch_size, progress=progress
        )
    return JointPairs.around(protocol, scorer)


def _check_calibration(args: argparse.Namespace) -> None:
    """Before the long work: is there a card to keep thresholds in, made with the same rule for the mirrored picture?"""
    from visavis.errors import RecipeError
    from visavis.models.card import read_card
    from visavis.models.find import find_model

    found = find_model(args.model)
    if not found.is_dir():
        raise RecipeError(f"{found}: --calibrate keeps thresholds in a model folder's card.json, got an exported file")
    flip = read_card(found).preprocess.flip
    if args.flip not in (None, flip):
        raise RecipeError(
            f"--calibrate: the card says flip {flip}, so thresholds for flip {args.flip} would not hold; "
            f"{'add' if args.preset else 'leave out or type'} --flip {flip}"
        )


def _calibrate(args: argparse.Namespace, report: Any) -> Any:
    from visavis.evaluate.calibrate import keep_thresholds, with_calibration
    from visavis.models.find import find_model

    report, thresholds = with_calibration(report, args.calibrate, seed=args.seed)
    keep_thresholds(find_model(args.model), thresholds)
    return report


def _about(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """The model's card, whatever runs it, and what was asked of it."""
    from visavis.models.card import read_card
    from visavis.models.find import find_model

    found = find_model(model)
    about: dict[str, Any] = {"path": str(model)}
    if found.is_dir():
        card = read_card(found)
        about["name"] = card.name
        about["card"] = {k: v for k, v in asdict(card).items() if k not in ("evaluations", "exports")}
    about["flip"] = args.flip or "as the card says"
    if args.joint_bayesian is not None:
        about["scorer"] = f"PCA to {args.joint_dim} and Joint Bayesian, learned from {args.joint_bayesian}"
    return about


def _cache(folder: str | None, embedder: Any, model: str) -> Any:
    if folder is None:
        return None
    from visavis.evaluate.cache import EmbeddingCache
    from visavis.files import digest_of
    from visavis.models.card import WEIGHTS
    from visavis.models.find import find_model

    found = find_model(model)
    weights = found / WEIGHTS if found.is_dir() else found
    weights = weights if weights.is_file() else found / "model.onnx"
    key = f"{digest_of(weights)}|{type(embedder).__name__}|{embedder.spec}|{getattr(embedder, 'flip', '')}"
    if classifier := getattr(embedder, "digest", ""):
        key += f"|{classifier}"
    return EmbeddingCache(folder, model=key, dim=embedder.dim)


def _scores_path(args: argparse.Namespace) -> Path | None:
    if args.scores:
        return Path(args.scores)
    return Path(args.json).with_suffix(".scores.npz") if args.json else None


def print_failures(failures: dict[str, Any]) -> None:
    """Name the first of the pictures that could not be acquired."""
    if not failures["images"]:
        return
    print(f"\n{failures['images']} pictures could not be acquired; their comparisons count as non-matches:")
    for name, reason in list(failures["reasons"].items())[:10]:
        print(f"  {name}: {reason}")
    if failures["images"] > 10:
        print("  … all of them are in --json FILE")


def write_report(args: argparse.Namespace, report: Any) -> None:
    """Write the report in every form that was asked for."""
    from visavis.files import write_atomically

    for path, make in (
        (args.json, report.to_json),
        (args.html, report.to_html),
        (args.markdown, report.to_markdown),
        (args.latex, report.to_latex),
    ):
        if path:
            write_atomically(Path(path), make().encode())
