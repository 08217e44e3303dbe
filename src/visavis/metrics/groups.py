"""The same threshold for everybody: error rates by group, worst first, and how unequal they are.

Differentials as in NIST FRTE part 8 (NIST IR 8429): the worst group's rate by the geometric mean over groups, and the
Gini coefficient of the rates. False matches are counted among comparisons within a group, which is the hard case, and
apart from that between each two groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import error_curve
from visavis.metrics.intervals import wilson
from visavis.metrics.similarity import matches
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True)
class GroupRates:
    """One group at the common threshold: counts and rates; None where it has no comparison of a kind."""

    group: str
    genuine: int
    impostor: int
    false_non_matches: int
    false_matches: int

    @property
    def fnmr(self) -> float | None:
        """False non-match rate of the group's genuine comparisons."""
        return self.false_non_matches / self.genuine if self.genuine else None

    @property
    def fmr(self) -> float | None:
        """False match rate among impostor comparisons within the group."""
        return self.false_matches / self.impostor if self.impostor else None


def group_rates(
    similarities: Float[FloatArray, " N"],
    genuine: Bool[BoolArray, " N"],
    groups: tuple[Integer[IntArray, " N"], Integer[IntArray, " N"]],
    names: Sequence[str],
    *,
    threshold: float,
) -> list[GroupRates]:
    """Rates of each group at one threshold, the group with the highest false match rate first.

    Args:
        similarities: (N,), NaN where not acquired: a non-match.
        genuine: (N,).
        groups: group numbers (N,) of the reference and of the probe; both count towards a group only if equal.
        names: of the groups.
        threshold: similarities at or above it match.
    """
    match = matches(similarities, threshold)
    within = groups[0] == groups[1]
    found: list[GroupRates] = []
    for number, name in enumerate(names):
        here = within & (groups[0] == number)
        g, i = here & genuine, here & ~genuine
        found.append(
            GroupRates(
                name,
                int(np.count_nonzero(g)),
                int(np.count_nonzero(i)),
                int(np.count_nonzero(g & ~match)),
                int(np.count_nonzero(i & match)),
            )
        )
    return sorted(found, key=lambda r: (-(r.fmr or 0.0), -(r.fnmr or 0.0), r.group))


def differentials(rates: Sequence[float | None]) -> dict[str, float | None]:
    """How unequal rates are: worst / geometric mean, worst / best, Gini coefficient; None where a zero forbids it."""
    known = [r for r in rates if r is not None]
    if not known:
        return {"max_over_geometric_mean": None, "max_over_min": None, "gini": None}
    positive = min(known) > 0
    mean = math.exp(math.fsum(math.log(r) for r in known) / len(known)) if positive else None
    total = math.fsum(known)
    n = len(known)
    spread = math.fsum(abs(a - b) for a in known for b in known)
    gini = spread / (2 * n * total) * (n / (n - 1)) if total and n > 1 else None
    return {
        "max_over_geometric_mean": max(known) / mean if mean else None,
        "max_over_min": max(known) / min(known) if positive else None,
        "gini": gini,
    }


def group_report(
    similarities: Float[FloatArray, " N"],
    genuine: Bool[BoolArray, " N"],
    groups: tuple[Integer[IntArray, " N"], Integer[IntArray, " N"]],
    names: Sequence[str],
    *,
    column: str,
    fmr: float = 1e-3,
    threshold: float | None = None,
) -> dict[str, Any]:
    """The groups of one column at the threshold that gives `fmr` over all impostors, or at a given one.

    Raises:
        ProtocolError: less than two groups, or so few impostors that the rate allows no false match.
    """
    if len(names) < 2:
        raise ProtocolError(f"column {column!r}: expected at least two groups, got {', '.join(names) or 'none'}")
    curve = error_curve(similarities, genuine)
    if threshold is None:
        if not curve.supports(fmr):
            fmr = 1 / len(curve.impostor)
        threshold = curve.at_fmr(fmr).threshold
    found = group_rates(similarities, genuine, groups, names, threshold=threshold)
    crossed = (groups[0] != groups[1]) & ~genuine
    cross = int(np.count_nonzero(crossed & matches(similarities, threshold))), int(np.count_nonzero(crossed))
    point = curve.at(threshold)
    unequal = {"fmr": differentials([r.fmr for r in found]), "fnmr": differentials([r.fnmr for r in found])}
    return {
        "threshold": threshold,
        "fmr_overall": point.fmr,
        "fnmr_overall": 1 - point.tmr,
        "groups": [_group_dict(r) for r in found],
        "between_groups": {
            "impostor": cross[1],
            "false_matches": cross[0],
            "fmr": cross[0] / cross[1] if cross[1] else None,
        },
        "differentials": unequal,
    }


def _group_dict(r: GroupRates) -> dict[str, Any]:
    return {
        "group": r.group,
        "genuine": r.genuine,
        "impostor": r.impostor,
        "fmr": r.fmr,
        "fmr_interval": list(wilson(r.false_matches, r.impostor)) if r.impostor else None,
        "fnmr": r.fnmr,
        "fnmr_interval": list(wilson(r.false_non_matches, r.genuine)) if r.genuine else None,
    }
