"""Look a picture set over: what is in it, what is broken, what is there twice, who is somewhere else too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from visavis.data.sources.base import Source
from visavis.data.validate.duplicates import close_hashes, equal_bytes, perceptual_hashes
from visavis.data.validate.fingerprints import Collector, Fingerprints, fingerprint
from visavis.data.validate.label_errors import LabelReview, SameClass, centers, matching_centers, review_labels
from visavis.data.validate.near_duplicates import Match, confirm
from visavis.types import BoolArray, FloatArray, IntArray

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Overlap:
    """What a set shares with another: identities by name, pictures by bytes and by look, identities by embedding."""

    names: tuple[str, ...] = ()
    identical: tuple[tuple[int, int], ...] = ()
    similar: tuple[Match, ...] = ()
    people: tuple[SameClass, ...] = ()


@dataclass(frozen=True)
class Findings:
    """The result of `validate`; indices are into `source`, second indices of `overlap` into `against`."""

    source: Source
    against: Source | None
    prints: Fingerprints
    identical: tuple[tuple[int, ...], ...]
    similar: tuple[Match, ...]
    overlap: Overlap = field(default_factory=Overlap)
    labels: LabelReview | None = None

    def crosses(self, group: tuple[int, ...]) -> bool:
        """Whether pictures belong to more than one identity."""
        return len(set(self.source.labels[list(group)].tolist())) > 1

    @property
    def identical_across(self) -> list[tuple[int, ...]]:
        """Groups of byte-identical pictures under more than one identity."""
        return [group for group in self.identical if self.crosses(group)]

    @property
    def similar_across(self) -> list[Match]:
        """Near-identical pairs under two identities."""
        return [match for match in self.similar if self.crosses((match.first, match.second))]

    def problems(self) -> list[str]:
        """What is wrong, a line each; empty when nothing is."""
        found = [
            (len(self.prints.faults), "unreadable pictures"),
            (self._other_shapes(), "pictures of another aspect ratio than the first, which training refuses"),
            (len(self.identical_across), "groups of byte-identical pictures under different identities"),
            (len(self.similar_across), "pairs of near-identical pictures under different identities"),
            (len(self.overlap.names), "identities also named in the other set"),
            (len(self.overlap.identical), "pictures byte-identical to one of the other set"),
            (len(self.overlap.similar), "pictures near-identical to one of the other set"),
            (len(self.overlap.people), "identities whose embeddings match one of the other set"),
            (len(self.labels.errors) if self.labels else 0, "probable label errors"),
            (len(self.labels.same) if self.labels else 0, "pairs of identities whose embeddings match"),
        ]
        return [f"{count:,} {what}" for count, what in found if count]

    def notes(self) -> list[str]:
        """What is worth knowing and not wrong."""
        sizes = np.bincount(self.source.labels, minlength=len(self.source.identities))
        found = [
            (len(self.source.skipped), "entries that are no pictures of it"),
            (int((sizes == 1).sum()), "identities with a single picture"),
            (len(self.identical) - len(self.identical_across), "groups of byte-identical pictures inside an identity"),
            (len(self.similar) - len(self.similar_across), "pairs of near-identical pictures inside an identity"),
            (max(0, len(self._shapes()) - 1), "picture sizes beside the most frequent one"),
        ]
        return [f"{count:,} {what}" for count, what in found if count]

    def _other_shapes(self) -> int:
        """Pictures whose aspect ratio is not the first one's."""
        size = self.prints.size[self.prints.readable].astype(np.int64)
        return int(np.count_nonzero(size[:, 0] * size[0, 1] != size[:, 1] * size[0, 0])) if len(size) else 0

    def _shapes(self) -> list[tuple[str, int]]:
        sizes = self.prints.size[self.prints.readable]
        return Counter(f"{h}x{w}" for h, w in sizes.tolist()).most_common()

    def to_json(self) -> dict[str, Any]:
        """Everything found, with names instead of indices."""
        names, who = self.source.names, self.source.identities
        other = self.against.names if self.against else ()
        sizes = np.bincount(self.source.labels, minlength=len(who))

        def groups(*, across: bool) -> list[list[str]]:
            return [[names[i] for i in group] for group in self.identical if self.crosses(group) == across]

        def matches(*, across: bool) -> list[dict[str, Any]]:
            return [
                {"pictures": [names[m.first], names[m.second]], "correlation": m.correlation}
                for m in self.similar
                if self.crosses((m.first, m.second)) == across
            ]

        result: dict[str, Any] = {
            "source": str(self.source.path),
            "ok": not self.problems(),
            "problems": self.problems(),
            "notes": self.notes(),
            "pictures": len(names),
            "identities": len(who),
            "per_identity": {
                "min": int(sizes.min()), "median": float(np.median(sizes)), "mean": round(float(sizes.mean()), 3),
                "max": int(sizes.max()), "single": int((sizes == 1).sum()),
            },
            "sizes": dict(self._shapes()),
            "skipped": [list(entry) for entry in self.source.skipped],
            "unreadable": [
                {"picture": names[i], "reason": reason.removeprefix(f"{self.source.path}: {names[i]}: ")}
                for i, reason in self.prints.faults.items()
            ],
            "identical": {"across": groups(across=True), "inside": groups(across=False)},
            "similar": {"across": matches(across=True), "inside": matches(across=False)},
        }  # fmt: skip
        if self.against is not None:
            result["against"] = {
                "source": str(self.against.path),
                "identities": list(self.overlap.names),
                "identical": [[names[i], other[j]] for i, j in self.overlap.identical],
                "similar": [
                    {"pictures": [names[m.first], other[m.second]], "correlation": m.correlation}
                    for m in self.overlap.similar
                ],
                "people": [
                    {
                        "identities": [who[p.first], self.against.identities[p.second]],
                        "similarity": round(p.similarity, 4),
                    }
                    for p in self.overlap.people
                ],
            }
        if self.labels is not None:
            result["labels"] = {
                "threshold": round(self.labels.threshold, 4),
                "errors": [
                    {
                        "picture": names[e.index], "identity": who[e.label], "looks_like": who[e.other],
                        "own_similarity": round(e.own_similarity, 4), "other_similarity": round(e.other_similarity, 4),
                    }
                    for e in self.labels.errors
                ],
                "same": [
                    {"identities": [who[p.first], who[p.second]], "similarity": round(p.similarity, 4)}
                    for p in self.labels.same
                ],
            }  # fmt: skip
        return result


