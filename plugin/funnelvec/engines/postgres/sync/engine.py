# Made from aio/engine.py by tools/write_sync.py: change that file, then `make sync`.

"""The synchronous Postgres engine: `connect`, `wrap`, `connect_embedded` and what they return.

An engine either owns its connection (autocommit), borrows the application's, or borrows one from
a pool for each call. On a borrowed connection work happens inside the application's transaction
where one is open, and without autocommit the application commits.

Calls on one connection wait for each other, whichever engine or table they come from; calls on a
pool run side by side. A call that is cancelled stops its statement in the server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql

from funnelvec.engines import checks, options
from funnelvec.engines.base import Capabilities
from funnelvec.engines.keys import key_name
from funnelvec.engines.postgres.adapt import (
    CAPABILITIES,
    COLUMN_TYPES,
    SQL_NAME,
    milliseconds,
    register,
    statement,
    translated,
)
from funnelvec.engines.postgres.sync.connection import (
    IDLE,
    INERROR,
    Connection,
    Pool,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.postgres.sync.table import PostgresTable
from funnelvec.engines.postgres.twins import in_place, is_pool, thread_lock
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.install.apply import check_compatible
from funnelvec.reports import Problem, Repair
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, ColumnKind, Metric

if TYPE_CHECKING:
    from funnelvec.engines.postgres.embedded import EmbeddedServer

__all__ = ["PostgresEngine", "connect", "connect_embedded", "wrap"]


def connect(url: str, *, statement_timeout: float | None = None, **options: Any) -> PostgresEngine:
    """Open a connection of our own (autocommit).

    Parameters
    ----------
    url
        A libpq connection URL.
    statement_timeout
        Seconds after which the server stops a statement, which raises `Timeout`.
    options
        Further libpq parameters, such as ``connect_timeout=5``.

    Raises
    ------
    Unreachable
        If there is no such server or database, or it refuses the credentials.
    InstallError, VersionMismatch
        If the database has no funnelvec, or one that this client cannot work with.
    """
    limit = milliseconds(statement_timeout)
    with translated():
        connection = psycopg.Connection.connect(url, autocommit=True, **options)
    return _checked(PostgresEngine(connection, owned=True), limit)


def wrap(obj: object) -> PostgresEngine:
    """Use an ``Connection`` or an ``ConnectionPool`` of the application."""
    if isinstance(obj, psycopg.Connection):
        return _checked(PostgresEngine(cast("Connection", obj), owned=False))
    if is_pool(obj):
        return _checked(PostgresEngine(cast("Pool", obj), owned=False))
    raise InvalidInput(
        "wrap takes a psycopg.Connection or a psycopg_pool.ConnectionPool, not "
        f"{type(obj).__qualname__}"
    )


def connect_embedded(
    directory: str | os.PathLike[str], *, statement_timeout: float | None = None, **options: Any
) -> PostgresEngine:
    """Start (or join) the embedded server of a folder, with pgvector and funnelvec in place.

    `options` go to `EmbeddedServer.start`. The server stops with the last engine that uses it.
    """
    from funnelvec.engines.postgres.embedded import start_prepared, stop

    limit = milliseconds(statement_timeout)
    server = in_place(partial(start_prepared, directory, **options), undo=stop)
    try:
        with translated():
            connection = psycopg.Connection.connect(server.url(), autocommit=True)
    except BaseException:
        in_place(server.stop)
        raise
    return _checked(PostgresEngine(connection, owned=True, server=server), limit)


def _checked(engine: PostgresEngine, limit: str | None = None) -> PostgresEngine:
    try:
        with engine._calling() as connection:
            if limit is not None:
                fetch_all(connection, statement("set_timeout"), {"limit": limit})
            check_compatible(connection)
    except BaseException:
        engine.close()
        raise
    return engine


class PostgresEngine:
    """Postgres with pgvector and funnelvec; see `funnelvec.engines.base.Engine`."""

    def __init__(
        self, source: Connection | Pool, *, owned: bool, server: EmbeddedServer | None = None
    ) -> None:
        self._source = source
        self._owned = owned
        self._server = server

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        return CAPABILITIES

    @property
    def server(self) -> EmbeddedServer | None:
        """The embedded server behind this engine, if there is one."""
        return self._server

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend the connection, for SQL of your own; errors of the driver become ours."""
        with translated():
            if isinstance(self._source, psycopg.Connection):
                register(self._source)
                yield self._source
            else:
                with self._source.connection() as connection:
                    register(connection)
                    yield connection

    @contextlib.contextmanager
    def _calling(self) -> Iterator[Connection]:
        """Hold the connection for one call; other calls on it wait. Not re-entrant."""
        # Lending to the application holds no lock: whoever calls us in there would wait for ever.
        with self.connection() as connection, thread_lock(connection):
            idle = connection.pgconn.transaction_status == IDLE
            try:
                yield connection
            except BaseException:
                # What our own statement has opened and broken is ours to roll back.
                if idle and connection.pgconn.transaction_status == INERROR:
                    connection.rollback()
                raise

    def table(self, name: str, *, vector: str | None = None) -> PostgresTable:
        """Open a table, by its plain name or as SQL writes it (``shop.products``)."""
        checks.check_name(name, "the name of a table")
        with self._calling() as connection:
            found = fetch_one(
                connection, statement("find_table"), {"name": name, "sql_name": SQL_NAME}
            )
            if found is None:
                raise NotFound(
                    f"table {name!r} does not exist or is not on the search_path; write "
                    "schema.table, or make it with create()"
                )
            regclass, schema, relation = found
            if vector is None:
                vector = _only_vector(connection, regclass, name)
            row = fetch_one(
                connection, statement("describe"), {"table": regclass, "vector": vector}
            )
        assert row is not None  # the functions behind it raise where they have nothing to return
        dims, code, metric, key = row
        return PostgresTable(
            self, schema, relation,
            vector=vector, dims=dims, code=code, metric=metric, key=key_name(key),
        )  # fmt: skip

    def create(
        self,
        name: str,
        *,
        dims: int,
        vector: str = "embedding",
        dtype: BaseCode = "f32",
        metric: Metric = "cosine",
        id: str | Sequence[str] = "id",
        id_kind: ColumnKind | Sequence[ColumnKind] = "integer",
        columns: Mapping[str, ColumnKind] | None = None,
    ) -> PostgresTable:
        """Create an empty table; ``schema.table`` puts it into a schema."""
        checks.check_name(name, "the name of a table")
        key, others = checks.check_schema(vector=vector, id=id, id_kind=id_kind, columns=columns)
        base = Resolution(checks.check_dims(dims), checks.check_dtype(dtype))
        chosen = checks.check_metric(metric)
        identifier = sql.Identifier(*name.split(".", 1))
        with self._calling() as connection, atomic(connection):
            home = fetch_one(connection, statement("vector_type"), {"code": base.code})
            assert home is not None
            definitions = [
                *_definitions(key),
                sql.SQL("{} {}({}) not null").format(
                    sql.Identifier(vector), sql.SQL(home[0]), sql.Literal(base.dims)
                ),
                *_definitions(others),
                sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))),
            ]
            cursor(connection).execute(
                sql.SQL("create table {} ({})").format(identifier, sql.SQL(", ").join(definitions))
            )
            if chosen not in (None, "cosine"):
                # The column itself as a resolution: whoever opens the table finds the metric.
                cursor(connection).execute(
                    statement("add_resolution"),
                    {
                        "table": identifier.as_string(None),
                        "vector": vector,
                        "resolution": str(base),
                        "index": False,
                        "allow_rewrite": False,
                        "metric": chosen,
                        "storage": None,
                        "concurrently": False,
                        "m": None,
                        "ef_construction": None,
                    },
                )
        return self.table(name, vector=vector)

    def problems(self) -> list[Problem]:
        """List what is out of step with the tables, as ``funnelvec.status()`` does in SQL."""
        with self._calling() as connection:
            rows = fetch_all(connection, statement("problems"))
        return [Problem(*row) for row in rows]

    def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Mend what is out of step, as ``funnelvec.repair()`` does in SQL; all or nothing."""
        options.check_flag(dry_run, "dry_run")
        with self._calling() as connection, atomic(connection):
            rows = fetch_all(connection, statement("repair"), {"dry_run": bool(dry_run)})
        return [Repair(*row) for row in rows]

    def close(self) -> None:
        """Close what was opened here; a borrowed connection or pool stays open."""
        if self._owned and isinstance(self._source, psycopg.Connection):
            self._source.close()
        if self._server is not None:
            in_place(self._server.stop)

    def __enter__(self) -> PostgresEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _definitions(columns: Mapping[str, ColumnKind]) -> list[sql.Composed]:
    return [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(COLUMN_TYPES[kind]))
        for name, kind in columns.items()
    ]


def _only_vector(connection: Connection, regclass: str, name: str) -> str:
    rows = fetch_all(connection, statement("vector_columns"), {"table": regclass})
    vectors = [str(row[0]) for row in rows]
    if len(vectors) == 1:
        return vectors[0]
    if not vectors:
        raise NotFound(f"table {name!r} has no column of type vector or halfvec")
    raise InvalidInput(
        f"table {name!r} has several vector columns ({', '.join(vectors)}); say which with vector="
    )
