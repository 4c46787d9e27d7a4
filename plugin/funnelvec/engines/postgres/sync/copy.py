# Made from aio/copy.py by tools/write_sync.py: change that file, then `make sync`.

"""Sending rows by binary COPY: rows of a table, and judgments for a calibration."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from funnelvec.engines.base import Progress
from funnelvec.engines.postgres.adapt import VectorParameter, statement, vector_dumper
from funnelvec.engines.postgres.load import Column, JudgedRows, Rows
from funnelvec.engines.postgres.sync.connection import Connection, cursor, fetch_all
from funnelvec.engines.progress import reporting

__all__ = ["copy_judgments", "copy_rows", "read_columns"]

_REPORT_EVERY = 1000


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
    with cursor(connection) as sending:
        sending.adapters.register_dumper(VectorParameter, vector_dumper(rows.targets[1].oid))
        with sending.copy(command) as copy:
            copy.set_types([column.oid for column in rows.targets])
            for row, (key, vector) in enumerate(zip(rows.ids, rows.vectors, strict=True)):
                values = (column[row] for column in rows.values)
                copy.write_row((key, VectorParameter(vector), *values))
                if row % _REPORT_EVERY == _REPORT_EVERY - 1:
                    advance(row + 1)
    advance(len(rows.ids))


def copy_judgments(connection: Connection, table: sql.Identifier, judged: JudgedRows) -> None:
    """Put judgments into the temporary table ``funnelvec_judgments``, gone with the transaction."""
    key, vector = judged.key, judged.vector
    with cursor(connection) as sending:
        sending.execute(
            sql.SQL(
                "create temporary table funnelvec_judgments on commit drop as "
                "select t.{} as query, t.{}, false as relevant from {} as t limit 0"
            ).format(sql.Identifier(vector.name), sql.Identifier(key.name), table)
        )
        command = sql.SQL(
            "copy pg_temp.funnelvec_judgments (query, {}, relevant) from stdin (format binary)"
        ).format(sql.Identifier(key.name))
        sending.adapters.register_dumper(VectorParameter, vector_dumper(vector.oid))
        with sending.copy(command) as copy:
            copy.set_types([vector.oid, key.oid, "bool"])
            for query, id, label in zip(judged.queries, judged.ids, judged.labels, strict=True):
                copy.write_row((VectorParameter(query), id, label))