def take_prints(source: Source, *, workers: int, what: str, progress: Progress | None) -> Fingerprints:
    """The fingerprints of a whole source."""
    collected = Collector(len(source))
    for index, row in fingerprint(source, workers=workers):
        collected.add(index, row)
        if progress is not None:
            progress(what, index + 1, len(source))
    return collected.result()


def validate(
    source: Source,
    *,
    against: Source | None = None,
    embeddings: FloatArray | None = None,
    against_embeddings: FloatArray | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Findings:
    """Look a set over, alone or against another.

    Args:
        source: the set.
        against: another; identities and pictures the two share are found.
        embeddings: (N, D) unit rows of the set's pictures, NaN where there is none: label errors are looked for.
        against_embeddings: the same of the other set: identities shared under different names are looked for.
        workers: processes that read and decode.
        progress: called with (what, done, total).
    """
    prints = take_prints(source, workers=workers, what="reading", progress=progress)
    count = len(source)
    digest, feature, valid = prints.digest, prints.feature, prints.readable
    readable_bytes = (prints.digest != 0).sum(1) > 0
    if against is not None:
        theirs = take_prints(against, workers=workers, what="reading the other set", progress=progress)
        digest, feature = np.concatenate([digest, theirs.digest]), np.concatenate([feature, theirs.feature])
        valid = np.concatenate([valid, theirs.readable])
        readable_bytes = np.concatenate([readable_bytes, (theirs.digest != 0).sum(1) > 0])
    groups = equal_bytes(digest, readable_bytes)
    inside = [tuple(i for i in group.tolist() if i < count) for group in groups]
    shared = [(i, int(group[group >= count][0]) - count) for group in groups if group[-1] >= count
              for i in group.tolist() if i < count]  # fmt: skip
    valid &= ~_repeats(groups, len(valid), count)
    phase = None if progress is None else lambda done, total: progress("searching look-alikes", done, total)
    candidates = close_hashes(perceptual_hashes(feature, valid), valid, progress=phase)
    candidates = candidates[candidates[:, 0] < count]
    equal = (digest[candidates[:, 0]] == digest[candidates[:, 1]]).all(1)
    candidates = candidates[~equal]
    similar: list[Match] = []
    elsewhere: list[Match] = []
    for done, match in confirm(candidates, source, against=against, workers=workers):
        if match is not None and match.second < count:
            similar.append(match)
        elif match is not None:
            elsewhere.append(Match(match.first, match.second - count, match.correlation, match.distance))
        if progress is not None:
            progress("comparing look-alikes", done, len(candidates))
    labels = None if embeddings is None else review_labels(embeddings, source.labels, len(source.identities))
    overlap = Overlap()
    if against is not None:
        people: list[SameClass] = []
        if labels is not None and embeddings is not None and against_embeddings is not None:
            ours = centers(embeddings, source.labels, len(source.identities))
            others = centers(against_embeddings, against.labels, len(against.identities))
            people = matching_centers(ours, others, labels.threshold)
        names = tuple(sorted(set(source.identities) & set(against.identities)))
        overlap = Overlap(names, tuple(shared), _ranked(elsewhere), tuple(people))
    identical = tuple(group for group in inside if len(group) > 1)
    return Findings(source, against, prints, identical, _ranked(similar), overlap, labels)


def _repeats(groups: Sequence[IntArray], total: int, count: int) -> BoolArray:
    """Byte-identical pictures beside the first of each group in each set: looking at one of them is enough."""
    repeats = np.zeros(total, bool)
    for group in groups:
        for part in (group[group < count], group[group >= count]):
            repeats[part[1:]] = True
    return repeats


def _ranked(matches: list[Match]) -> tuple[Match, ...]:
    return tuple(sorted(matches, key=lambda m: (-m.correlation, m.first, m.second)))
