"""What an export costs on a pair set: accuracy and TMR of reference and export on the same comparisons."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from visavis.data.pair_lists.dialect import Dialect
from visavis.data.validate.trained_on import TrainedOn
from visavis.errors import ProtocolError
from visavis.types import Embedder

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PairSet:
    """A pair list and its pictures, as an evaluation loads them."""

    protocol: Any
    images: Any
    name: str

    def __len__(self) -> int:
        return len(self.protocol.pairs)


def open_pairs(
    data: str | os.PathLike[str], pairs: str | os.PathLike[str] | None = None, *, dialect: Dialect | None = None
) -> PairSet:
    """Open a pair set: `SRC/pairs.txt`, or another list over the same pictures, written in `dialect`."""
    from visavis.evaluate.protocols.registry import load_protocol

    task = load_protocol("pairs", str(data), pairs=None if pairs is None else str(pairs), dialect=dialect)
    return PairSet(task.protocol, task.images, os.path.basename(os.fspath(pairs or data)))


def evaluate_pairs(
    embedder: Embedder, pairs: PairSet, *, progress: Progress | None = None, trained_on: TrainedOn | None = None
) -> dict[str, Any]:
    """Accuracy over folds, AUC, EER and TMR at FMR, as `visavis evaluate` reports them.

    With `trained_on` there is also a `warning`: what the model has seen of the pairs in training, "" if nothing.

    Raises:
        ProtocolError: a picture could not be embedded, so that two models would be judged on different pairs.
    """
    from visavis.data.validate.training_overlap import OverlapSearch
    from visavis.evaluate.embedding import embed_images
    from visavis.metrics.verification import verify_pairs

    search = OverlapSearch(trained_on) if trained_on is not None else None
    images = search.watching(pairs.images) if search else pairs.images
    embedded = embed_images(embedder, pairs.protocol.images, images, progress=progress)
    if embedded.failed:
        name, reason = next(iter(embedded.failed.items()))
        raise ProtocolError(
            f"{len(embedded.failed)} pictures of {pairs.name} cannot be embedded; the first, {name}: {reason}"
        )
    found = verify_pairs(embedded.vectors, pairs.protocol.pairs)
    return {
        "accuracy": found.accuracy,
        "auc": found.auc,
        "eer": found.eer,
        "tmr_at_fmr": {name: None if point is None else point.tmr for name, point in found.tmr_at_fmr.items()},
        "warning": search.result(pairs.protocol.images).sentence() if search else "",
    }


def difference(reference: dict[str, Any], export: dict[str, Any], pairs: PairSet) -> dict[str, Any]:
    """What an export lost on a pair set: points of accuracy (positive = lost) and of TMR at each FMR."""
    tmr = {
        name: None
        if before is None or export["tmr_at_fmr"].get(name) is None
        else 100 * (before - export["tmr_at_fmr"][name])
        for name, before in reference["tmr_at_fmr"].items()
    }
    return {
        "pairs": len(pairs),
        "list": pairs.name,
        "reference_accuracy": reference["accuracy"],
        "accuracy": export["accuracy"],
        "points_lost": 100 * (reference["accuracy"] - export["accuracy"]),
        "tmr_points_lost": tmr,
        "tmr_at_fmr": export["tmr_at_fmr"],
        "auc": export["auc"],
        "eer": export["eer"],
        **({"warning": reference["warning"]} if reference.get("warning") else {}),
    }
