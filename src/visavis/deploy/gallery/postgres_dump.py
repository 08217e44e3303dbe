"""A copy of a gallery in PostgreSQL, made by the server's own pg_dump."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from visavis.deploy.gallery.postgres_address import without_secrets
from visavis.deploy.gallery.postgres_pool import PostgresPool
from visavis.deploy.gallery.records import StorageError
from visavis.errors import DataError
from visavis.files import atomic_file


def dump(pool: PostgresPool, schema: str, path: Path) -> None:
    """Copy a schema into a file for pg_restore, also while others read and write; it is whole or not there.

    Raises:
        DataError: pg_dump is not installed, or refuses; the file cannot be written.
    """
    from psycopg.conninfo import make_conninfo

    program = shutil.which("pg_dump")
    if program is None:
        raise DataError("a backup of PostgreSQL wants its program pg_dump; install the server's client programs")
    given = dict(pool.parameters)
    password = given.pop("password", None)  # what stands among a program's arguments, everybody can read
    environment = {**os.environ, **({} if password is None else {"PGPASSWORD": str(password)})}
    command = [program, "--format=custom", "--no-owner", f"--schema={_quoted(schema)}"]
    with atomic_file(path, private=True) as file:
        done = subprocess.run(
            [*command, f"--dbname={make_conninfo(**given)}"],
            stdout=file, stderr=subprocess.PIPE, text=True, check=False, env=environment,
        )  # fmt: skip
        if done.returncode:
            said = without_secrets(done.stderr).strip().splitlines() or ["it says nothing"]
            raise StorageError(f"{pool.name}: pg_dump failed: {said[0]}")


def _quoted(schema: str) -> str:
    """A schema's name as a pattern of pg_dump that fits nothing else."""
    return '"' + schema.replace('"', '""') + '"'
