"""IJB-B and IJB-C as the field shares them: `meta/*.txt` and a `loose_crop/` folder (reference systems, row A7)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ProtocolError
from visavis.evaluate.protocols.integer_lists import read_integers
from visavis.evaluate.protocols.loading import LoadedProtocol, ProtocolArgs
from visavis.evaluate.protocols.template_identification import TemplateSearchProtocol
from visavis.evaluate.protocols.template_verification import TemplateProtocol
from visavis.machine import cache_home
from visavis.metrics.fusion import Pooling
from visavis.types import ByteArray, IntArray
from visavis.vision.alignment import align
from visavis.vision.images import read

_LARGEST_ID = 50_000_000


@dataclass(frozen=True)
class Meta:
    """Pictures of an IJB set: names, template and medium of each, landmarks (N, 5, 2) and detector scores (N,).

    `template_ids` are the set's own numbers in rising order; `template` holds places in it.
    """

    folder: Path
    names: tuple[str, ...]
    template: IntArray
    media: IntArray
    template_ids: IntArray
    landmarks: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def crop(self, name: str) -> ByteArray:
        """One picture, aligned by its landmarks to the ArcFace template; (H, W, 3)."""
        return align(read(self.folder / name), self.landmarks[self._index[name]])

    @property
    def _index(self) -> dict[str, int]:
        found = self.__dict__.get("_by_name")
        if found is None:
            found = {name: i for i, name in enumerate(self.names)}
            object.__setattr__(self, "_by_name", found)
        return found

    def places(self, template_ids: IntArray, *, where: str) -> IntArray:
        """Places of the set's template numbers.

        Shapes: (T,) -> (T,).

        Raises:
            ProtocolError: a number is none of the set's.
        """
        largest = max(int(self.template_ids[-1]), int(template_ids.max()))
        if min(self.template_ids[0], template_ids.min()) < 0 or largest > _LARGEST_ID:
            raise ProtocolError(f"{where}: template numbers lie in [0, {_LARGEST_ID:,}]")
        place_of = np.full(largest + 1, -1, np.int32)
        place_of[self.template_ids] = np.arange(len(self.template_ids), dtype=np.int32)
        places = place_of[template_ids]  # a table: millions of numbers are looked up
        wrong = places < 0
        if wrong.any():
            raise ProtocolError(
                f"{where}: {np.count_nonzero(wrong):,} rows name templates that have no pictures, the first is "
                f"{template_ids[wrong][0]}"
            )
        return places


def read_meta(data: Path) -> Meta:
    """Read `*_face_tid_mid.txt` (name, template, medium) and `*_name_5pts_score.txt` (name, ten coordinates, score).

    Raises:
        DataError: a list is missing or has another form; the two do not list the same pictures.
    """
    names, numbers = _named_rows(find_list(data, "face_tid_mid"), 2)
    again, points = _named_rows(find_list(data, "name_5pts_score"), 11)
    if names != again:
        order = {name: i for i, name in enumerate(again)}
        missing = [name for name in names if name not in order]
        if missing:
            raise DataError(f"{data}: {len(missing):,} pictures have no landmarks, the first is {missing[0]}")
        points = points[[order[name] for name in names]]
    ids, template = np.unique(numbers[:, 0].astype(np.int64), return_inverse=True)
    folder = data / "loose_crop" if (data / "loose_crop").is_dir() else data / "images"
    if not folder.is_dir():
        raise DataError(f"{data}: expected the pictures in loose_crop/, there is no such folder")
    landmarks = points[:, :10].reshape(-1, 5, 2)
    return Meta(folder, tuple(names), template, numbers[:, 1].astype(np.int64), ids, landmarks, points[:, 10])


def find_list(data: Path, kind: str) -> Path:
    """The one list of a kind in `data/meta` or `data`.

    Raises:
        DataError: none, or several.
    """
    found = [p for folder in (data / "meta", data) for p in sorted(folder.glob(f"*_{kind}.txt"))]
    if len(found) != 1:
        what = "none" if not found else ", ".join(p.name for p in found)
        raise DataError(f"{data}: expected one meta/*_{kind}.txt, got {what}")
    return found[0]


def load_ijb(request: ProtocolArgs) -> LoadedProtocol:
    """IJB 1:1: every comparison of `*_template_pair_label.txt`."""
    meta = read_meta(request.data)
    listed = request.pairs or find_list(request.data, "template_pair_label")
    table = read_integers(listed, columns=3, cache=cache_home())
    if table[2].max() > 1:
        raise ProtocolError(f"{listed}: expected labels 0 and 1 in the third column, got {int(table[2].max())}")
    rows = [meta.places(table[k], where=str(listed)) for k in range(2)]
    protocol = TemplateProtocol(
        images=meta.names,
        pooling=Pooling(np.arange(len(meta.names)), meta.template, meta.media),
        templates=len(meta.template_ids),
        reference=rows[0],
        probe=rows[1],
        genuine=table[2] == 1,
        subjects=_subjects(request.data, meta),
        weights=meta.scores if request.options.get("detector_scores", True) else None,
        use_norms=bool(request.options.get("norms", False)),
        name="ijb",
    )
    return LoadedProtocol(protocol, meta.crop, (listed,))


def load_ijb_search(request: ProtocolArgs) -> LoadedProtocol:
    """IJB 1:N: `*_1N_probe_mixed.csv` against the galleries `*_1N_gallery_G1.csv` and `_G2`."""
    meta = read_meta(request.data)
    sets = {kind: _read_csv(_find_csv(request.data, kind)) for kind in ("gallery_G1", "gallery_G2", "probe_mixed")}
    known: dict[str, int] = {}
    parts = {}
    for kind, rows in sets.items():
        ids = np.array(sorted({t for t, _ in rows}), np.int64)
        subject_of = dict(rows)
        subjects = np.array([known.setdefault(subject_of[int(t)], len(known)) for t in ids], np.int64)
        parts[kind] = (meta.places(ids, where=kind), subjects)
    protocol = TemplateSearchProtocol(
        images=meta.names,
        pooling=Pooling(np.arange(len(meta.names)), meta.template, meta.media),
        templates=len(meta.template_ids),
        probe=parts["probe_mixed"],
        galleries={"G1": parts["gallery_G1"], "G2": parts["gallery_G2"]},
        weights=meta.scores if request.options.get("detector_scores", True) else None,
        use_norms=bool(request.options.get("norms", False)),
        name="ijb-search",
    )
    return LoadedProtocol(protocol, meta.crop)


def _subjects(data: Path, meta: Meta) -> IntArray:
    """Subjects of templates, from the 1:N lists where they are there; −1 elsewhere."""
    found = np.full(len(meta.template_ids), -1, np.int64)
    known: dict[str, int] = {}
    for path in sorted({p for folder in (data / "meta", data) for p in folder.glob("*_1N_*.csv")}):
        for template, subject in _read_csv(path):
            place = int(np.searchsorted(meta.template_ids, template))
            if place < len(found) and meta.template_ids[place] == template:
                found[place] = known.setdefault(subject, len(known))
    return found


def _find_csv(data: Path, kind: str) -> Path:
    found = [p for folder in (data / "meta", data) for p in sorted(folder.glob(f"*_1N_{kind}.csv"))]
    if len(found) != 1:
        raise DataError(f"{data}: expected one meta/*_1N_{kind}.csv, got {len(found)}")
    return found[0]


def _read_csv(path: Path) -> list[tuple[int, str]]:
    """(template, subject) of each row; the first two columns, or those named TEMPLATE_ID and SUBJECT_ID."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        head = [c.strip().upper() for c in rows[0]]
        t = head.index("TEMPLATE_ID") if "TEMPLATE_ID" in head else 0
        s = head.index("SUBJECT_ID") if "SUBJECT_ID" in head else 1
        return [(int(row[t]), row[s].strip()) for row in rows[1:] if row]
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: expected a CSV with TEMPLATE_ID and SUBJECT_ID: {error}") from error


def _named_rows(path: Path, columns: int) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Lines of a name and `columns` numbers."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the list ({error})") from error
    lines = [line for line in lines if line.strip()]
    words = [line.split() for line in lines]
    for number, row in enumerate(words, 1):
        if len(row) != columns + 1:
            raise DataError(
                f"{path}, line {number}: expected a name and {columns} numbers, got {lines[number - 1][:80]!r}"
            )
    if not words:
        raise DataError(f"{path}: expected a name and {columns} numbers a line, got an empty list")
    try:
        values = np.array([row[1:] for row in words], np.float64)
    except ValueError as error:
        raise DataError(f"{path}: expected a name and {columns} numbers a line: {error}") from error
    return [row[0] for row in words], values
