"""visavis evaluate RUN --all: judge the checkpoints a run has kept, newest first."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def check_all(args: argparse.Namespace) -> None:
    """Refuse what is about one model."""
    from visavis.errors import ProtocolError

    for name in ("calibrate", "scores", "scores_csv", "joint_bayesian"):
        if getattr(args, name) is not None:
            raise ProtocolError(f"--{name.replace('_', '-')} is about one model; leave it or --all out")


def kept_models(run: str) -> list[tuple[int, Path]]:
    """Step and folder of the checkpoints a run has kept, newest first.

    Raises:
        ModelFormatError: it kept none.
    """
    from visavis.errors import ModelFormatError
    from visavis.models.card import CARD, read_card

    found = [folder for folder in (Path(run) / "models").glob("step-*") if (folder / CARD).is_file()]
    if not found:
        raise ModelFormatError(f"{run}: no checkpoints were kept here; train with --loop.keep N to keep the N newest")
    return sorted(((int(read_card(folder).notes.get("step", 0)), folder) for folder in found), reverse=True)


def evaluate_all(args: argparse.Namespace, evaluate_one: Callable[[str], Any]) -> Any:
    """The report of the newest checkpoint, with the figures of all; each is printed as it is known."""
    from visavis.evaluate.report.history import with_history
    from visavis.evaluate.report.report import key_figures

    reports = []
    for step, folder in kept_models(args.model):
        report = evaluate_one(str(folder))
        reports.append((step, str(folder), report))
        print(
            f"step {step:,}: " + ", ".join(f"{name} {text}" for name, text in key_figures(report.results)), flush=True
        )
    return with_history(reports[0][2], [(step, folder, report.results) for step, folder, report in reports])
