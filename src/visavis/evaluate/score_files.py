"""Scores on disk: all arrays of a protocol as .npz, and one comparison a line as other tools read them."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np

from visavis.errors import ProtocolError
from visavis.evaluate.protocols.base import Scores
from visavis.files import write_atomically

_COMPRESSED_BYTES = 30_000_000  # beyond, random bits of scores cost seconds and save little
COLUMNS = {
    4: ("claimed_id", "real_id", "test_label", "score"),
    5: ("claimed_id", "model_label", "real_id", "test_label", "score"),
}


def save_scores(path: str | os.PathLike[str], scores: Scores) -> None:
    """Write a protocol's scores as .npz, atomically."""
    buffer = io.BytesIO()
    large = sum(values.nbytes for values in scores.values()) > _COMPRESSED_BYTES
    (np.savez if large else np.savez_compressed)(buffer, **scores)  # pyright: ignore[reportArgumentType]
    write_atomically(Path(path), buffer.getvalue())


def load_scores(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read scores; nothing in the file is executed.

    Shapes: (N,) each.

    Raises:
        ProtocolError: missing, damaged or not an .npz of plain arrays.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ProtocolError(f"{os.fspath(path)}: expected the scores (.npz) of an evaluation: {error}") from error


def write_score_csv(path: str | os.PathLike[str], scores: Scores, *, columns: int = 5) -> None:
    """One comparison a line under the names of bob.bio's four or five columns, in the list's order.

    `claimed_id` is the subject of the reference, `model_label` the reference picture, `real_id` the subject of the
    probe, `test_label` the probe picture, `score` the similarity; a comparison that was not acquired has the score nan.
    A comparison is genuine where claimed_id equals real_id. Where the pictures' names do not tell the subjects, each
    picture is its own subject in an impostor pair, and both are the reference's in a genuine one.

    Raises:
        ProtocolError: the protocol does not compare pairs of pictures, or another number of columns.
    """
    if columns not in COLUMNS:
        raise ProtocolError(f"scores are written in 4 or 5 columns, got {columns}")
    needed = ("similarity", "genuine", "reference", "probe", "names")
    missing = [name for name in needed if name not in scores]
    if missing:
        raise ProtocolError(f"only pairs of pictures are written as CSV; this protocol has no {', '.join(missing)}")
    names = scores["names"].tolist()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS[columns])
    for reference, probe, claimed, real, score in _comparisons(scores):
        label = () if columns == 4 else (names[reference],)
        writer.writerow((claimed, *label, real, names[probe], repr(score)))
    write_atomically(Path(path), buffer.getvalue().encode())


def _comparisons(scores: Scores) -> list[tuple[int, int, str, str, float]]:
    """Reference, probe, their subjects and the similarity of each comparison."""
    reference, probe = scores["reference"].tolist(), scores["probe"].tolist()
    subjects = scores.get("reference_subject"), scores.get("probe_subject")
    if subjects[0] is not None and subjects[1] is not None and min(s.min() for s in subjects if s is not None) >= 0:
        claimed, real = ([str(s) for s in side.tolist()] for side in subjects if side is not None)
    else:
        claimed = [f"image{r}" for r in reference]
        genuine = scores["genuine"].tolist()
        real = [c if g else f"image{p}" for c, g, p in zip(claimed, genuine, probe, strict=True)]
    return list(zip(reference, probe, claimed, real, scores["similarity"].astype(float).tolist(), strict=True))
