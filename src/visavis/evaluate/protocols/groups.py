"""Pairs with groups: Racial Faces in the Wild, and any CSV with columns that name groups."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from visavis.data.pair_lists.base import build_pairs
from visavis.data.pair_lists.reader import PLAIN, read_pairs
from visavis.data.sources import open_source
from visavis.errors import DataError, ProtocolError
from visavis.evaluate.protocols.base import Embeddings, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.loading import LoadedProtocol, ManySources, ProtocolArgs, SourceImages, require_images
from visavis.evaluate.protocols.pairs import PairProtocol
from visavis.evaluate.report.metric_tables import group_table
from visavis.evaluate.report.tables import Table, percent, percent_range
from visavis.metrics.groups import group_report
from visavis.metrics.kfold import cut_folds
from visavis.metrics.verification import verify_scores
from visavis.types import IntArray

Grouping = tuple[IntArray, IntArray, tuple[str, ...]]  # group of reference, of probe, the groups' names


@dataclass(frozen=True)
class GroupPairProtocol(PairProtocol):
    """Pairs whose pictures belong to groups; besides all figures, those of each group at the common threshold."""

    groupings: Mapping[str, Grouping] = field(default_factory=dict)

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """As for pairs, with the groups' numbers."""
        scores = dict(super().score(embedded, settings))
        for column, (reference, probe, _) in self.groupings.items():
            scores[f"group_reference:{column}"], scores[f"group_probe:{column}"] = reference, probe
        return scores

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """All pairs, then by group: rates at the common threshold, worst first, and each group's own accuracy."""
        outcome = super().compute_metrics(scores, settings)
        groups, tables = {}, []
        for column, (_, _, names) in self.groupings.items():
            numbers = (scores[f"group_reference:{column}"], scores[f"group_probe:{column}"])
            body = group_report(
                scores["similarity"], scores["genuine"], numbers, names, column=column, fmr=settings.group_fmr
            )
            table = group_table(column, body)
            body["accuracy"], own = _accuracies(scores, numbers, names, column)
            groups[column] = body
            tables += [table, own]
        return ProtocolResult(
            {**outcome.results, "groups": groups}, (*outcome.tables, *tables), outcome.plots, outcome.mistakes
        )


def _accuracies(
    scores: Scores, numbers: tuple[IntArray, IntArray], names: tuple[str, ...], column: str
) -> tuple[dict[str, object], Table]:
    """Accuracy of each group at thresholds of its own, as RFW is usually reported."""
    body: dict[str, object] = {}
    rows = []
    for k, name in enumerate(names):
        here = (numbers[0] == k) & (numbers[1] == k)
        genuine = scores["genuine"][here]
        if min(np.count_nonzero(genuine), np.count_nonzero(~genuine)) < 2:
            body[name] = None
            continue
        fold = scores["fold"][here]
        fold = cut_folds(genuine) if len(np.unique(fold)) < 2 else fold
        found = verify_scores(scores["similarity"][here], genuine, fold).to_dict()
        body[name] = found["accuracy"]
        accuracy = found["accuracy"]
        rows.append((accuracy["mean"], name, percent_range(accuracy["interval"]), percent(found["eer"])))
    rows.sort()
    cells = tuple((name, percent(mean), interval, eer) for mean, name, interval, eer in rows)
    note = (
        "Each group at thresholds from its own folds, as RFW is published; the table above is what one threshold gives."
    )
    return body, Table(f"By {column}, each at its own threshold", (column, "accuracy", "95 %", "EER"), cells, note)


