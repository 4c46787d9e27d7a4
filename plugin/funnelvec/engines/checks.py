"""Checks of arguments that every engine makes before it reads or writes anything. Pure.

Each returns the argument in the form that engines use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from funnelvec import kinds as _kinds
from funnelvec.codes.bits import LEVELS
from funnelvec.codes.rotations import is_random, seed_of
from funnelvec.engines.keys import check_key_kinds, plain
from funnelvec.engines.options import check_mapping
from funnelvec.errors import CapabilityError, InvalidInput, SpecError
from funnelvec.funnel import Funnel
from funnelvec.resolution import CODES, MAX_DIMS, Resolution
from funnelvec.types import METRICS, BaseCode, Code, ColumnKind, Judgments, Metric

__all__ = [
    "Schema",
    "check_dims",
    "check_dtype",
    "check_judgments",
    "check_k",
    "check_matrix",
    "check_metric",
    "check_min_relevance",
    "check_name",
    "check_positive",
    "check_query",
    "check_resolution",
    "check_schema",
]

#: Longest identifier that Postgres keeps whole, in bytes of UTF-8.
MAX_NAME_BYTES = 63


def check_query(
    query: npt.ArrayLike, *, dims: int, code: BaseCode = "f32", directed: bool = True
) -> npt.NDArray[np.float32]:
    """Return the query as (dims,) float32, rounded to what a column of `code` holds.

    Parameters
    ----------
    directed
        Whether a zero vector is refused, because the metric asks for a direction.

    Raises
    ------
    InvalidInput
        If it is not a 1-d array of `dims` finite numbers, or zero.
    """
    vector = _numbers(query, "the query", code)
    if vector.ndim != 1:
        raise InvalidInput(
            f"the query must have the shape ({dims},), not {vector.shape}; for several: search_many"
        )
    if vector.shape[0] != dims:
        raise InvalidInput(
            f"the query has {vector.shape[0]} dimensions, the column has {dims}; embed it with the "
            "model that made the column"
        )
    _check_values(vector[np.newaxis, :], "the query", code=code, directed=directed, one=True)
    return vector


def check_matrix(
    vectors: npt.ArrayLike,
    *,
    dims: int,
    rows: int,
    code: BaseCode = "f32",
    directed: bool = True,
    first: int = 0,
    what: str = "vectors",
) -> npt.NDArray[np.float32]:
    """Return the vectors as (rows, dims) float32, rounded to what a column of `code` holds.

    The array may be the caller's own. `first` is the number of the first row, for messages.

    Raises
    ------
    InvalidInput
        If the shape differs, a number is not finite there, or, where vectors are to be
        `directed`, a row is zero.
    """
    matrix = _numbers(vectors, what, code)
    if rows == 0 and matrix.size == 0:
        return np.empty((0, dims), np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dims:
        raise InvalidInput(
            f"{what} must have the shape (n, {dims}) of the column, not {matrix.shape}"
        )
    if len(matrix) != rows:
        raise InvalidInput(f"{rows} ids but {len(matrix)} vectors; give one vector per id")
    _check_values(matrix, what, code=code, directed=directed, first=first)
    return matrix


def check_judgments(
    judgments: Judgments, *, dims: int, code: BaseCode = "f32", directed: bool = True
) -> npt.NDArray[np.float32]:
    """Return the judged queries as (n, dims) float32, rounded to what a column of `code` holds.

    Raises
    ------
    InvalidInput
        If they have another width than the column, a number is not finite there, or, where
        vectors are to be `directed`, a query is zero.
    """
    width = judgments.queries.shape[1]
    if width != dims:
        raise InvalidInput(
            f"judgments: queries have {width} dimensions, the column has {dims}; embed them with "
            "the model that made the column"
        )
    queries = _numbers(judgments.queries, "judgments: queries", code)
    _check_values(queries, "judgments: queries", code=code, directed=directed)
    return queries


def _numbers(given: Any, what: str, code: BaseCode) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "iuf":  # float("1") would pass for text, and True for 1
            # An empty list or a ragged one lands here too, as float64 or object.
            raise InvalidInput(f"{what} must hold real numbers, not {array.dtype}")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
            numbers = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
            return numbers if code == "f32" else numbers.astype(np.float16).astype(np.float32)
    except InvalidInput:
        raise
    except Exception as error:  # numpy asks the object itself, which may answer with any error
        raise InvalidInput(f"{what} cannot be read as an array of numbers: {error}") from None


def _check_values(
    matrix: npt.NDArray[np.float32],
    what: str,
    *,
    code: BaseCode,
    directed: bool,
    one: bool = False,
    first: int = 0,
) -> None:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
    if (np.isfinite(squares) & (squares > 0)).all():
        return  # one pass over the numbers; what over- or underflows here is looked at again
    finite = np.isfinite(matrix)
    for row in np.flatnonzero(~finite.all(axis=1))[:1]:
        column = int(np.flatnonzero(~finite[row])[0])
        place = f"at position {column}" if one else f"in row {first + row}, position {column}"
        raise InvalidInput(
            f"{what} must hold finite float{code[1:]} numbers; found {matrix[row, column]} {place}"
        )
    for row in np.flatnonzero(~matrix.any(axis=1))[:1] if directed else ():
        place = "" if one else f" in row {first + row}"
        raise InvalidInput(
            f"{what} must not be zero{place}: a zero vector has no direction, so no cosine"
        )


def check_k(k: int, *, funnel: Funnel | None = None) -> int:
    """Return `k`.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 1 to what reaches the last stage of `funnel`.
    """
    k = check_positive(k, "k")
    keep = None if funnel is None else funnel.narrowest_keep
    if keep is not None and k > keep:
        raise InvalidInput(
            f"k = {k} is more than the {keep} rows that reach the last stage of '{funnel}'; "
            f"ask for {keep} or less, or widen the stages"
        )
    return k


def check_positive(value: Any, name: str) -> int:
    """Return a whole number of at least 1; `name` is for the message."""
    value = plain(value)
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
    value: Any = plain(min_relevance)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInput(f"min_relevance must be a probability from 0 to 1, not {value!r}")
    return float(value)


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
    if check_positive(dims, "dims") > MAX_DIMS:
        raise InvalidInput(f"dims must be at most {MAX_DIMS}, not {dims}")
    return dims


def _unknown(name: Any, known: Sequence[str]) -> bool:
    # An array compares element by element, and then `in` fails with an error of numpy's.
    return not isinstance(name, str) or name not in known


def check_metric(metric: Metric | None) -> Metric | None:
    """Return the name of a metric, or None where none was named."""
    if metric is not None and _unknown(metric, METRICS):
        raise InvalidInput(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    return metric


def check_dtype(dtype: BaseCode) -> BaseCode:
    """Return the code of a new vector column."""
    if _unknown(dtype, get_args(BaseCode)):
        raise InvalidInput(
            f"unknown dtype {dtype!r} of a vector column; known are {', '.join(get_args(BaseCode))}"
        )
    return dtype


class Schema(NamedTuple):
    """The columns of a new table but its vector: those of the key, and the others, by name."""

    key: dict[str, ColumnKind]
    others: dict[str, ColumnKind]


def check_schema(
    *,
    vector: str,
    id: str | Sequence[str],
    id_kind: ColumnKind | Sequence[ColumnKind],
    columns: Mapping[str, ColumnKind] | None,
) -> Schema:
    """Check names and kinds of the columns of a new table.

    Raises
    ------
    InvalidInput
        If a name occurs twice or cannot be used, a kind is unknown, or the key has no column or
        another number of kinds than columns.
    """
    others = check_mapping(columns)
    ids = [id] if isinstance(id, str) else _listed(id, "id")
    kinds = [id_kind] * len(ids) if isinstance(id_kind, str) else _listed(id_kind, "id_kind")
    if len(kinds) != len(ids):
        raise InvalidInput(
            f"id_kind has {len(kinds)} kinds for the {len(ids)} columns of the key; give one for "
            "all or one for each"
        )
    names = [vector, *ids, *others]
    for name in names:
        check_name(name, "the name of a column")
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidInput(f"the name {name!r} is given to {count} columns; names must differ")
    key = dict(zip(ids, check_key_kinds(kinds), strict=True))
    for name, kind in {**key, **others}.items():
        if _unknown(kind, get_args(ColumnKind)):
            raise InvalidInput(
                f"column {name!r}: unknown kind {kind!r}; known are "
                f"{', '.join(get_args(ColumnKind))}"
            )
    return Schema(key, others)


def _listed(given: Any, what: str) -> list[Any]:
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)) or not given:
        raise InvalidInput(
            f"{what} must be text, or a list of it with one for each column of the "
            f"key, not {given!r}"
        )
    return list(given)


def check_resolution(
    resolution: Resolution | str,
    *,
    dims: int,
    code: BaseCode = "f32",
    known: Sequence[Code] = CODES,
) -> Resolution:
    """Return the resolution as a value that fits a column of `dims` dimensions and that code.

    `known` are the codes that the engine has.

    Raises
    ------
    SpecError
        If the text is malformed, or it is wider than the column or holds more digits.
    CapabilityError
        If it has a code that the engine has not, or a rotation that this version does not know.
        Names of fitted rotations are left to the table, which knows its own.
    """
    parsed = resolution if isinstance(resolution, Resolution) else Resolution.parse(resolution)
    if parsed.code not in known:
        rotation = "" if parsed.rotation is None else f"~{parsed.rotation}"
        raise CapabilityError(
            f"resolution {parsed}: this engine has no code {parsed.code} (it has "
            f"{', '.join(known)}), Qdrant has; write {parsed.dims}:f16{rotation}, or keep the "
            "table in Qdrant"
        )
    if parsed.rotation is not None and is_random(parsed.rotation):
        seed_of(parsed.rotation)
        if parsed.dims < dims:
            raise SpecError(
                f"resolution {parsed} cuts a random rotation, whose prefixes say no more than any "
                f"other numbers of it; write {dims}:{parsed.code}~{parsed.rotation}"
            )
    elif parsed.rotation is None and parsed.code in LEVELS:
        raise SpecError(
            f"resolution {parsed} has no rotation, and {parsed.code} compares numbers with levels "
            f"that fit all of them alike; write {parsed}~random"
        )
    if parsed.dims > dims:
        raise SpecError(
            f"resolution {parsed} is wider than the column, which has {dims} dimensions; write "
            f"{dims} or less"
        )
    if code == "f16" and parsed.code == "f32":
        raise SpecError(
            f"resolution {parsed} holds more digits than the column of 16-bit floats; write "
            f"{parsed.dims}:f16"
        )
    return parsed
