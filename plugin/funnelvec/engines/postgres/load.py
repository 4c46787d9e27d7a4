"""Checking rows and judgments before they are sent by COPY. No I/O; that is in `aio.copy`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from funnelvec.engines import checks, options
from funnelvec.engines.keys import KeyKind, KeyName, check_ids, check_key, key_kind, key_names
from funnelvec.engines.loads import Run
from funnelvec.engines.postgres import wire
from funnelvec.engines.postgres.adapt import DTYPES
from funnelvec.engines.sources import Target
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.kinds import Kind
from funnelvec.types import BaseCode, ColumnKind, Judgments, Key

__all__ = [
    "Column",
    "Layout",
    "Rows",
    "prepare",
    "prepare_judgments",
    "prepare_queries",
    "prepared",
    "target",
]


class Column(NamedTuple):
    """A column as the catalogue knows it.

    `type` is what it holds, of a domain what that is made of; `declared` is what a copy of the
    column is declared with; `kind` is None for types that rows cannot be written in.
    """

    name: str
    type: str
    declared: str
    kind: ColumnKind | None


class Layout(NamedTuple):
    """What rows are written into: a table's columns, and how its connection encodes texts."""

    known: Mapping[str, Column]
    key: KeyName
    vector: str
    dims: int
    code: BaseCode
    directed: bool
    encoding: str


class Rows(NamedTuple):
    """Checked rows, ready to be sent: the columns, what goes into each, and the keys."""

    targets: list[Column]
    fields: list[wire.Field]
    keys: list[Any]


def prepare(
    layout: Layout,
    *,
    ids: Sequence[Key],
    vectors: npt.ArrayLike,
    columns: Mapping[str, Sequence[Any]] | None,
    first: int = 0,
) -> Rows:
    """Check everything before the first byte is sent.

    Columns that are not given keep their defaults, so only given ones are checked and sent.
    `first` is the number of the first row, for messages.

    Raises
    ------
    InvalidInput, NotFound
        If an id, a vector or a value cannot be stored, or a column does not exist.
    CapabilityError
        If a column has a type that this cannot write.
    """
    given = options.check_mapping(columns)
    names = key_names(layout.key)
    for name in (*names, layout.vector):
        if name in given:
            raise InvalidInput(f"column {name!r} is given twice: in columns, and as ids or vectors")
    keys = check_ids(ids, kind=_key_kind(layout), first=first)
    matrix = checks.check_matrix(
        vectors, dims=layout.dims, rows=len(keys), code=layout.code, directed=layout.directed,
        first=first,
    )  # fmt: skip
    kinds = {name: _kind(column) for name, column in layout.known.items() if name in given}
    known = [name for name in layout.known if name not in (*names, layout.vector)]
    others = options.check_columns(given, kinds=kinds, rows=len(keys), first=first, known=known)
    wanted = [
        *_key_fields(layout, keys, first),
        (layout.known[layout.vector], wire.vectors(matrix.astype(DTYPES[layout.code], copy=False))),
        *(_field(layout, layout.known[name], others[name], first) for name in others),
    ]
    return _ordered(wanted, keys)


def prepare_judgments(judgments: Judgments, layout: Layout) -> Rows:
    """Check judgments against the table that they are about.

    Their columns are those of the key, ``query`` and ``relevant``.

    Raises
    ------
    InvalidInput
        If a query is not what the column could hold, or an id is no key of the table.
    """
    queries = checks.check_judgments(
        judgments, dims=layout.dims, code=layout.code, directed=layout.directed
    )
    kind = _key_kind(layout)
    keys = [check_key(id, kind=kind) for id in judgments.ids]
    query = layout.known[layout.vector]._replace(name="query")
    relevant = Column("relevant", "boolean", "boolean", "boolean")
    labels = [bool(label) for label in judgments.labels]
    wanted = [
        *_key_fields(layout, keys, 0),
        (query, wire.vectors(queries.astype(DTYPES[layout.code], copy=False))),
        _field(layout, relevant, labels, 0),
    ]
    return _ordered(wanted, keys)


def prepare_queries(queries: npt.NDArray[Any], layout: Layout) -> Rows:
    """Checked queries as rows of one column, ``query``."""
    query = layout.known[layout.vector]._replace(name="query")
    numbers = queries.astype(DTYPES[layout.code], copy=False)
    return Rows([query], [wire.vectors(numbers)], list(range(len(queries))))


def prepared(layout: Layout, run: Run) -> Iterator[Rows]:
    """Check one batch of a load after the other."""
    first = run.rows
    for chunk in run.chunks():
        rows = prepare(
            layout, ids=chunk.ids, vectors=chunk.vectors, columns=chunk.columns, first=first
        )
        first += len(rows.keys)
        yield rows


def target(layout: Layout) -> Target:
    """What the source of a load has to know of the table."""
    own = (*key_names(layout.key), layout.vector)
    kinds = {
        name: _kind(column)
        for name, column in layout.known.items()
        if name not in own and column.kind is not None
    }
    return Target(layout.key, _key_kind(layout), layout.vector, layout.dims, kinds)


def _key_kind(layout: Layout) -> KeyKind:
    names = key_names(layout.key)
    return key_kind(layout.key, {name: _kind(layout.known[name]) for name in names})


def _key_fields(layout: Layout, keys: Sequence[Any], first: int) -> list[tuple[Column, wire.Field]]:
    columns = [layout.known[name] for name in key_names(layout.key)]
    if len(columns) == 1:
        return [_field(layout, columns[0], keys, first)]
    parts: Sequence[Sequence[Any]] = list(zip(*keys, strict=True)) or [()] * len(columns)
    return [_field(layout, *pair, first) for pair in zip(columns, parts, strict=True)]


def _field(
    layout: Layout, column: Column, values: Sequence[Any], first: int
) -> tuple[Column, wire.Field]:
    what = f"column {column.name!r}"
    return column, wire.field(values, column.type, what=what, encoding=layout.encoding, first=first)


def _ordered(wanted: Sequence[tuple[Column, wire.Field]], keys: list[Any]) -> Rows:
    places = wire.order([field for _, field in wanted])
    return Rows([wanted[i][0] for i in places], [wanted[i][1] for i in places], keys)


def _kind(column: Column) -> Kind:
    if column.kind is None:
        raise CapabilityError(
            f"column {column.name!r} has the type {column.type}, which this cannot write; insert "
            "such rows with SQL"
        )
    # Filters compare doubles; what is written keeps its digits where the column does.
    written: dict[str, Kind] = {"numeric": "numeric", "numeric[]": "numeric[]"}
    return written.get(column.type, column.kind)
