"""What a run writes down: `metrics.jsonl`, `log.txt`, and TensorBoard events where that is installed."""

from __future__ import annotations

import importlib.util
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from visavis.errors import DataError
from visavis.evaluate.report.training_curves import METRICS, read_metrics
from visavis.files import write_atomically

LOG = "log.txt"


class Observer:
    """Told of a run's progress; the command line shows it, the default keeps still."""

    def preparing(self, done: int, total: int) -> None:
        """`done` of `total` pictures are ready."""

    def started(self, step: int, total: int) -> None:
        """The loop begins at `step` of `total`."""

    def logged(self, record: dict[str, Any]) -> None:
        """A line was added to metrics.jsonl."""

    def stepped(self, step: int) -> None:
        """An optimizer step was done (or skipped)."""


class RunLogger:
    """Appends records to the run folder; a resumed run first drops the lines past the step it resumes from.

    All but the first of several ranks keep a silent one. The package's logger has its former level again at the end.
    """

    def __init__(self, run: Path, *, resume_from: int | None = None, silent: bool = False) -> None:
        self._logger = logging.getLogger("visavis")
        self._level = self._logger.level
        self._file = self._board = self._handler = None
        self._failed = False
        if silent:
            self._logger.setLevel(logging.WARNING)
            return
        path = run / METRICS
        if resume_from is not None and path.is_file():
            kept = [line for line in read_metrics(run, missing_ok=True) if line.get("step", 0) <= resume_from]
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        try:
            self._file = path.open("a" if resume_from is not None else "w", encoding="utf-8")
            self._handler = logging.FileHandler(run / LOG, encoding="utf-8")
        except OSError as error:
            self.close()
            raise DataError(f"{run}: cannot write into the run folder ({error.strerror})") from error
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        if self._logger.getEffectiveLevel() > logging.INFO:
            self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._handler)
        self._board = _tensorboard(run)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and self._handler is not None:  # into the file: whoever called tells the user
            record = self._logger.makeRecord(self._logger.name, logging.ERROR, "", 0, "%s", (error,), None)
            self._handler.handle(record)
        self.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record (it has a `step`) and flush it; where the disk is full, say so once and go on."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            if not self._failed:
                self._logger.warning("%s cannot be written (%s): training goes on", METRICS, error.strerror)
            self._failed = True
        if self._board is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take was told of
                self._file.close()
        if self._board is not None:
            self._board.close()
        if self._handler is not None:
            self._logger.removeHandler(self._handler)
            self._handler.close()
        self._logger.setLevel(self._level)


def _tensorboard(run: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"))
