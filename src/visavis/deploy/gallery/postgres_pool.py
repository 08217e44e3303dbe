"""Connections to a gallery in PostgreSQL: a pool, a transaction on each, and the server's errors in plain words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from visavis.deploy.gallery.postgres_address import is_postgres, is_readable, without_secrets
from visavis.deploy.gallery.records import StorageError
from visavis.errors import DataError

FORMAT = 2  # 1 had neither checksums nor sources nor unknown faces; `postgres_migration` brings it to 2
LOCK_WAIT = 30.0  # seconds to wait for another process's change
_PATIENCE = 10.0  # seconds a caller waits for a connection while the server is away
# A peer that vanished without a word is noticed within a minute, not after the two hours of TCP's default.
_NETWORK = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
_VECTOR = (
    "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
)
_AT_A_TIME = 500  # rows a reader fetches
_NUMBERS = itertools.count()
_UNDECIDED = (
    "the server was lost while it kept a change, and whether it did cannot be told; look, and repeat the change where "
    "it is missing"
)
_WORDS = {
    "53100": "the server's disk is full; nothing of this change was kept, free some space and repeat it",
    "25006": "the server accepts no writes (a standby?); nothing of this change was kept",
    "42P01": "the gallery was replaced; restart",
    "42501": "the server does not allow this role to do that",
    "40P01": "another process changed the same people at the same time; nothing of this change was kept, try again",
    "55P03": "another process holds the tables for too long; nothing of this change was kept, try again",
}


@final
class PostgresPool:
    """Up to `size` connections whose search path is a gallery's schema; each transaction has one to itself.

    A connection is tried before it is given out, and replaced when the server had dropped it. While the server is away
    callers wait up to 10 s, and the pool tries again with growing pauses.

    Args:
        dsn: as for psycopg, e.g. postgresql://user@host/database; a password belongs into PGPASSWORD, PGPASSFILE or a
            service file.
        schema: the gallery's.
        name: what messages call the gallery; never holds a password.
        size: connections at most.

    Raises:
        DataError: psycopg is not installed, or the address cannot be read.
        StorageError: the server cannot be reached.
    """

    def __init__(self, dsn: str, schema: str, *, name: str, size: int = 8) -> None:
        try:
            import psycopg
            from psycopg import sql
            from psycopg.conninfo import conninfo_to_dict, make_conninfo
            from psycopg_pool import ConnectionPool
        except ImportError as error:
            raise DataError(
                f'a gallery in PostgreSQL wants {error.name}; type: pip install "visavis[postgres]"'
            ) from error
        self.name = name
        self._psycopg = psycopg
        try:
            if is_postgres(dsn) and not is_readable(dsn):
                raise psycopg.ProgrammingError
            given = conninfo_to_dict(dsn)
        except psycopg.Error:  # libpq's own words repeat what it could not read, and that may be a password
            raise DataError(
                f"{name}: this is no address of PostgreSQL; expected postgresql://USER@HOST:PORT/DATABASE?schema=NAME, "
                "with @, / and : inside a part written %40, %2F and %3A"
            ) from None
        self.parameters = {**_NETWORK, "application_name": "visavis", **given}
        conninfo = make_conninfo(**self.parameters)

        def configure(db: Any) -> None:
            found = db.execute(_VECTOR).fetchone()
            names = [sql.Identifier(name) for name in dict.fromkeys([schema, *(found or ["public"])])]
            db.execute(sql.SQL("SET search_path TO {}").format(sql.SQL(", ").join(names)))
            db.execute(f"SET visavis.format = '{FORMAT}'")
            db.execute(f"SET lock_timeout = '{LOCK_WAIT:g}s'")
            # A machine that vanishes in the middle of a change must not keep the others waiting for hours.
            db.execute(f"SET idle_in_transaction_session_timeout = '{2 * LOCK_WAIT:g}s'")
            db.commit()

        self._first(conninfo)
        self._pool: Any = ConnectionPool(
            conninfo,
            min_size=1,
            max_size=size,
            timeout=_PATIENCE,
            reconnect_timeout=_PATIENCE / 2,  # then the next caller starts anew, without the long pauses of many tries
            configure=configure,
            check=ConnectionPool.check_connection,
            name=name,
            open=True,
        )

    def _first(self, conninfo: str) -> None:
        """One connection by hand: the pool would try on and write a log where one line should say what is wrong."""
        with self._explained(reaching=True):
            self._psycopg.connect(conninfo).close()

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Connection]:
        """One transaction: kept when the block ends, gone when it raises; `read_only` gives one view for all queries.

        Raises:
            StorageError: the server cannot be reached, dropped the connection, or refuses.
        """
        level = self._psycopg.IsolationLevel
        committing = False
        try:
            with self._explained(), self._pool.connection() as db:
                db.isolation_level = level.REPEATABLE_READ if read_only else level.READ_COMMITTED
                db.read_only = read_only
                connection = Connection(db, read_only=read_only)
                try:
                    yield connection
                finally:
                    connection.close()
                committing = not read_only
                db.commit()
                committing = False
        except StorageError as error:
            if committing:
                raised = StorageError(f"{self.name}: {_UNDECIDED}")
                raised.public = _UNDECIDED
                raise raised from error
            raise

    @contextmanager
    def maintenance(self, *, wait: float) -> Iterator[Connection]:
        """A connection outside any transaction, as VACUUM wants it; statements wait `wait` seconds for a lock."""
        with self._explained(), self._pool.connection() as db:
            db.read_only = None
            db.autocommit = True
            try:
                db.execute(f"SET lock_timeout = '{wait:g}s'")
                yield Connection(db)
            finally:
                if not db.closed:
                    db.execute(f"SET lock_timeout = '{LOCK_WAIT:g}s'")
                    db.autocommit = False

    @contextmanager
    def _explained(self, *, reaching: bool = False) -> Iterator[None]:
        psycopg = self._psycopg
        try:
            yield
        except psycopg.Error as error:
            lines = without_secrets(str(error)).strip().splitlines() or [type(error).__name__]
            code = error.sqlstate or ""
            silent = not code and isinstance(error, psycopg.OperationalError)
            away = reaching or silent or code[:2] == "08" or code[:4] == "57P0"
            if away:
                text = f"PostgreSQL cannot be reached: {lines[0]}"
            else:
                text = f"{_WORDS[code]} ({lines[0]})" if code in _WORDS else lines[0]
            raised = StorageError(f"{self.name}: {text}")
            raised.public = "the gallery's database cannot be reached; try again" if away else None
            raise raised from None

    def close(self) -> None:
        """Let go of the server."""
        self._pool.close()


class Connection:
    """A connection that takes `?` for a value, as SQLite does, so that both galleries share their SQL."""

    def __init__(self, db: Any, *, read_only: bool = False) -> None:
        self._db = db
        self._read_only = read_only
        self._opened: list[Any] = []

    def execute(self, query: str | Any, values: Sequence[Any] = ()) -> Any:
        """Run one statement; a SELECT of a reader when its rows are asked for, since only then it shows how many."""
        text = query.replace("?", "%s") if isinstance(query, str) else query
        if self._read_only and isinstance(text, str) and text.startswith("SELECT"):
            return _Selection(self._db, text, values or None, self._opened)
        return self._db.execute(text, values or None)

    def close(self) -> None:
        """Let the server forget the cursors it keeps."""
        for cursor in self._opened:
            cursor.close()

    def make_schema(self, name: str) -> None:
        """Make a schema unless it is there."""
        from psycopg import sql

        self._db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name)))

    @contextmanager
    def notices(self, details: list[str]) -> Iterator[None]:
        """Collect the details of what the server remarks on, as VACUUM VERBOSE does."""

        def keep(said: Any) -> None:
            if said.message_detail:
                details.append(said.message_detail)

        self._db.add_notice_handler(keep)
        try:
            yield
        finally:
            self._db.remove_notice_handler(keep)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows, in one round trip."""
        with self._db.cursor() as cursor:
            cursor.executemany(query.replace("?", "%s"), rows)


