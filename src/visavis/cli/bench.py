"""`visavis bench`: time a model in every runtime of this machine and keep the best choice in its card."""

from __future__ import annotations

import argparse
from typing import Any

from visavis.machine import usable_cores

_EPILOG = """\
Times whatever the model folder holds: its weights in torch, its .onnx files in ONNX Runtime, its .xml in OpenVINO.
With --save the fastest goes into the card, and whoever loads the folder runs it so.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's options."""
    add = parser.add_argument
    parser.epilog = _EPILOG
    add("model", metavar="MODEL", help="model folder or run folder")
    add("--threads", default="", metavar="N,...", help="thread counts (default: 1 and all cores)")
    add("--batch", default="1,32", metavar="N,...", help="batch sizes (default: 1,32)")
    add("--seconds", type=float, default=2.0, metavar="S", help="for each way and batch size (default: 2)")
    add("--data", metavar="SRC", help="pictures to run on (default: generated faces)")
    add("--save", action="store_true", help="write the fastest into the card; recognizers then use it")
    add("--json", metavar="FILE", help="write every figure")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, save the choice."""
    import json
    from pathlib import Path

    from rich.console import Console

    from visavis.errors import ModelFormatError
    from visavis.export.bench import best_record, candidates_of, machine, measure, pick, sized
    from visavis.export.gates.parity import crops_of
    from visavis.files import write_atomically
    from visavis.models.card import read_card, write_card
    from visavis.models.find import find_model
    from visavis.models.licenses import check_license

    folder = find_model(args.model)
    if not folder.is_dir():
        raise ModelFormatError(f"{folder}: bench compares the files of a model folder; give the folder")
    card = read_card(folder)
    check_license(card, folder)
    threads = _numbers("--threads", args.threads) or sorted({1, usable_cores()})
    batches = _numbers("--batch", args.batch)
    candidates, missing = candidates_of(folder, card, threads)
    crops = crops_of(args.data, card.preprocess, count=32)
    with _bar() as progress:
        timings, failed = measure(candidates, crops.images, batches=batches, seconds=args.seconds, progress=progress)
    if not timings:
        raise ModelFormatError(f"{folder}: nothing of it runs here: {'; '.join(failed + missing)}")
    timings = sized(timings, folder)
    best = pick(timings, card, batch=batches[0])
    console = Console()
    console.print(_table(timings, best, card))
    for line in (*failed, *missing):
        console.print(f"not measured: {line}", soft_wrap=True, markup=False, highlight=False)
    console.print(
        f"fastest at batch {best.batch}: {best.runtime} {best.file} {best.precision}, {best.threads} threads, "
        f"{best.p50_ms:.2f} ms",
        highlight=False,
    )
    if args.json:
        found = {"machine": machine(), "timings": [t.to_dict() for t in timings], "best": best.to_dict()}
        write_atomically(Path(args.json), json.dumps(found, indent=2).encode())
    if args.save:
        exports = {**card.exports, "best": best_record(best, folder)}
        write_card(folder, card.with_changes(exports=exports))
        console.print(f"saved into {folder}/card.json", highlight=False)
    return 0


def _numbers(option: str, text: str) -> list[int]:
    from visavis.errors import RecipeError

    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise RecipeError(f"{option}: expected whole numbers as 1,32, got {text!r}") from error
    if any(number < 1 for number in numbers):
        raise RecipeError(f"{option}: expected numbers of at least 1, got {text!r}")
    return numbers


def _bar() -> Any:
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def shown() -> Any:
        console = Console(stderr=True)
        columns = (TextColumn("timing"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("timing", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return shown()


def _table(timings: Any, best: Any, card: Any) -> Any:
    """At most 80 columns wide: the kind of a file says its runtime."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{card.name}: milliseconds per batch", box=box.SIMPLE, padding=0, pad_edge=False, show_edge=False
    )
    table.add_column("run from", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("thr.", "batch", "p50", "p95", "p99", "CPU", "img/s", "MB", "acc. %"):
        table.add_column(name, justify="right", no_wrap=True)
    for t in timings:
        record = card.exports.get(t.file, {})
        judged = record.get("accuracy") if isinstance(record, dict) and t.precision != "bf16" else None
        table.add_row(
            "torch" if t.runtime == "torch" else t.file, t.precision, str(t.threads), str(t.batch),
            *(_short(value) for value in (t.p50_ms, t.p95_ms, t.p99_ms, t.cpu_ms)),
            f"{t.images_per_second:.0f}", _short(t.bytes / 1e6), f"{100 * judged['accuracy']:.2f}" if judged else "",
            style="bold" if t == best else None,
        )  # fmt: skip
    return table


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
