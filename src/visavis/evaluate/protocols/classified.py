"""Closed-set identification by the trained classifier itself: reference-systems row D11, the headline of row D13."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.data.sources.lists import open_list
from visavis.errors import ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import EvaluationSettings, Scores
from visavis.evaluate.protocols.closed_set import ClosedSet, load_closed_set, ranked
from visavis.evaluate.protocols.loading import LoadedProtocol, ManySources, ProtocolArgs

_CHUNK = 4096


@dataclass(frozen=True)
class Classified(ClosedSet):
    """Rank of the true person among all the classifier knows, by its logits.

    The rows embedded are the logits (C,) of each picture, scaled to length 1: see `LogitEmbedder`. Ties count against
    the model, as in `ClosedSet`.
    """

    judged_by: str = "the trained classifier"
    is_of_trained_people: bool = True

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """As `ClosedSet.score`, with logits for similarities."""
        return ranked(
            self.label[self.probes], self.probes, lambda part: embedded.vectors[self.probes[part]],
            np.flatnonzero(np.isfinite(embedded.vectors[self.probes]).all(axis=1)), chunk=_CHUNK,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Counts of people and pictures."""
        return {"people": len(self.people), "probes": len(self.probes), "judged_by": self.judged_by}


def load_people(request: ProtocolArgs) -> LoadedProtocol:
    """Closed-set identification by mean embeddings, or by the classifier whose `classes` are among the options."""
    classes = request.options.get("classes")
    return load_classified(request, classes) if classes else load_closed_set(request)


def load_classified(request: ProtocolArgs, identities: Sequence[str]) -> LoadedProtocol:
    """The pictures of SRC/valid.txt (or SRC itself, a list), `path label` lines, each of one of `identities`.

    Raises:
        ProtocolError: no such list, or somebody the classifier does not know.
    """
    path = request.pairs or (request.data if request.data.is_file() else request.data / "valid.txt")
    if not path.is_file():
        raise ProtocolError(
            f"{path}: closed-set by the classifier wants a list of `path TAB label` lines; visavis prepare "
            "--youtube-faces writes SRC/valid.txt"
        )
    asked = open_list(path)
    rows = {person: label for label, person in enumerate(identities)}
    strangers = [person for person in asked.identities if person not in rows]
    if strangers:
        raise ProtocolError(
            f"{path}: label {strangers[0]!r} ({len(strangers)} in all) is not among the {len(rows):,} identities of "
            "the classifier; without --classifier people are enrolled by SRC/train.txt"
        )
    moved = np.array([rows[person] for person in asked.identities], np.int64)
    nobody = np.array([], np.int64)
    protocol = Classified(
        tuple(f"probe/{name}" for name in asked.names), moved[asked.labels], nobody, np.arange(len(asked.names)),
        tuple(identities),
    )  # fmt: skip
    return LoadedProtocol(protocol, ManySources({"probe": asked}), (path,))
