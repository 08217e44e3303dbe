"""`visavis embed MODEL SRC --out FILE.npz`: names, labels and embeddings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model folder, run folder or .onnx")
    parser.add_argument(
        "source", metavar="SRC", help="aligned crops: folder per identity, flat folder, .rec, .bin, list"
    )
    parser.add_argument("--out", metavar="FILE.npz", required=True, help="holds names, labels, identities, embeddings")
    parser.add_argument("--flip", choices=["none", "sum", "concat"], help="default: as the model's card says")
    parser.add_argument("--batch-size", type=int, default=64, help="default 64")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged records of a .rec out")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.data.photographs import warn_of_photographs
    from visavis.data.sources import open_source
    from visavis.errors import DataError
    from visavis.evaluate.embedding import embed_images
    from visavis.files import atomic_file
    from visavis.models.load import load_embedder

    out = Path(args.out)
    if out.suffix != ".npz":
        raise DataError(f"--out wants a .npz file, got {out.name!r}")
    if not out.absolute().parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent} to write to")
    flat = os.path.isdir(args.source) and not any(entry.is_dir() for entry in Path(args.source).iterdir())
    source = open_source(args.source, kind="flat" if flat else None, skip_damaged=args.skip_damaged)
    embedder = load_embedder(args.model, flip=args.flip, batch_size=args.batch_size)
    index = {name: i for i, name in enumerate(source.names)}
    warn_of_photographs(lambda name: source.image(index[name]), source.names, getattr(embedder, "spec", None))
    with embedding_bar("embedding") as show:
        found = embed_images(
            embedder, source.names, lambda name: source.image(index[name]), batch_size=args.batch_size, progress=show
        )
    good = np.isfinite(found.vectors).all(1)
    with atomic_file(out) as file:
        np.savez(
            file,
            names=np.array(source.names)[good],
            labels=source.labels[good],
            identities=np.array(source.identities),
            embeddings=found.vectors[good],
        )
    print(f"{int(good.sum()):,} embeddings of {found.vectors.shape[1]} numbers in {out} ({found.seconds:.1f} s)")
    for name, reason in list(found.failed.items())[:10]:
        print(f"  left out: {name}: {reason}")
    if len(found.failed) > 10:
        print(f"  ... {len(found.failed):,} pictures left out in all")
    return 0
