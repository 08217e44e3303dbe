"""Opening a gallery by its address: a file, or a schema of a PostgreSQL database."""

from __future__ import annotations

import os

from visavis.deploy.gallery.encryption import KEY_VARIABLE
from visavis.deploy.gallery.index import Approximation
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.postgres_address import is_postgres, without_password
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.vectors import Precision
from visavis.errors import DataError

AnyGallery = Gallery | PgGallery


def open_gallery(
    address: str | os.PathLike[str],
    model: ModelIdentity | None = None,
    *,
    create: bool = False,
    read_only: bool = False,
    precision: Precision = "float32",
    approximate: Approximation | None = None,
    retention_days: float | None = None,
) -> AnyGallery:
    """The gallery at a path or at `postgresql://USER@HOST/DATABASE?schema=NAME`.

    Args:
        address: where it is.
        model, create, read_only, precision, approximate, retention_days: see `Gallery`; in PostgreSQL there is one
            approximate index, "graph", made with the gallery and kept by the server.

    Raises:
        DataError: see `Gallery` and `PgGallery`; an option that cannot take effect in PostgreSQL.
    """
    if not is_postgres(address):
        return Gallery(
            address, model, create=create, read_only=read_only, precision=precision, approximate=approximate,
            retention_days=retention_days,
        )  # fmt: skip
    shown = without_password(str(address))
    if os.environ.get(KEY_VARIABLE):
        raise DataError(
            f"{shown}: {KEY_VARIABLE} cannot take effect, PostgreSQL could not search encrypted vectors; unset it, and "
            "let the server encrypt its disk"
        )
    if precision != "float32":
        raise DataError(f"{shown}: PostgreSQL searches float32 vectors; leave out --precision {precision}")
    if approximate == "cells":
        raise DataError(f"{shown}: PostgreSQL searches exactly or by a graph; add --index graph when it is made")
    gallery = PgGallery(
        str(address), model, create=create, read_only=read_only, approximate=approximate == "graph",
        retention_days=retention_days,
    )  # fmt: skip
    if approximate == "graph" and not gallery.approximate:
        gallery.close()
        raise DataError(
            f"{shown}: this gallery was made without a graph; leave out --index graph, or make the index: "
            "CREATE INDEX ON templates USING hnsw (vector vector_ip_ops)"
        )
    return gallery
