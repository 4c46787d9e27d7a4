# Made from aio/copy.py by tools/write_sync.py: change that file, then `make sync`.

"""Sending rows by binary COPY: into a table, or judgments and queries into temporary ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from funnelvec.engines.postgres import wire
from funnelvec.engines.postgres.adapt import flushing, statement
from funnelvec.engines.postgres.load import Column, Rows
from funnelvec.engines.postgres.sync.connection import Connection, cursor, fetch_all, fetch_one
from funnelvec.reports import Upserted

__all__ = ["copy_judgments", "copy_queries", "copy_rows", "read_columns", "upsert_rows"]

_CANCEL_TIMEOUT = 5.0  # seconds, as psycopg has it for other statements

_JUDGMENTS = sql.Identifier("pg_temp", "funnelvec_judgments")
_QUERIES = sql.Identifier("pg_temp", "funnelvec_queries")
_ROWS = sql.Identifier("pg_temp", "funnelvec_rows")

Advance = Callable[[int], None]


def read_columns(connection: Connection, table: str) -> dict[str, Column]:
    """Read the columns that a row can be written with."""
    rows = fetch_all(connection, statement("columns"), {"table": table})
    return {row[0]: Column(*row) for row in rows}


def copy_rows(
    connection: Connection, table: sql.Identifier, rows: Rows, advance: Advance, *, secured: bool
) -> None:
    """Add the rows, inside the transaction of the caller.

    Where row-level security applies (`secured`) Postgres has no COPY into the table itself; an
    INSERT puts the rows through its policies.
    """
    if not secured:
        _send(connection, table, rows, advance)
        return
    _stage(connection, _ROWS, rows, advance)
    cursor(connection).execute(_insert(table, rows))
    cursor(connection).execute(sql.SQL("drop table {}").format(_ROWS))


def upsert_rows(
    connection: Connection,
    table: sql.Identifier,
    rows: Rows,
    advance: Advance,
    *,
    key: Sequence[str],
) -> Upserted:
    """Add the rows, or change those that are there, inside the transaction of the caller."""
    _stage(connection, _ROWS, rows, advance)
    found = fetch_one(connection, _count_present(table, key))
    assert found is not None  # an aggregate
    changes = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column.name))
        for column in rows.targets
        if column.name not in key
    )
    cursor(connection).execute(
        sql.SQL("{} on conflict ({}) do update set {}").format(
            _insert(table, rows), _names(key), changes
        )
    )
    cursor(connection).execute(sql.SQL("drop table {}").format(_ROWS))
    return Upserted(inserted=len(rows.keys) - found[0], updated=found[0])


def _count_present(table: sql.Identifier, key: Sequence[str]) -> sql.Composed:
    """Count the rows that are there already, and keep others from removing them meanwhile."""
    # Not `returning xmax = 0`: a row that comes back from a partitioned table has no xmax.
    return sql.SQL(
        "select count(*) from (select from {} as t join {} as s using ({}) for key share of t) as p"
    ).format(table, _ROWS, _names(key))


def _insert(table: sql.Identifier, rows: Rows) -> sql.Composed:
    names = _names([column.name for column in rows.targets])
    # COPY takes values for an identity column too, whatever it was declared with.
    return sql.SQL("insert into {} ({}) overriding system value select {} from {}").format(
        table, names, names, _ROWS
    )


def _names(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _stage(connection: Connection, table: sql.Identifier, rows: Rows, advance: Advance) -> None:
    """Make a temporary table and send the rows there; it goes with the transaction."""
    # Declared column by column: who may only write the table cannot select from it.
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.declared))
        for column in rows.targets
    )
    cursor(connection).execute(
        sql.SQL("create temporary table {} ({}) on commit drop").format(table, columns)
    )
    _send(connection, table, rows, advance)


def _send(connection: Connection, table: sql.Identifier, rows: Rows, advance: Advance) -> None:
    command = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, _names([column.name for column in rows.targets])
    )
    with _copying(connection, command) as copy:
        copy.write(wire.HEADER)
        for done, block in wire.blocks(rows.fields, len(rows.keys)):
            copy.write(block)
            # So that libpq never holds more than a block, and what is reported is on its way.
            connection.wait(flushing(connection.pgconn))
            advance(done)
        copy.write(wire.TRAILER)
    advance(len(rows.keys))


@contextlib.contextmanager
def _copying(connection: Connection, command: sql.Composed) -> Iterator[psycopg.Copy]:
    with cursor(connection) as sending, sending.copy(command) as copy:
        try:
            yield copy
        except BaseException:
            # psycopg would tell the server at the end of what was sent, and wait for it to get
            # there: for ever, where a row waits for a lock.
            if connection.info.transaction_status == TransactionStatus.ACTIVE:
                with contextlib.suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
            raise


def copy_judgments(connection: Connection, judged: Rows) -> None:
    """Put judgments into the temporary table ``funnelvec_judgments``, gone with the transaction."""
    _stage(connection, _JUDGMENTS, judged, lambda done: None)


def copy_queries(connection: Connection, queries: Rows) -> str:
    """Put queries into a temporary table, gone with the transaction; return its name."""
    _stage(connection, _QUERIES, queries, lambda done: None)
    return _QUERIES.as_string(None)
