"""Progress on the terminal: a bar with rate and time left for anything long, and the training observer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from visavis.train.run_logger import Observer

console = Console(stderr=True)


def make_bar() -> Progress:
    """A bar on standard error; where that is no terminal it stays silent until its end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )


class TrainingProgress(Observer):
    """Shows a run: preparing pictures, then steps with loss, images per second and the time left."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.preparation: Any = None
        self.steps: Any = None
        self.is_terminal = console.is_terminal

    def preparing(self, done: int, total: int) -> None:
        """Advance the preparation bar."""
        if self.preparation is None:
            self.preparation = self.bar.add_task("pictures", total=total, detail="")
        self.bar.update(self.preparation, completed=done, total=total)
        if done >= total:
            self.bar.remove_task(self.preparation)
            self.preparation = None

    def started(self, step: int, total: int) -> None:
        """Begin the bar of steps."""
        self.steps = self.bar.add_task("training", total=total, completed=step, detail="")

    def stepped(self, step: int) -> None:
        """Advance it."""
        self.bar.update(self.steps, completed=step)

    def logged(self, record: dict[str, Any]) -> None:
        """Show the latest loss and speed; without a terminal, a plain line now and then."""
        if "loss" not in record:
            return
        detail = f"loss {record['loss']:.3f}  {record['images_per_second']:.0f} images/s"
        self.bar.update(self.steps, detail=detail)
        total = self.bar.tasks[-1].total or 1
        every = max(1, int(total) // 20)
        if not self.is_terminal and (record["step"] % every < record.get("every", 20) or record["step"] == total):
            print(f"step {record['step']}/{total:.0f}  {detail}", file=sys.stderr, flush=True)


@contextmanager
def training_progress() -> Iterator[TrainingProgress]:
    """An observer that shows itself as long as the block lasts."""
    with make_bar() as bar:
        yield TrainingProgress(bar)


@contextmanager
def phases() -> Iterator[Callable[[str, int, int], None]]:
    """A function to tell of work in phases: (what, done, total). Without a terminal each quarter is a plain line."""
    tasks: dict[str, Any] = {}
    quarters: dict[str, int] = {}
    with make_bar() as bar:

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, detail="")
            bar.update(tasks[what], completed=done, total=total)
            quarter = 4 * done // max(1, total)
            if not console.is_terminal and quarters.get(what, -1) < quarter:
                quarters[what] = quarter
                print(f"{what} {done:,}/{total:,}" if done else what, file=sys.stderr, flush=True)

        yield tell
