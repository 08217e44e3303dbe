"""Make the gallery in PostgreSQL of format 1 that the tests open: run with the program of commit 6250fda.

    git worktree add ../old 6250fda
    PYTHONPATH=../old/src:tests/support python tests/deploy/gallery/old_galleries/make_postgres.py

Writes postgres.sql.gz (pg_dump of its schema) and what that program answered, into postgres.json. Vectors are random.
"""

import base64
import gzip
import json
from pathlib import Path

import numpy as np
from postgres_server import PostgresServer
from visavis.deploy.binding import ModelIdentity
from visavis.deploy.pgvector import PgGallery

HERE = Path(__file__).parent
MODEL = ModelIdentity("fake", 8, "a" * 64)
FAR = 36_500.0  # days


def rows(seed: int, n: int = 1) -> np.ndarray:
    """n random vectors."""
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)


def fill(gallery: PgGallery) -> None:
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


def answers(gallery: PgGallery) -> dict:
    """What the program answers about a gallery."""
    people = gallery.subjects()
    crops = {s.name: gallery.crop(s.id) for s in people}
    return {
        "subjects": [vars(s) for s in people],
        "crops": {name: base64.b64encode(crop).decode() for name, crop in crops.items() if crop},
        "search": [[vars(c) for c in found] for found in gallery.search(rows(9, 6), top=4)],
        "retention_days": gallery.retention_days,
    }


def main() -> None:
    """Write the files."""
    server = PostgresServer()
    with PgGallery(server.dsn, MODEL, schema="old", create=True, approximate=True, retention_days=FAR / 2) as gallery:
        fill(gallery)
        said = answers(gallery)
    dump = server.run("pg_dump", "--schema=old", "--no-owner", server.dsn)
    server.close()
    (HERE / "postgres.sql.gz").write_bytes(gzip.compress(dump.encode(), mtime=0))
    (HERE / "postgres.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
