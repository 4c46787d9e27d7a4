"""Bulk loading by binary COPY: rows of a table, and judgments for a calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
from psycopg import sql

from funnelvec.engines import checks
from funnelvec.engines.keys import KeyKind, KeyName, check_ids, check_key, key_kind, key_names
from funnelvec.engines.postgres.adapt import (
    DTYPES,
    VectorParameter,
    statement,
    to_column,
    vector_dumper,
)
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.types import BaseCode, ColumnKind, Judgments, Key

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
    """Checked rows, ready to be sent: ids, vectors and values lie row by row.

    `ids` are tuples, also where the key is one column; `vectors` have the dtype of the wire.
    """

    targets: list[Column]
    ids: list[tuple[Any, ...]]
    vector: Column
    vectors: npt.NDArray[Any]
    values: list[list[Any]]


def columns(connection: Connection, table: str) -> dict[str, Column]:
    """Read the columns that a row can be written with."""
    rows = connection.execute(statement("columns"), {"table": table}).fetchall()
    return {row[0]: Column(*row) for row in rows}


def prepare(
    known: Mapping[str, Column],
    *,
    key: KeyName,
    vector: str,
    dims: int,
    code: BaseCode,
    directed: bool,
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
    names = key_names(key)
    for name in (*names, vector):
        if name in given:
            raise InvalidInput(f"column {name!r} is given twice: in columns, and as ids or vectors")
    keys = check_ids(ids, kind=_key_kind(key, known))
    matrix = checks.check_matrix(vectors, dims=dims, rows=len(keys), code=code, directed=directed)
    kinds = {name: _kind(known[name]) for name in known if name in given}
    others = checks.check_columns(given, kinds=kinds, rows=len(keys))
    further = [known[name] for name in others]
    return Rows(
        targets=[*(known[name] for name in names), known[vector], *further],
        ids=_sendable(keys, [known[name].type for name in names]),
        vector=known[vector],
        vectors=matrix.astype(DTYPES[code], copy=False),
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
        cursor.adapters.register_dumper(VectorParameter, vector_dumper(rows.vector.oid))
        with cursor.copy(command) as copy:
            copy.set_types([column.oid for column in rows.targets])
            for row, (key, vector) in enumerate(zip(rows.ids, rows.vectors, strict=True)):
                values = (column[row] for column in rows.values)
                copy.write_row((*key, VectorParameter(vector), *values))
                if row % _REPORT_EVERY == _REPORT_EVERY - 1:
                    advance(row + 1)
    advance(len(rows.ids))


def copy_judgments(
    connection: Connection,
    table: sql.Identifier,
    judgments: Judgments,
    *,
    known: Mapping[str, Column],
    key: KeyName,
    vector: str,
    dims: int,
    code: BaseCode,
    directed: bool,
) -> None:
    """Put judgments into the temporary table ``funnelvec_judgments``, gone with the transaction."""
    queries = checks.check_judgments(judgments, dims=dims, code=code, directed=directed)
    kind, names = _key_kind(key, known), key_names(key)
    ids = _sendable(
        [check_key(id, kind=kind) for id in judgments.ids], [known[name].type for name in names]
    )
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    connection.execute(
        sql.SQL(
            "create temporary table funnelvec_judgments on commit drop as "
            "select t.{} as query, {}, false as relevant from {} as t limit 0"
        ).format(sql.Identifier(vector), columns, table)
    )
    command = sql.SQL(
        "copy pg_temp.funnelvec_judgments (query, {}, relevant) from stdin (format binary)"
    ).format(columns)
    with connection.cursor() as cursor:
        cursor.adapters.register_dumper(VectorParameter, vector_dumper(known[vector].oid))
        with cursor.copy(command) as copy:
            copy.set_types([known[vector].oid, *(known[name].oid for name in names), "bool"])
            sent = queries.astype(DTYPES[code], copy=False)
            for query, id, label in zip(sent, ids, judgments.labels, strict=True):
                copy.write_row((VectorParameter(query), *id, bool(label)))


def _key_kind(key: KeyName, known: Mapping[str, Column]) -> KeyKind:
    return key_kind(key, {name: _kind(known[name]) for name in key_names(key)})


def _sendable(keys: Sequence[Any], types: Sequence[str]) -> list[tuple[Any, ...]]:
    """Turn checked keys into tuples of what the binary COPY takes."""
    rows = ((key,) if len(types) == 1 else key for key in keys)
    return [tuple(map(to_column, row, types)) for row in rows]


def _kind(column: Column) -> ColumnKind:
    if column.kind is None:
        raise CapabilityError(
            f"column {column.name!r} has the type {column.type}, which this cannot write; insert "
            "such rows with SQL"
        )
    return column.kind
