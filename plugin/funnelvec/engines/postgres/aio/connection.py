"""Statements on one connection, whatever its owner has set on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

if TYPE_CHECKING:
    from typing_extensions import LiteralString  # in typing from Python 3.11 on

__all__ = ["IDLE", "INERROR", "Connection", "Pool", "atomic", "cursor", "fetch_all", "fetch_one"]

IDLE, INERROR = TransactionStatus.IDLE, TransactionStatus.INERROR

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]


class Pool(Protocol):
    """The one method of ``psycopg_pool.AsyncConnectionPool`` that is needed."""

    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """Lend a connection."""


def cursor(connection: Connection) -> psycopg.AsyncCursor[TupleRow]:
    """Return a plain cursor: the application may have set other rows or cursors as the default."""
    return psycopg.AsyncCursor(connection, row_factory=tuple_row)


async def fetch_all(
    connection: Connection,
    query: LiteralString | sql.SQL | sql.Composed,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
) -> list[TupleRow]:
    """Run a statement and return its rows."""
    running = cursor(connection)
    await running.execute(query, parameters)
    return await running.fetchall()


async def fetch_one(
    connection: Connection,
    query: LiteralString | sql.SQL | sql.Composed,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
) -> TupleRow | None:
    """Run a statement and return its first row, if there is one."""
    running = cursor(connection)
    await running.execute(query, parameters)
    return await running.fetchone()


@contextlib.asynccontextmanager
async def atomic(connection: Connection) -> AsyncIterator[None]:
    """All of it or nothing: a transaction in autocommit mode, else a savepoint.

    Without autocommit it is for the application to commit, also when nothing is open yet.
    """
    if not connection.autocommit and connection.pgconn.transaction_status == IDLE:
        await connection.execute("select")  # begins one, as any first statement does
    async with connection.transaction():
        yield
