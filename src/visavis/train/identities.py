"""Who a run is trained on: names and counts of identities, so that a resumed run knows whether they are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visavis.errors import ModelFormatError
from visavis.files import write_atomically
from visavis.train.dataset import ImageDataset

FILE = Path("last") / "identities.json"
_SHOWN = 3


@dataclass(frozen=True)
class Identities:
    """Name and number of images of each class, in the order of the class centers."""

    names: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, images: ImageDataset) -> Identities:
        """Those of training pictures."""
        counts = np.bincount(images.labels, minlength=images.num_classes)
        return cls(tuple(images.identities), tuple(counts.tolist()))

    @property
    def digest(self) -> str:
        """SHA-256 of all names and counts in their order, as hex."""
        whole = hashlib.sha256()
        for name, count in zip(self.names, self.counts, strict=True):
            whole.update(f"{name}\0{count}\n".encode("utf-8", "surrogatepass"))
        return whole.hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a checkpoint keeps of them; the names are in a file of their own, written once."""
        return {"count": len(self.names), "images": sum(self.counts), "digest": self.digest}

    def save(self, run: Path) -> None:
        """Write names and counts into the run folder, unless they are there."""
        if read_identities(run, missing_ok=True) != self:
            (run / FILE).parent.mkdir(parents=True, exist_ok=True)
            values = {"format": 1, "names": self.names, "counts": self.counts}
            write_atomically(run / FILE, json.dumps(values).encode())  # ASCII: undecodable names stay what they were


def read_identities(run: Path, *, missing_ok: bool = False) -> Identities | None:
    """Those a run was trained on; None where `missing_ok` and there is no such file.

    Raises:
        ModelFormatError: missing or damaged.
    """
    path = run / FILE
    if missing_ok and not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Identities(tuple(map(str, values["names"])), tuple(map(int, values["counts"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFormatError(f"{path}: cannot read the identities of the run ({error})") from error


def say_difference(old: Identities, new: Identities) -> str:
    """In words, how the identities differ: who is gone, who is new, who has other images, or another order."""
    before, after = (dict(zip(i.names, i.counts, strict=True)) for i in (old, new))
    gone, come = [n for n in old.names if n not in after], [n for n in new.names if n not in before]
    other = [
        f"{n} has {after[n]} images instead of {before[n]}" for n in old.names if after.get(n, before[n]) != before[n]
    ]
    said = [f"{_listed(gone)} gone"] if gone else []
    said += [f"{_listed(come)} new"] if come else []
    said += [_few(other)] if other else []
    return ", ".join(said) or "they come in another order"


def _listed(names: Sequence[str]) -> str:
    return f"{_few(names)} {'is' if len(names) == 1 else 'are'}"


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
