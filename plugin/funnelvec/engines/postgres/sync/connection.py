# Made from aio/connection.py by tools/write_sync.py: change that file, then `make sync`.

"""Statements on one connection, whatever its owner has set on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

if TYPE_CHECKING:
    from typing_extensions import LiteralString  # in typing from Python 3.11 on

__all__ = ["Connection", "Pool", "atomic", "cursor", "fetch_all", "fetch_one", "tidied"]

Connection: TypeAlias = psycopg.Connection[TupleRow]


class Pool(Protocol):
    """The one method of ``psycopg_pool.ConnectionPool`` that is needed."""

    def connection(self) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection."""


def cursor(connection: Connection) -> psycopg.Cursor[TupleRow]:
    """Return a plain cursor: the application may have set other rows or cursors as the default."""
    return psycopg.Cursor(connection, row_factory=tuple_row)


def fetch_all(
    connection: Connection,
    query: LiteralString | sql.SQL | sql.Composed,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
) -> list[TupleRow]:
    """Run a statement and return its rows."""
    with cursor(connection) as running:
        running.execute(query, parameters)
        return running.fetchall()


def fetch_one(
    connection: Connection,
    query: LiteralString | sql.SQL | sql.Composed,
    parameters: Mapping[str, Any] | Sequence[Any] | None = None,
) -> TupleRow | None:
    """Run a statement and return its first row, if there is one."""
    with cursor(connection) as running:
        running.execute(query, parameters)
        return running.fetchone()


@contextlib.contextmanager
def atomic(connection: Connection) -> Iterator[None]:
    """All of it or nothing: a transaction in autocommit mode, else a savepoint.

    Without autocommit it is for the application to commit, also when nothing is open yet.
    """
    if not connection.autocommit and _status(connection) == TransactionStatus.IDLE:
        connection.execute("select")  # begins one, as any first statement does
    with connection.transaction():
        yield


@contextlib.contextmanager
def tidied(connection: Connection) -> Iterator[None]:
    """Roll back what failed, if it was our own statement that opened the transaction."""
    idle = _status(connection) == TransactionStatus.IDLE
    try:
        yield
    except BaseException:
        if idle and _status(connection) == TransactionStatus.INERROR:
            connection.rollback()
        raise


def _status(connection: Connection) -> TransactionStatus:
    return connection.info.transaction_status
