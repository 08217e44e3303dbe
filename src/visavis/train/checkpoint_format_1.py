"""Checkpoints of format 1 (up to visavis 0.1.0): one `checkpoint.pt`, read by torch's restricted unpickler."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
import yaml

from visavis.errors import ModelFormatError

log = logging.getLogger(__name__)
NAME = Path("last") / "checkpoint.pt"
FORMAT = 1


def read(run: Path) -> dict[str, Any]:
    """The state as format 2 has it, with whole tensors on the CPU.

    The optimizer's entries keep their places for names. What such a checkpoint does not know (identities, how the
    batch was shared) is left out, except for the global batch, which the model card beside it gives away.

    Raises:
        ModelFormatError: damaged, or no checkpoint.
    """
    path = run / NAME
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on foreign bytes
        said = str(error).splitlines()[0][:160] if str(error) else "no detail"
        raise ModelFormatError(f"{path}: damaged checkpoint ({type(error).__name__}: {said})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelFormatError(f"{path}: expected a checkpoint of format {FORMAT}, got something else")
    try:
        recipe, images = _recipe(run, state)
        return {
            "step": state["step"],
            "images": images,
            "skipped": state["skipped"],
            "best": state["best"],
            "recipe": recipe,
            "network": state["network"],
            "objective": {_today(name): value for name, value in state["objective"]["module"].items()},
            "optimizer": state["objective"]["optimizer"]["state"],
            "scaler": state["scaler"],
            "ema": state["ema"],
            "pool": state["pool"],
        }
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ModelFormatError(f"{path}: damaged checkpoint ({type(error).__name__}: {error})") from error


def _today(name: str) -> str:
    """A tensor's name as it is now spelled."""
    return name.replace("head.centres.", "head.centers.")


def _recipe(run: Path, state: dict[str, Any]) -> tuple[str, int]:
    """The recipe with the global batch in it, and the images seen.

    In format 1 `loop.batch_size` was of one device and one of `loop.accumulate` parts; how many devices there were
    stands in the model card's count of images.
    """
    recipe = yaml.safe_load(state["recipe"])
    loop, step = recipe["loop"], state["step"]
    device_batch, accumulate = int(loop["batch_size"]), int(loop.pop("accumulate", 1))
    recipe["preprocess"].setdefault("antialias", "area")  # as cards of its time are read
    images = step * device_batch * accumulate
    try:
        images = int(json.loads((run / "last" / "card.json").read_text(encoding="utf-8"))["notes"]["images_seen"])
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s: no model card says how many devices shared the batch; one is taken", run)
    loop["batch_size"] = images // step if step else device_batch * accumulate
    if loop["batch_size"] != device_batch:
        loop["device_batch"] = device_batch
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), images
