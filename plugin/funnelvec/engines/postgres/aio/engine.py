"""The asynchronous Postgres engine: `connect`, `wrap`, `connect_embedded` and what they return.

An engine either owns its connection (autocommit), borrows the application's, or borrows one from
a pool for each call. On a borrowed connection work happens inside the application's transaction
where one is open, and without autocommit the application commits.

Calls on one connection wait for each other, whichever engine or table they come from; calls on a
pool run side by side. A call that is cancelled stops its statement in the server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
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
from funnelvec.engines.postgres.aio.connection import (
    IDLE,
    INERROR,
    Connection,
    Pool,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.postgres.aio.table import AsyncPostgresTable
from funnelvec.engines.postgres.twins import in_thread, is_async_pool, task_lock
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.install.apply import check_compatible_async
from funnelvec.reports import Problem, Repair
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, ColumnKind, Metric

if TYPE_CHECKING:
    from funnelvec.engines.postgres.embedded import EmbeddedServer

__all__ = ["AsyncPostgresEngine", "connect", "connect_embedded", "wrap"]


async def connect(
    url: str, *, statement_timeout: float | None = None, **options: Any
) -> AsyncPostgresEngine:
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
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **options)
    return await _checked(AsyncPostgresEngine(connection, owned=True), limit)


async def wrap(obj: object) -> AsyncPostgresEngine:
    """Use an ``AsyncConnection`` or an ``AsyncConnectionPool`` of the application."""
    if isinstance(obj, psycopg.AsyncConnection):
        return await _checked(AsyncPostgresEngine(cast("Connection", obj), owned=False))
    if is_async_pool(obj):
        return await _checked(AsyncPostgresEngine(cast("Pool", obj), owned=False))
    raise InvalidInput(
        "wrap_async takes a psycopg.AsyncConnection or a psycopg_pool.AsyncConnectionPool, not "
        f"{type(obj).__qualname__}"
    )


async def connect_embedded(
    directory: str | os.PathLike[str], *, statement_timeout: float | None = None, **options: Any
) -> AsyncPostgresEngine:
    """Start (or join) the embedded server of a folder, with pgvector and funnelvec in place.

    `options` go to `EmbeddedServer.start`. The server stops with the last engine that uses it.
    """
    from funnelvec.engines.postgres.embedded import start_prepared, stop

    limit = milliseconds(statement_timeout)
    server = await in_thread(partial(start_prepared, directory, **options), undo=stop)
    try:
        with translated():
            connection = await psycopg.AsyncConnection.connect(server.url(), autocommit=True)
    except BaseException:
        await in_thread(server.stop)
        raise
    return await _checked(AsyncPostgresEngine(connection, owned=True, server=server), limit)


async def _checked(engine: AsyncPostgresEngine, limit: str | None = None) -> AsyncPostgresEngine:
    try:
        async with engine._calling() as connection:
            if limit is not None:
                await fetch_all(connection, statement("set_timeout"), {"limit": limit})
            await check_compatible_async(connection)
    except BaseException:
        await engine.close()
        raise
    return engine


class AsyncPostgresEngine:
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

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend the connection, for SQL of your own; errors of the driver become ours."""
        with translated():
            if isinstance(self._source, psycopg.AsyncConnection):
                register(self._source)
                yield self._source
            else:
                async with self._source.connection() as connection:
                    register(connection)
                    yield connection

    @contextlib.asynccontextmanager
    async def _calling(self) -> AsyncIterator[Connection]:
        """Hold the connection for one call; other calls on it wait. Not re-entrant."""
        # Lending to the application holds no lock: whoever calls us in there would wait for ever.
        async with self.connection() as connection, task_lock(connection):
            idle = connection.pgconn.transaction_status == IDLE
            try:
                yield connection
            except BaseException:
                # What our own statement has opened and broken is ours to roll back.
                if idle and connection.pgconn.transaction_status == INERROR:
                    await connection.rollback()
                raise

    async def table(self, name: str, *, vector: str | None = None) -> AsyncPostgresTable:
        """Open a table, by its plain name or as SQL writes it (``shop.products``)."""
        checks.check_name(name, "the name of a table")
        async with self._calling() as connection:
            found = await fetch_one(
                connection, statement("find_table"), {"name": name, "sql_name": SQL_NAME}
            )
            if found is None:
                raise NotFound(
                    f"table {name!r} does not exist or is not on the search_path; write "
                    "schema.table, or make it with create()"
                )
            regclass, schema, relation = found
            if vector is None:
                vector = await _only_vector(connection, regclass, name)
            row = await fetch_one(
                connection, statement("describe"), {"table": regclass, "vector": vector}
            )
        assert row is not None  # the functions behind it raise where they have nothing to return
        dims, code, metric, key = row
        return AsyncPostgresTable(
            self, schema, relation,
            vector=vector, dims=dims, code=code, metric=metric, key=key_name(key),
        )  # fmt: skip

    async def create(
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
    ) -> AsyncPostgresTable:
        """Create an empty table; ``schema.table`` puts it into a schema."""
        checks.check_name(name, "the name of a table")
        key, others = checks.check_schema(vector=vector, id=id, id_kind=id_kind, columns=columns)
        base = Resolution(checks.check_dims(dims), checks.check_dtype(dtype))
        chosen = checks.check_metric(metric)
        identifier = sql.Identifier(*name.split(".", 1))
        async with self._calling() as connection, atomic(connection):
            home = await fetch_one(connection, statement("vector_type"), {"code": base.code})
            assert home is not None
            definitions = [
                *_definitions(key),
                sql.SQL("{} {}({}) not null").format(
                    sql.Identifier(vector), sql.SQL(home[0]), sql.Literal(base.dims)
                ),
                *_definitions(others),
                sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))),
            ]
            await cursor(connection).execute(
                sql.SQL("create table {} ({})").format(identifier, sql.SQL(", ").join(definitions))
            )
            if chosen not in (None, "cosine"):
                # The column itself as a resolution: whoever opens the table finds the metric.
                await cursor(connection).execute(
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
        return await self.table(name, vector=vector)

    async def problems(self) -> list[Problem]:
        """List what is out of step with the tables, as ``funnelvec.status()`` does in SQL."""
        async with self._calling() as connection:
            rows = await fetch_all(connection, statement("problems"))
        return [Problem(*row) for row in rows]

    async def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Mend what is out of step, as ``funnelvec.repair()`` does in SQL; all or nothing."""
        options.check_flag(dry_run, "dry_run")
        async with self._calling() as connection, atomic(connection):
            rows = await fetch_all(connection, statement("repair"), {"dry_run": bool(dry_run)})
        return [Repair(*row) for row in rows]

    async def close(self) -> None:
        """Close what was opened here; a borrowed connection or pool stays open."""
        if self._owned and isinstance(self._source, psycopg.AsyncConnection):
            await self._source.close()
        if self._server is not None:
            await in_thread(self._server.stop)

    async def __aenter__(self) -> AsyncPostgresEngine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _definitions(columns: Mapping[str, ColumnKind]) -> list[sql.Composed]:
    return [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(COLUMN_TYPES[kind]))
        for name, kind in columns.items()
    ]


async def _only_vector(connection: Connection, regclass: str, name: str) -> str:
    rows = await fetch_all(connection, statement("vector_columns"), {"table": regclass})
    vectors = [str(row[0]) for row in rows]
    if len(vectors) == 1:
        return vectors[0]
    if not vectors:
        raise NotFound(f"table {name!r} has no column of type vector or halfvec")
    raise InvalidInput(
        f"table {name!r} has several vector columns ({', '.join(vectors)}); say which with vector="
    )
