"""Checks of arguments that every engine makes before it reads or writes anything. Pure.

Each returns the argument in the form that engines use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from funnelvec import kinds as _kinds
from funnelvec.errors import InvalidInput, NotFound, SpecError
from funnelvec.funnel import Funnel
from funnelvec.resolution import MAX_DIMS, Resolution
from funnelvec.types import ColumnKind, Key

__all__ = [
    "check_columns",
    "check_dims",
    "check_ids",
    "check_k",
    "check_key",
    "check_matrix",
    "check_min_relevance",
    "check_name",
    "check_query",
    "check_recall_arguments",
    "check_resolution",
    "check_schema",
]

#: Longest identifier that Postgres keeps whole, in bytes of UTF-8.
MAX_NAME_BYTES = 63


def check_query(query: npt.ArrayLike, *, dims: int) -> npt.NDArray[np.float32]:
    """Return the query as (dims,) float32.

    Raises
    ------
    InvalidInput
        If it is not a 1-d array of `dims` finite numbers of which at least one is not zero.
    """
    vector = _numbers(query, "the query")
    if vector.ndim != 1:
        raise InvalidInput(
            f"the query must have the shape ({dims},), not {vector.shape}; search one query a call"
        )
    if vector.shape[0] != dims:
        raise InvalidInput(
            f"the query has {vector.shape[0]} dimensions, the column has {dims}; embed it with the "
            "model that made the column"
        )
    _check_values(vector[np.newaxis, :], "the query", one=True)
    return vector


def check_matrix(vectors: npt.ArrayLike, *, dims: int, rows: int) -> npt.NDArray[np.float32]:
    """Return the vectors as (rows, dims) float32.

    Raises
    ------
    InvalidInput
        If the shape differs, or a row is zero or holds a number that is not finite.
    """
    matrix = _numbers(vectors, "vectors")
    if rows == 0 and matrix.size == 0:
        return np.empty((0, dims), np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dims:
        raise InvalidInput(
            f"vectors must have the shape (n, {dims}) of the column, not {matrix.shape}"
        )
    if len(matrix) != rows:
        raise InvalidInput(f"{rows} ids but {len(matrix)} vectors; give one vector per id")
    _check_values(matrix, "vectors", one=False)
    return matrix


def _numbers(given: Any, what: str) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "iuf":  # float("1") would pass for text, and True for 1
            # An empty list or a ragged one lands here too, as float64 or object.
            raise InvalidInput(f"{what} must hold real numbers, not {array.dtype}")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
            return np.array(array, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{what} cannot be read as an array of numbers: {error}") from None


def _check_values(matrix: npt.NDArray[np.float32], what: str, *, one: bool) -> None:
    finite = np.isfinite(matrix)
    for row in np.flatnonzero(~finite.all(axis=1))[:1]:
        column = int(np.flatnonzero(~finite[row])[0])
        place = f"at position {column}" if one else f"in row {row}, position {column}"
        raise InvalidInput(
            f"{what} must hold finite float32 numbers; found {matrix[row, column]} {place}"
        )
    for row in np.flatnonzero(~matrix.any(axis=1))[:1]:
        place = "" if one else f" in row {row}"
        raise InvalidInput(
            f"{what} must not be zero{place}: a zero vector has no direction, so no cosine"
        )


def check_ids(ids: Sequence[Key], *, kind: ColumnKind) -> list[Key]:
    """Return the keys as what a key column of `kind` holds.

    Raises
    ------
    InvalidInput
        If one is missing, is not of that kind, is NaN, or occurs twice.
    """
    given: Any = ids
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise InvalidInput(f"ids must be a sequence of keys, not {ids!r}")
    keys = [check_key(key, kind=kind, where=f"ids, row {row}") for row, key in enumerate(ids)]
    if len(set(keys)) != len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise InvalidInput(f"ids: {twice!r} occurs more than once; keys must differ")
    return keys


def check_key(key: Key | None, *, kind: ColumnKind, where: str = "ids") -> Any:
    """Return one key as what a key column of `kind` holds; `where` is for the message.

    Raises
    ------
    InvalidInput
        If it is missing, is not of that kind, or is NaN.
    """
    if key is None:
        raise InvalidInput(f"{where}: the key is None; every row needs one")
    try:
        converted = _kinds.convert(_plain(key), kind)
    except ValueError as error:
        raise InvalidInput(f"{where}: {error}") from None
    if converted != converted:
        raise InvalidInput(f"{where}: NaN equals no key, not even itself")
    return converted


def check_columns(
    columns: Mapping[str, Sequence[Any]] | None, *, kinds: Mapping[str, ColumnKind], rows: int
) -> dict[str, list[_kinds.Value | None]]:
    """Return the values of every column in `kinds`, converted; what is not given is missing.

    Raises
    ------
    NotFound
        If a column does not exist.
    InvalidInput
        If a column has another length than `rows`, or a value is not of the column's kind.
    """
    given = dict(columns or {})
    for name in given:
        if name not in kinds:
            known = ", ".join(sorted(kinds)) or "none"
            raise NotFound(f"column {name!r} does not exist; other columns of the table: {known}")
    converted: dict[str, list[_kinds.Value | None]] = {}
    for name, kind in kinds.items():
        values: Any = given.get(name)
        if values is None:
            converted[name] = [None] * rows
            continue
        if isinstance(values, (str, bytes)) or len(values) != rows:
            raise InvalidInput(f"column {name!r}: expected a sequence of {rows} values, one per id")
        converted[name] = [
            None if value is None else _cell(name, kind, row, _plain(value))
            for row, value in enumerate(values)
        ]
    return converted


def _cell(name: str, kind: ColumnKind, row: int, value: Any) -> _kinds.Value:
    try:
        return _kinds.convert(value, kind)
    except ValueError as error:
        raise InvalidInput(f"column {name!r}, row {row}: {error}") from None


def _plain(value: Any) -> Any:
    """Turn a numpy scalar into the Python value it stands for."""
    return value.item() if isinstance(value, np.generic) else value


def check_k(k: int, *, funnel: Funnel | None = None) -> int:
    """Return `k`.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 1 to what reaches the last stage of `funnel`.
    """
    k = _positive(k, "k")
    keep = None if funnel is None else funnel.narrowest_keep
    if keep is not None and k > keep:
        raise InvalidInput(
            f"k = {k} is more than the {keep} rows that reach the last stage of '{funnel}'; "
            f"ask for {keep} or less, or widen the stages"
        )
    return k


def _positive(value: Any, name: str) -> int:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def check_min_relevance(min_relevance: float | None) -> float | None:
    """Return `min_relevance` as a float, or None.

    Raises
    ------
    InvalidInput
        If it is not a probability in [0, 1].
    """
    if min_relevance is None:
        return None
    value: Any = _plain(min_relevance)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInput(f"min_relevance must be a probability from 0 to 1, not {value!r}")
    return float(value)


def check_recall_arguments(*, sample: int, k: int, seed: int, funnel: Funnel, rows: int) -> int:
    """Check the arguments of ``measure_recall`` and return how many rows to sample.

    Raises
    ------
    InvalidInput
        If a number is out of range, ``k + 1`` rows cannot reach the last stage, or the table has
        fewer than two rows.
    """
    sample, k = _positive(sample, "sample"), _positive(k, "k")
    start: Any = _plain(seed)
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < 2**31:
        raise InvalidInput(f"seed must be a whole number from 0 to {2**31 - 1}, not {seed!r}")
    keep = funnel.narrowest_keep
    if keep is not None and k + 1 > keep:
        raise InvalidInput(
            f"k = {k} needs {k + 1} rows at the last stage of '{funnel}' (a sampled row finds "
            f"itself too), but {keep} reach it; ask for {keep - 1} or less"
        )
    if rows < 2:
        raise InvalidInput(f"recall needs at least two rows, the table has {rows}; add rows first")
    return min(sample, rows)


def check_name(name: str, what: str) -> str:
    """Return `name` if it can name a table, column or funnel; `what` says which, for the message.

    Raises
    ------
    InvalidInput
        If it is empty, longer than 63 bytes, or not text that a database can store.
    """
    try:
        text = str(_kinds.convert(name, "text"))
    except ValueError as error:
        raise InvalidInput(f"{what}: {error}") from None
    if not 1 <= len(text.encode()) <= MAX_NAME_BYTES:
        raise InvalidInput(f"{what} must have 1 to {MAX_NAME_BYTES} bytes, not {name!r}")
    return text


def check_dims(dims: int) -> int:
    """Return the width of a new column, 1 to 16,000."""
    if _positive(dims, "dims") > MAX_DIMS:
        raise InvalidInput(f"dims must be at most {MAX_DIMS}, not {dims}")
    return dims


def check_schema(
    *, vector: str, id: str, id_kind: ColumnKind, columns: Mapping[str, ColumnKind] | None
) -> dict[str, ColumnKind]:
    """Check names and kinds of the columns of a new table; return the other columns.

    Raises
    ------
    InvalidInput
        If a name occurs twice or cannot be used, or a kind is unknown.
    """
    others = dict(columns or {})
    names = [vector, id, *others]
    for name in names:
        check_name(name, "the name of a column")
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidInput(f"the name {name!r} is given to {count} columns; names must differ")
    for name, kind in {id: id_kind, **others}.items():
        if kind not in get_args(ColumnKind):
            raise InvalidInput(
                f"column {name!r}: unknown kind {kind!r}; known are "
                f"{', '.join(get_args(ColumnKind))}"
            )
    return others


def check_resolution(resolution: Resolution | str, *, dims: int) -> Resolution:
    """Return the resolution as a value that fits a column of `dims` dimensions.

    Raises
    ------
    SpecError
        If the text is malformed, or it is wider than the column.
    """
    parsed = resolution if isinstance(resolution, Resolution) else Resolution.parse(resolution)
    if parsed.dims > dims:
        raise SpecError(
            f"resolution {parsed} is wider than the column, which has {dims} dimensions; write "
            f"{dims} or less"
        )
    return parsed
