"""Checking rows and judgments before they are sent by COPY. No I/O; that is in `aio.copy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.engines.postgres.adapt import to_column
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.types import ColumnKind, Judgments, Key

__all__ = ["Column", "JudgedRows", "Rows", "prepare", "prepare_judgments"]


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


class JudgedRows(NamedTuple):
    """Checked judgments, ready to be sent, with the columns that they are about."""

    key: Column
    vector: Column
    queries: npt.NDArray[np.float32]
    ids: list[Any]
    labels: list[bool]


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


def prepare_judgments(
    judgments: Judgments, known: Mapping[str, Column], *, key: str, vector: str, dims: int
) -> JudgedRows:
    """Check judgments against the table that they are about.

    Raises
    ------
    InvalidInput
        If the queries are of another width than the column, or an id is no key of the table.
    """
    if judgments.queries.shape[1] != dims:
        raise InvalidInput(
            f"the judged queries have {judgments.queries.shape[1]} dimensions, the column has "
            f"{dims}; embed them with the model that made the column"
        )
    kind = _kind(known[key])
    return JudgedRows(
        key=known[key],
        vector=known[vector],
        queries=judgments.queries,
        ids=[to_column(checks.check_key(id, kind=kind), known[key].type) for id in judgments.ids],
        labels=[bool(label) for label in judgments.labels],
    )


def _kind(column: Column) -> ColumnKind:
    if column.kind is None:
        raise CapabilityError(
            f"column {column.name!r} has the type {column.type}, which this cannot write; insert "
            "such rows with SQL"
        )
    return column.kind
