"""Make the galleries of format 2 that the tests open: run with the program of commit 6250fda.

    git worktree add ../old 6250fda && PYTHONPATH=../old/src python tests/deploy/gallery/old_galleries/make.py

Writes plain.db.gz, sealed.db.gz and, for each, what that program answered, into answers.json. Vectors are random.
"""

import base64
import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
from visavis.deploy.binding import ModelIdentity
from visavis.deploy.sealing import AesGcm, Plain
from visavis.deploy.unknowns import keep_unknowns, read_unknowns

from visavis.deploy.gallery import Gallery

HERE = Path(__file__).parent
MODEL = ModelIdentity("fake", 8, "a" * 64)
KEY = b"k" * 32
FAR = 36_500.0  # days


def rows(seed: int, n: int = 1) -> np.ndarray:
    """n random vectors."""
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)


def fill(gallery: Gallery) -> None:
    """People, renamed, merged and forgotten; crops, notes, retention; names that differ by a character nobody sees."""
    gallery.enroll(
        "Ada",
        rows(1, 3),
        weights=[0.2, 1, 0.5],
        pictures=[b"p1", b"p2", b"p3"],
        crops=[b"crop 1" * 9, None, b"c3" * 30],
    )
    gallery.enroll("Bóra 王", rows(2, 2), consent="signed form 7", retention_days=FAR)
    gallery.enroll("Cy", rows(3), consent="asked", pictures=[b"p4"])
    gallery.enroll("Dan", rows(4, 2))
    gallery.enroll("Zebulon", rows(5))
    gallery.enroll("Ada\u200b", rows(6))
    gallery.update("Dan", name="Daniel")
    gallery.merge("Daniel", "Cy")
    gallery.forget("Zebulon")
    gallery.enroll_many([f"s{i}" for i in range(20)], rows(7, 20), consent="many")
    keep_unknowns(gallery, list(rows(8, 3)))


def answers(gallery: Gallery) -> dict:
    """What the program answers about a gallery."""
    people = gallery.subjects()
    crops = {s.name: gallery.crop(s.id) for s in people}
    unknowns, vectors = read_unknowns(gallery)
    return {
        "subjects": [vars(s) for s in people],
        "crops": {name: base64.b64encode(crop).decode() for name, crop in crops.items() if crop},
        "search": [[vars(c) for c in found] for found in gallery.search(rows(9, 6), top=4)],
        "retention_days": gallery.retention_days,
        "unknowns": {"ids": unknowns, "vectors": vectors.tolist()},
    }


def main() -> None:
    """Write the files."""
    said = {}
    for kind, seal in (("plain", Plain()), ("sealed", AesGcm(KEY))):
        path = Path(tempfile.mkdtemp()) / "g.db"
        with Gallery(path, MODEL, create=True, retention_days=FAR / 2, seal=seal) as gallery:
            fill(gallery)
            said[kind] = answers(gallery)
        (HERE / f"{kind}.db.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    (HERE / "answers.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
