"""Class centers from an earlier run: those of identities that have the same name here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from visavis.errors import RecipeError
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sharded_checkpoint import Stored, rows_per_class
from visavis.train.checkpoint import has_checkpoint, open_checkpoint
from visavis.train.identities import Identities, read_identities

log = logging.getLogger(__name__)
_BLOCK = 100_000  # classes read at a time


@torch.no_grad()
def init_head(head: MarginSoftmax | None, model: str, identities: Sequence[str]) -> None:
    """Set the class centers (biases, class means) of identities that the run `model` belongs to was trained on.

    Identities are matched by name; all others keep their random start. Of classes split over ranks each rank reads its
    own.

    Args:
        head: whose centers to set.
        model: a run folder, or its `best` or `last`.
        identities: names of the classes, in the order of the labels.

    Raises:
        RecipeError: no class centers here, no run there, none of its identities is among these, or centers of another
            dimension or number.
    """
    if head is None:
        raise RecipeError("--init-head sets class centers, but the recipe has head.name none")
    run, old = known_identities(model, identities)
    here = {name: place for place, name in enumerate(identities[head.start : head.stop])}
    pairs = [(place, here[name]) for place, name in enumerate(old.names) if name in here]
    known = len(set(old.names) & set(identities))
    state, own = open_checkpoint(run)["objective"], head.state_dict()
    for name, unit in rows_per_class(head).items():
        key = f"head.{name}"
        if key in state:
            _copy(name, state[key], own[name], pairs, unit=unit, classes=len(old.names))
    log.info("class centers of %d of %d identities taken from %s", known, len(identities), run)
    if all(name.isdigit() for name in old.names) and all(name.isdigit() for name in identities):
        log.warning("--init-head: identities are numbers on both sides; see that they mean the same people")


def known_identities(model: str, identities: Sequence[str]) -> tuple[Path, Identities]:
    """The run that `model` belongs to, and the identities it was trained on, of which some are among these.

    Raises:
        RecipeError: no run, one that does not name its identities, or none of them is among these.
    """
    run = next((folder for folder in (Path(model), Path(model).parent) if has_checkpoint(folder)), None)
    if run is None:
        raise RecipeError(f"--init-head wants a run with a checkpoint, and {model} has none; give --init RUN")
    old = read_identities(run, missing_ok=True)
    if old is None:
        raise RecipeError(f"--init-head: {run} is of an older visavis and does not name its identities; leave it out")
    if not set(old.names) & set(identities):
        raise RecipeError(
            f"--init-head: none of the {len(old.names)} identities of {run} is among these {len(identities)}; "
            f"the first there is {old.names[0]!r}, here {identities[0]!r}"
        )
    return run, old


def _copy(name: str, kept: Stored, own: Tensor, pairs: list[tuple[int, int]], *, unit: int, classes: int) -> None:
    """Copy the rows of matched classes (there, here), reading block after block."""
    if tuple(kept.shape) != (classes * unit, *own.shape[1:]):
        raise RecipeError(
            f"--init-head: the run's {name} is {tuple(kept.shape)}, {(classes * unit, *own.shape[1:])} is needed for "
            f"its {classes} classes; embedding dimension and sub-centers must be the same"
        )
    rows = own.view(-1, unit, *own.shape[1:])
    for start in range(0, classes, _BLOCK):
        stop = min(classes, start + _BLOCK)
        chosen = [(there - start, here) for there, here in pairs if start <= there < stop]
        if chosen:
            block = kept.rows(start * unit, stop * unit).view(-1, unit, *own.shape[1:])
            rows[[here for _, here in chosen]] = block[[there for there, _ in chosen]].to(rows.device, rows.dtype)
