"""Shared fixtures: a tiny folder of picture-like identities, and the real faces beside the repository."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Two test processes share two cores: a thread each, set before anything brings its own pool.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing a test decodes stays behind in the user's cache.
os.environ.setdefault("VISAVIS_CACHE", tempfile.mkdtemp(prefix="visavis-cache-"))

import cv2
import numpy as np
import pytest

from visavis.runtimes import silence

silence()  # tests import runtimes themselves
cv2.setNumThreads(1)
if "PYTEST_XDIST_WORKER" not in os.environ:
    atexit.register(shutil.rmtree, os.environ["VISAVIS_CACHE"], ignore_errors=True)
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder of real faces and published weights beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def blob_folder(tmp_path_factory):
    """8 identities x 6 pictures of smooth coloured blobs, one pattern per identity, with a pairs.txt of two folds."""
    root = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(0)
    names = [f"person_{i}" for i in range(8)]
    for name in names:
        pattern = rng.uniform(0, 255, (5, 5, 3)).astype(np.float32)
        (root / "images" / name).mkdir(parents=True)
        for k in range(1, 7):
            picture = cv2.resize(pattern + rng.normal(0, 12, (5, 5, 3)).astype(np.float32), (112, 112))
            picture = np.clip(picture, 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / "images" / name / f"{name}_{k:04d}.jpg"), picture)
    lines = ["2\t8"]
    for fold in (0, 4):
        own = names[fold : fold + 4]
        lines += [f"{n}\t{a}\t{b}" for n in own for a, b in ((1, 2), (3, 4))]
        lines += [f"{own[i]}\t{k}\t{own[(i + 1) % 4]}\t{k}" for i in range(4) for k in (1, 2)]
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server with pgvector, one for each test process."""
    from postgres_server import PostgresServer

    server = PostgresServer()
    yield server
    server.close()
