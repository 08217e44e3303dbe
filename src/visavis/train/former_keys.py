"""Recipe keys of the release before: read for one release, each with a line that names the present one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from visavis.errors import RecipeError

log = logging.getLogger(__name__)

FORMER_KEYS = {
    "head.sub_centres": "head.sub_centers",
    "head.centre_loss": "head.center_loss",
    "data.expected_pictures": "data.expected_images",
    "head.quality_power": "head.norm_weight_power",
    "optimizer.lr_per": "optimizer.lr_reference_batch",
    "finetune.blend": "finetune.wise_ft_alpha",
    "loop.whiten": "loop.wccn_ridge",
    "evaluate.old_source": "evaluate.retention_source",
    "evaluate.old_pairs": "evaluate.retention_pairs",
    "augment.turn": "augment.yaw",
    "augment.nod": "augment.pitch",
    "augment.light": "augment.relight",
    "augment.grey": "augment.grayscale",
    "augment.erase": "augment.random_erasing",
    "augment.erase_area": "augment.random_erasing_area",
    "augment.window": "augment.random_crop",
}


def present_keys(values: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """A recipe's sections with their keys as they are called now.

    Args:
        values: sections and keys as YAML gives them; anything that is not a section passes as it is.
        name: the recipe's, for the line in the log.

    Raises:
        RecipeError: a key stands there under both its names.
    """
    renamed: dict[str, Any] = dict(values)
    for former, now in FORMER_KEYS.items():
        section, key = former.split(".")
        if not isinstance(renamed.get(section), Mapping) or key not in renamed[section]:
            continue
        present = now.split(".")[1]
        if present in renamed[section]:
            raise RecipeError(f"{name}: {former} and {now} are one key; leave the former name out")
        log.warning("%s: %s is now called %s; the former name works for one release", name, former, now)
        renamed[section] = {present if k == key else k: v for k, v in renamed[section].items()}
    return renamed


def present_flags(overrides: Sequence[str]) -> list[str]:
    """Command-line overrides `--section.key` with the keys as they are called now."""
    words = []
    for word in overrides:
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and key in FORMER_KEYS:
            log.warning("--%s is now called --%s; the former name works for one release", key, FORMER_KEYS[key])
            word = f"--{FORMER_KEYS[key]}{equals}{value}"
        words.append(word)
    return words
