"""Checking rows and judgments before they are sent by COPY. No I/O; that is in `aio.copy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from funnelvec.engines import checks, options
from funnelvec.engines.keys import KeyKind, KeyName, check_ids, check_key, key_kind, key_names
from funnelvec.engines.postgres.adapt import DTYPES, to_column
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.types import BaseCode, ColumnKind, Judgments, Key

__all__ = ["Column", "JudgedRows", "Rows", "prepare", "prepare_judgments"]


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


class JudgedRows(NamedTuple):
    """Checked judgments, ready to be sent, with the columns that they are about; see `Rows`."""

    key: list[Column]
    vector: Column
    queries: npt.NDArray[Any]
    ids: list[tuple[Any, ...]]
    labels: list[bool]


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
    given = options.check_mapping(columns)
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


def prepare_judgments(
    judgments: Judgments,
    known: Mapping[str, Column],
    *,
    key: KeyName,
    vector: str,
    dims: int,
    code: BaseCode,
    directed: bool,
) -> JudgedRows:
    """Check judgments against the table that they are about.

    Raises
    ------
    InvalidInput
        If a query is not what the column could hold, or an id is no key of the table.
    """
    queries = checks.check_judgments(judgments, dims=dims, code=code, directed=directed)
    kind, columns = _key_kind(key, known), [known[name] for name in key_names(key)]
    keys = [check_key(id, kind=kind) for id in judgments.ids]
    return JudgedRows(
        key=columns,
        vector=known[vector],
        queries=queries.astype(DTYPES[code], copy=False),
        ids=_sendable(keys, [column.type for column in columns]),
        labels=[bool(label) for label in judgments.labels],
    )


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
