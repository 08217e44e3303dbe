"""A Joint Bayesian scorer as a file: .npz, written atomically, read without executing anything."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np

from visavis.errors import ModelFormatError
from visavis.files import write_atomically
from visavis.metrics.joint_bayesian import JointBayesian, PairScorer, Pca


def save_scorer(scorer: PairScorer, path: str | os.PathLike[str]) -> None:
    """Write as .npz, atomically."""
    buffer = io.BytesIO()
    np.savez(
        buffer, pca_mean=scorer.pca.mean, pca_components=scorer.pca.components, pca_variance=scorer.pca.variance,
        mean=scorer.joint.mean, between=scorer.joint.between, within=scorer.joint.within,
    )  # fmt: skip
    write_atomically(Path(path), buffer.getvalue())


def load_scorer(path: str | os.PathLike[str]) -> PairScorer:
    """Read what `save_scorer` wrote; nothing in the file is executed.

    Raises:
        ModelFormatError: missing, damaged, or not such a file.
    """
    names = ("pca_mean", "pca_components", "pca_variance", "mean", "between", "within")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            parts = [np.asarray(stored[name], np.float64) for name in names]
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelFormatError(f"{os.fspath(path)}: expected a Joint Bayesian scorer (.npz): {error}") from error
    dim, wide = parts[1].shape if parts[1].ndim == 2 else (0, 0)
    wanted = ((wide,), (dim, wide), (dim,), (dim,), (dim, dim), (dim, dim))
    if tuple(p.shape for p in parts) != wanted or not all(np.isfinite(p).all() for p in parts):
        raise ModelFormatError(f"{os.fspath(path)}: the arrays of this Joint Bayesian scorer do not fit together")
    return PairScorer(Pca(*parts[:3]), JointBayesian(*parts[3:]))
