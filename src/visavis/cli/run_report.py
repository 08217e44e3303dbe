"""The report of a training run: its held-out pairs judged, its curves, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from visavis.cli.progress import make_bar


def write_run_report(
    run: Any, model: Any, rows: Sequence[tuple[str, str]], *, seed: int = 0, tables: Sequence[Any] = ()
) -> Any:
    """Evaluate `model` on the run's held-out pairs and write report.json, report.html and scores.npz into its folder.

    `tables` come behind its own. Returns the Report.
    """
    from visavis.data.validate.trained_on import read_trained_on
    from visavis.evaluate.protocols.base import EvaluationSettings
    from visavis.evaluate.report.tables import Table
    from visavis.evaluate.report.training_curves import training_plots
    from visavis.evaluate.runner import evaluate
    from visavis.files import write_atomically
    from visavis.models.card import read_card
    from visavis.models.caution import caution
    from visavis.models.load import load_embedder

    with make_bar() as bar:
        task = bar.add_task("embedding", total=len(run.validation_set.crops), detail="")
        report = evaluate(
            load_embedder(model),
            run.validation_set.pairs,
            run.validation_set.images,
            settings=EvaluationSettings(seed=seed),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            scores=run.folder / "scores.npz",
            model={"name": run.folder.name, "path": str(model)},
            caution=caution(read_card(run.model)),
            baseline=True,
            trained_on=read_trained_on(model),
        )
    made = (("training", f"{run.steps} steps, {run.skipped_steps} skipped"),
            ("images per second", f"{run.images_per_second:.0f}"), *rows)  # fmt: skip
    report = report.with_additions(
        tables=(*tables, Table("How it was made", ("what", "how much"), made)), plots=training_plots(run.folder)
    )
    report = replace(report, images=(*report.images, *_mined(run.folder)))
    write_atomically(run.folder / "report.json", report.to_json().encode())
    write_atomically(run.folder / "report.html", report.to_html().encode())
    return report


def _mined(folder: Path) -> list[Any]:
    """What a triplet loss mined last: per triplet the anchor beside its positive, then beside its negative."""
    from visavis.evaluate.report.figures import ImagePair
    from visavis.vision.images import encode

    path = folder / "triplets.npz"
    if not path.is_file():
        return []
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        shown = [[encode(part) for part in np.split(strip, 3, axis=1)] for strip in file["strips"]]
    group = "Triplets mined last"
    pairs = [((a, p, "positive"), (a, n, "negative")) for a, p, n in shown]
    return [ImagePair(a, b, (f"anchor, {what}",), group) for both in pairs for a, b, what in both]
