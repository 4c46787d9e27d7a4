# Made from aio/copy.py by tools/write_sync.py: change that file, then `make sync`.

"""Sending rows by binary COPY: rows of a table, and judgments for a calibration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from funnelvec.engines.base import Progress
from funnelvec.engines.postgres.adapt import VectorParameter, statement, vector_dumper
from funnelvec.engines.postgres.load import Column, JudgedRows, Rows
from funnelvec.engines.postgres.sync.connection import Connection, cursor, fetch_all
from funnelvec.engines.progress import reporting

__all__ = ["copy_judgments", "copy_queries", "copy_rows", "read_columns"]

_REPORT_EVERY = 1000
_CANCEL_TIMEOUT = 5.0  # seconds, as psycopg has it for other statements


def read_columns(connection: Connection, table: str) -> dict[str, Column]:
    """Read the columns that a row can be written with."""
    rows = fetch_all(connection, statement("columns"), {"table": table})
    return {row[0]: Column(*row) for row in rows}


def copy_rows(
    connection: Connection, table: sql.Identifier, rows: Rows, progress: Progress
) -> None:
    """Send the rows in one COPY, inside the transaction of the caller."""
    title = f"loading {table.as_string(None)}"
    with reporting(progress, len(rows.ids), title) as advance:
        _send(connection, table, rows, advance)


def _send(
    connection: Connection, table: sql.Identifier, rows: Rows, advance: Callable[[int], None]
) -> None:
    command = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, sql.SQL(", ").join(sql.Identifier(column.name) for column in rows.targets)
    )
    types = [column.oid for column in rows.targets]
    with _copying(connection, command, types, vector=rows.vector) as copy:
        for row, (key, vector) in enumerate(zip(rows.ids, rows.vectors, strict=True)):
            values = (column[row] for column in rows.values)
            copy.write_row((*key, VectorParameter(vector), *values))
            if row % _REPORT_EVERY == _REPORT_EVERY - 1:
                advance(row + 1)
    advance(len(rows.ids))


@contextlib.contextmanager
def _copying(
    connection: Connection, command: sql.Composed, types: list[int], *, vector: Column
) -> Iterator[psycopg.Copy]:
    with cursor(connection) as sending:
        sending.adapters.register_dumper(VectorParameter, vector_dumper(vector.oid))
        with sending.copy(command) as copy:
            copy.set_types(types)
            try:
                yield copy
            except BaseException:
                # psycopg would tell the server at the end of what was sent, and wait for it to get
                # there: for ever, where a row waits for a lock.
                if connection.info.transaction_status == TransactionStatus.ACTIVE:
                    with contextlib.suppress(psycopg.Error):
                        connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
                raise


def copy_judgments(connection: Connection, table: sql.Identifier, judged: JudgedRows) -> None:
    """Put judgments into the temporary table ``funnelvec_judgments``, gone with the transaction."""
    vector = judged.vector
    key = sql.SQL(", ").join(sql.Identifier(column.name) for column in judged.key)
    cursor(connection).execute(
        sql.SQL(
            "create temporary table funnelvec_judgments on commit drop as "
            "select t.{} as query, {}, false as relevant from {} as t limit 0"
        ).format(sql.Identifier(vector.name), key, table)
    )
    command = sql.SQL(
        "copy pg_temp.funnelvec_judgments (query, {}, relevant) from stdin (format binary)"
    ).format(key)
    boolean = connection.adapters.types["bool"].oid
    types = [vector.oid, *(column.oid for column in judged.key), boolean]
    with _copying(connection, command, types, vector=vector) as copy:
        for query, id, label in zip(judged.queries, judged.ids, judged.labels, strict=True):
            copy.write_row((VectorParameter(query), *id, label))


def copy_queries(
    connection: Connection, table: sql.Identifier, vector: str, queries: npt.NDArray[Any]
) -> str:
    """Put queries into a temporary table, gone with the transaction; return its name."""
    name = "pg_temp.funnelvec_queries"
    cursor(connection).execute(
        sql.SQL(
            "create temporary table funnelvec_queries on commit drop as "
            "select t.{} as query from {} as t limit 0"
        ).format(sql.Identifier(vector), table)
    )
    columns = read_columns(connection, name)
    command = sql.SQL("copy pg_temp.funnelvec_queries (query) from stdin (format binary)")
    column = columns["query"]
    with _copying(connection, command.format(), [column.oid], vector=column) as copy:
        for query in queries:
            copy.write_row((VectorParameter(query),))
    return name