class _Selection:
    """Rows of a SELECT: all at once when they are asked for at once, else through a cursor the server keeps.

    A query of a whole table, gone through row by row, holds a few hundred of them, as SQLite's does. The transaction's
    view stands still, so that it does not matter when the query runs.
    """

    def __init__(self, db: Any, query: str, values: Any, opened: list[Any]) -> None:
        self._db, self._query, self._values, self._opened = db, query, values, opened
        self._cursor: Any = None

    def fetchone(self) -> Any:
        """The first row, or the next where rows were fetched before."""
        return self._run().fetchone()

    def fetchall(self) -> list[Any]:
        """Every row, or the rest."""
        return self._run().fetchall()

    def fetchmany(self, size: int) -> list[Any]:
        """The next rows."""
        return self._open().fetchmany(size)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._run() if self._values else self._open())  # what is named by a value is little

    def _run(self) -> Any:
        if self._cursor is None:
            self._cursor = self._db.execute(self._query, self._values)
        return self._cursor

    def _open(self) -> Any:
        if self._cursor is None:
            self._cursor = self._db.cursor(name=f"visavis_{next(_NUMBERS)}")
            self._opened.append(self._cursor)
            self._cursor.itersize = _AT_A_TIME
            self._cursor.execute(self._query, self._values)
        return self._cursor
