"""The Postgres engine: `connect`, `wrap`, `connect_embedded` and what they return.

An engine either owns its connection (autocommit), borrows the application's, or borrows one from
a pool for each call. On a borrowed connection work happens inside the application's transaction
where one is open; nothing is ever committed that was not begun here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from funnelvec.engines import checks
from funnelvec.engines.base import Capabilities
from funnelvec.engines.keys import key_name
from funnelvec.engines.postgres.adapt import (
    COLUMN_TYPES,
    SQL_NAME,
    register,
    statement,
    translated,
)
from funnelvec.engines.postgres.table import PostgresTable
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.install.apply import check_compatible, find_installed, install
from funnelvec.resolution import CODES, Resolution
from funnelvec.types import METRICS, BaseCode, ColumnKind, Metric

if TYPE_CHECKING:
    from funnelvec.engines.postgres.embedded import EmbeddedServer

__all__ = ["PostgresEngine", "connect", "connect_embedded", "wrap"]

Connection: TypeAlias = psycopg.Connection[TupleRow]

CAPABILITIES = Capabilities(
    name="postgres", codes=CODES, metrics=METRICS, filters=True, persistent=True
)


class _Pool(Protocol):
    """The one method of ``psycopg_pool.ConnectionPool`` that is needed."""

    def connection(self) -> contextlib.AbstractContextManager[Connection]: ...


def connect(url: str, **options: Any) -> PostgresEngine:
    """Open a connection of our own (autocommit).

    Parameters
    ----------
    url
        A libpq connection URL.
    options
        Further libpq parameters, such as ``connect_timeout=5``.

    Raises
    ------
    Unreachable
        If there is no such server or database, or it refuses the credentials.
    InstallError, VersionMismatch
        If the database has no funnelvec, or one that this client cannot work with.
    """
    with translated():
        connection = psycopg.connect(url, autocommit=True, **options)
    return _checked(PostgresEngine(connection, owned=True))


def wrap(obj: object) -> PostgresEngine:
    """Use a ``psycopg.Connection`` or a ``psycopg_pool.ConnectionPool`` of the application."""
    if isinstance(obj, psycopg.Connection):
        return _checked(PostgresEngine(cast("Connection", obj), owned=False))
    if hasattr(obj, "connection") and hasattr(obj, "getconn"):
        return _checked(PostgresEngine(cast("_Pool", obj), owned=False))
    raise InvalidInput(
        f"wrap takes a synchronous psycopg connection or pool, not {type(obj).__qualname__}"
    )


def connect_embedded(directory: str | os.PathLike[str], **options: Any) -> PostgresEngine:
    """Start (or join) the embedded server of a folder, with pgvector and funnelvec in place.

    `options` go to `EmbeddedServer.start`. The server stops with the last engine that uses it.
    """
    from funnelvec.engines.postgres.embedded import EmbeddedServer

    server = EmbeddedServer.start(directory, **options)
    try:
        with translated():
            connection = psycopg.connect(server.url(), autocommit=True)
            connection.execute("create extension if not exists vector")
        # This database is ours from the first byte on, so installing here surprises nobody; what
        # was put in as an extension stays one.
        found = find_installed(connection)
        if found is None or found.mode == "plain":
            install(connection, mode="plain")
        return _checked(PostgresEngine(connection, owned=True, server=server))
    except BaseException:
        server.stop()
        raise


def _checked(engine: PostgresEngine) -> PostgresEngine:
    try:
        with engine.connection() as connection:
            check_compatible(connection)
    except BaseException:
        engine.close()
        raise
    return engine


class PostgresEngine:
    """Postgres with pgvector and funnelvec; see `funnelvec.engines.base.Engine`."""

    def __init__(
        self, source: Connection | _Pool, *, owned: bool, server: EmbeddedServer | None = None
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

    def table(self, name: str, *, vector: str | None = None) -> PostgresTable:
        """Open a table, by its plain name or as SQL writes it (``shop.products``)."""
        checks.check_name(name, "the name of a table")
        with self.connection() as connection:
            found = connection.execute(
                statement("find_table"), {"name": name, "sql_name": SQL_NAME}
            ).fetchone()
            if found is None:
                raise NotFound(
                    f"table {name!r} does not exist or is not on the search_path; write "
                    "schema.table, or make it with create()"
                )
            regclass, schema, relation = found
            if vector is None:
                vector = _only_vector(connection, regclass, name)
            row = connection.execute(
                statement("describe"), {"table": regclass, "vector": vector}
            ).fetchone()
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
        with self.connection() as connection, connection.transaction():
            home = connection.execute(statement("vector_type"), {"code": base.code}).fetchone()
            assert home is not None
            definitions = [
                *_definitions(key),
                sql.SQL("{} {}({}) not null").format(
                    sql.Identifier(vector), sql.SQL(home[0]), sql.Literal(base.dims)
                ),
                *_definitions(others),
                sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))),
            ]
            connection.execute(
                sql.SQL("create table {} ({})").format(identifier, sql.SQL(", ").join(definitions))
            )
            if chosen not in (None, "cosine"):
                # The column itself as a resolution: whoever opens the table finds the metric.
                connection.execute(
                    statement("add_resolution"),
                    {
                        "table": identifier.as_string(None),
                        "vector": vector,
                        "resolution": str(base),
                        "index": False,
                        "allow_rewrite": False,
                        "metric": chosen,
                    },
                )
        return self.table(name, vector=vector)

    def close(self) -> None:
        """Close what was opened here; a borrowed connection or pool stays open."""
        if self._owned and isinstance(self._source, psycopg.Connection):
            self._source.close()
        if self._server is not None:
            self._server.stop()

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
    rows = connection.execute(statement("vector_columns"), {"table": regclass}).fetchall()
    vectors = [str(row[0]) for row in rows]
    if len(vectors) == 1:
        return vectors[0]
    if not vectors:
        raise NotFound(f"table {name!r} has no column of type vector or halfvec")
    raise InvalidInput(
        f"table {name!r} has several vector columns ({', '.join(vectors)}); say which with vector="
    )