def load_rfw(request: ProtocolArgs) -> LoadedProtocol:
    """RFW: pictures `data/GROUP/PERSON/…` (or `images/`), pairs `txts/GROUP/GROUP_pairs.txt` in LFW's form.

    Raises:
        ProtocolError: no such lists.
    """
    lists = sorted(request.data.glob("txts/*/*_pairs.txt"))
    if len(lists) < 2:
        raise ProtocolError(f"{request.data}: expected txts/GROUP/GROUP_pairs.txt of several groups, got {len(lists)}")
    home = request.data / ("data" if (request.data / "data").is_dir() else "images")
    sources, rows, folds, group, lines = {}, [], [], [], []
    for k, path in enumerate(lists):
        name = path.parent.name
        sources[name] = open_source(home / name)
        pairs = read_pairs(path, request.options.get("dialect") or PLAIN)
        require_images(pairs, sources[name], request)
        listed = [f"{name}/{image}" for image in pairs.images]
        ends = zip(pairs.reference.tolist(), pairs.probe.tolist(), pairs.genuine.tolist(), strict=True)
        rows += [(listed[a], listed[b], same) for a, b, same in ends]
        folds.append(pairs.fold)
        lines += list(pairs.lines)
        group.append(np.full(len(pairs), k))
    joined = build_pairs(rows, np.concatenate(folds), path=str(request.data / "txts"), lines=lines)
    number = np.concatenate(group)
    subjects = _subjects(joined.images, 2)
    names = tuple(path.parent.name for path in lists)
    protocol = GroupPairProtocol(joined, subjects, "rfw", {"group": (number, number, names)})
    return LoadedProtocol(protocol, ManySources(sources), tuple(lists))


def load_csv(request: ProtocolArgs) -> LoadedProtocol:
    """A CSV of pairs (--pairs FILE, or SRC/pairs.csv) with columns `reference`, `probe`, `genuine` and groups.

    `fold` is optional. Every other column is a grouping: `NAME` of the pair, or `NAME_reference` and `NAME_probe`.

    Raises:
        ProtocolError: columns are missing or there is no grouping.
    """
    path = request.pairs or request.data / "pairs.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot read the CSV of pairs ({error})") from error
    columns = list(table[0]) if table else []
    missing = [c for c in ("reference", "probe", "genuine") if c not in columns]
    if missing or not table:
        raise ProtocolError(
            f"{path}: expected the columns reference, probe and genuine, got {', '.join(columns) or 'none'}"
        )
    rows = [(row["reference"], row["probe"], _truth(path, i, row["genuine"])) for i, row in enumerate(table, 2)]
    genuine = np.array([row[2] for row in rows])
    fold = _folds(path, table) if "fold" in columns else cut_folds(genuine)
    pairs = build_pairs(rows, fold, path=str(path), lines=range(2, len(rows) + 2))
    source = open_source(request.data)
    require_images(pairs, source, request)
    groupings = _groupings(path, table, [c for c in columns if c not in ("reference", "probe", "genuine", "fold")])
    protocol = GroupPairProtocol(pairs, PairProtocol.of(pairs).subjects, "groups", groupings)
    return LoadedProtocol(protocol, SourceImages(source), (path,))


def _groupings(path: Path, table: list[dict[str, str]], columns: list[str]) -> dict[str, Grouping]:
    found: dict[str, Grouping] = {}
    for column in columns:
        base, _, side = column.rpartition("_")
        if side == "probe" and f"{base}_reference" in columns:
            continue
        if side == "reference" and f"{base}_probe" in columns:
            name, sides = base, (column, f"{base}_probe")
        else:
            name, sides = column, (column, column)
        values = [[(row[s] or "").strip() or "(none)" for row in table] for s in sides]
        names = tuple(sorted({v for side_ in values for v in side_}))
        place = {v: i for i, v in enumerate(names)}
        if len(names) > 1:
            found[name] = (np.array([place[v] for v in values[0]]), np.array([place[v] for v in values[1]]), names)
    if not found:
        raise ProtocolError(
            f"{path}: expected a column that names groups (two or more values), got {columns or 'none'}"
        )
    return found


def _truth(path: Path, line: int, value: str) -> bool:
    if value.strip().lower() not in ("0", "1", "true", "false"):
        raise DataError(f"{path}, line {line}: column genuine: expected 0 or 1, got {value!r}")
    return value.strip().lower() in ("1", "true")


def _folds(path: Path, table: list[dict[str, str]]) -> IntArray:
    try:
        return np.array([int(row["fold"]) for row in table])
    except ValueError as error:
        raise DataError(f"{path}: column fold: expected whole numbers: {error}") from error


def _subjects(images: tuple[str, ...], depth: int) -> IntArray:
    """Subjects by the first `depth` folders of the names."""
    known: dict[str, int] = {}
    return np.array([known.setdefault("/".join(n.split("/")[:depth]), len(known)) for n in images], np.int64)
