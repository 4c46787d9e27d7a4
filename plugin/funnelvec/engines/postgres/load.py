"""Bulk loading by binary COPY: rows of a table, and judgments for a calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import sql

from funnelvec.engines import checks
from funnelvec.engines.postgres.adapt import VectorParameter, statement, to_column, vector_dumper
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.types import ColumnKind, Judgments, Key

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import Connection

__all__ = ["Column", "Rows", "columns", "copy_judgments", "copy_rows", "prepare"]

_REPORT_EVERY = 1000


class Column(NamedTuple):
    """A column as the catalogue knows it; `kind` is None for types that add() cannot write."""

    name: str
    oid: int
    type: str
    kind: ColumnKind | None


class Rows(NamedTuple):
    """Checked rows, ready to be sent: ids, vectors and values lie row by row."""

    targets: list[Column]
    ids: list[Any]
    vectors: npt.NDArray[np.float32]
    values: list[list[Any]]


def columns(connection: Connection, table: str) -> dict[str, Column]:
    """Read the columns that a row can be written with."""
    rows = connection.execute(statement("columns"), {"table": table}).fetchall()
    return {row[0]: Column(*row) for row in rows}


def prepare(
    known: Mapping[str, Column],
    *,
    key: str,
    vector: str,
    dims: int,
    ids: Sequence[Key],
    vectors: npt.ArrayLike,
    columns: Mapping[str, Sequence[Any]] | None,
) -> Rows:
    """Check everything before the first byte is sent.

    Columns that are not given keep their defaults, so only given ones are checked and sent.

    Raises
    ------
    InvalidInput, NotFound
        If an id, a vector or a value cannot be stored, or a column does not exist.
    CapabilityError
        If a column has a type that this cannot write.
    """
    given = dict(columns or {})
    for name in (key, vector):
        if name in given:
            raise InvalidInput(f"column {name!r} is given twice: in columns, and as ids or vectors")
    keys = checks.check_ids(ids, kind=_kind(known[key]))
    matrix = checks.check_matrix(vectors, dims=dims, rows=len(keys))
    kinds = {name: _kind(known[name]) for name in known if name in given}
    others = checks.check_columns(given, kinds=kinds, rows=len(keys))
    further = [known[name] for name in others]
    return Rows(
        targets=[known[key], known[vector], *further],
        ids=[to_column(value, known[key].type) for value in keys],
        vectors=matrix,
        values=[
            [to_column(value, column.type) for value in others[column.name]] for column in further
        ],
    )


def copy_rows(
    connection: Connection, table: sql.Identifier, rows: Rows, advance: Callable[[int], None]
) -> None:
    """Send the rows in one COPY, inside the transaction of the caller."""
    command = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, sql.SQL(", ").join(sql.Identifier(column.name) for column in rows.targets)
    )
    with connection.cursor() as cursor:
        cursor.adapters.register_dumper(VectorParameter, vector_dumper(rows.targets[1].oid))
        with cursor.copy(command) as copy:
            copy.set_types([column.oid for column in rows.targets])
            for row, (key, vector) in enumerate(zip(rows.ids, rows.vectors, strict=True)):
                values = (column[row] for column in rows.values)
                copy.write_row((key, VectorParameter(vector), *values))
                if row % _REPORT_EVERY == _REPORT_EVERY - 1:
                    advance(row + 1)
    advance(len(rows.ids))


def copy_judgments(
    connection: Connection,
    table: sql.Identifier,
    judgments: Judgments,
    *,
    known: Mapping[str, Column],
    key: str,
    vector: str,
) -> None:
    """Put judgments into the temporary table ``funnelvec_judgments``, gone with the transaction."""
    kind = _kind(known[key])
    ids = [to_column(checks.check_key(id, kind=kind), known[key].type) for id in judgments.ids]
    connection.execute(
        sql.SQL(
            "create temporary table funnelvec_judgments on commit drop as "
            "select t.{} as query, t.{}, false as relevant from {} as t limit 0"
        ).format(sql.Identifier(vector), sql.Identifier(key), table)
    )
    command = sql.SQL(
        "copy pg_temp.funnelvec_judgments (query, {}, relevant) from stdin (format binary)"
    ).format(sql.Identifier(key))
    with connection.cursor() as cursor:
        cursor.adapters.register_dumper(VectorParameter, vector_dumper(known[vector].oid))
        with cursor.copy(command) as copy:
            copy.set_types([known[vector].oid, known[key].oid, "bool"])
            for query, id, label in zip(judgments.queries, ids, judgments.labels, strict=True):
                copy.write_row((VectorParameter(query), id, bool(label)))


def _kind(column: Column) -> ColumnKind:
    if column.kind is None:
        raise CapabilityError(
            f"column {column.name!r} has the type {column.type}, which this cannot write; insert "
            "such rows with SQL"
        )
    return column.kind
