"""Filters evaluated over columns in memory: one boolean per row."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.filters import And, Filter, Not, Or, Test, column_of
from funnelvec.kinds import element_kind
from funnelvec.types import ColumnKind

__all__ = ["mask"]

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
}
_NEGATED = {"$ne": "$eq", "$nin": "$in"}


def mask(
    filter: Filter,
    columns: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, ColumnKind],
    *,
    rows: int,
) -> npt.NDArray[np.bool_]:
    """Evaluate a filter that `funnelvec.filters.check` has bound to the columns.

    Returns
    -------
    (rows,) bool. Every test is decided for every row, so ``$and``, ``$or`` and ``$not`` follow
    the laws of two-valued logic.
    """
    match filter:
        case Test():
            column, path = column_of(filter.field, kinds)
            return _test(filter, columns[column], path, kinds[column], rows=rows)
        case Not(part):
            return ~mask(part, columns, kinds, rows=rows)
        case And(parts):
            return reduce(operator.and_, (mask(p, columns, kinds, rows=rows) for p in parts))
        case Or(parts):
            return reduce(operator.or_, (mask(p, columns, kinds, rows=rows) for p in parts))


def _test(
    test: Test, values: Sequence[Any], path: Sequence[str], kind: ColumnKind, *, rows: int
) -> npt.NDArray[np.bool_]:
    reached: Iterable[Any] = (_follow(v, path) for v in values) if kind == "json" else values
    if test.operator == "$exists":
        present = _each((value is not None for value in reached), rows)
        return present if test.value else ~present
    positive = _NEGATED.get(test.operator, test.operator)
    passes = _passing(positive, test.value, kind)
    if kind == "json" or element_kind(kind):
        found = _each((any(map(passes, _elements(value))) for value in reached), rows)
    else:
        found = _each((value is not None and passes(value) for value in reached), rows)
    return found if positive == test.operator else ~found


def _passing(name: str, wanted: Any, kind: ColumnKind) -> Callable[[Any], bool]:
    """Return what decides about one value that is there."""
    if kind == "json":
        if name == "$in":
            among = frozenset(map(_typed, wanted))
            return lambda value: _typed(value) in among
        kind_of, limit = _typed(wanted)
        compare = _COMPARE[name]

        def passes(value: Any) -> bool:
            found, number = _typed(value)
            return found == kind_of and compare(number, limit)

        return passes
    if name == "$in":
        values = frozenset(wanted)
        return lambda value: value in values
    holds = _COMPARE[name]
    if kind in ("number", "number[]") and name in ("$gt", "$gte"):
        # Postgres sorts NaN above every number; a filter's own value is never NaN.
        return lambda value: holds(value, wanted) or value != value
    return lambda value: holds(value, wanted)


def _follow(value: Any, path: Sequence[str]) -> Any:
    """Return what the path leads to in a JSON value; None where it leads nowhere."""
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _elements(value: Any) -> Iterator[Any]:
    """Return what a test on an array or in JSON may match: the value itself, or each element."""
    return (item for item in (value if isinstance(value, list) else [value]) if item is not None)


def _typed(value: Any) -> tuple[str, Any]:
    """Return a JSON value with its JSON type, comparable with others of that type."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, (int, float, Decimal)):
        # By the digits that are written, as in a database: 0.1 is 0.1, not the double next to it.
        return "number", Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return ("string", value) if isinstance(value, str) else ("other", None)


def _each(decisions: Iterable[bool], rows: int) -> npt.NDArray[np.bool_]:
    return np.fromiter(decisions, dtype=np.bool_, count=rows)
