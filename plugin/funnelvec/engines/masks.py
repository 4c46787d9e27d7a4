"""Filters evaluated over columns in memory: one boolean per row."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.filters import And, Filter, Not, Or, Test
from funnelvec.types import ColumnKind

__all__ = ["mask"]

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
}


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
            return _test(filter, columns[filter.field], kinds[filter.field], rows=rows)
        case Not(part):
            return ~mask(part, columns, kinds, rows=rows)
        case And(parts):
            return reduce(operator.and_, (mask(p, columns, kinds, rows=rows) for p in parts))
        case Or(parts):
            return reduce(operator.or_, (mask(p, columns, kinds, rows=rows) for p in parts))


def _test(
    test: Test, values: Sequence[Any], kind: ColumnKind, *, rows: int
) -> npt.NDArray[np.bool_]:
    present = _each((value is not None for value in values), rows)
    match test.operator:
        case "$exists":
            return present if test.value else ~present
        case "$ne":
            return ~_each((value == test.value for value in values), rows)
        case "$in" | "$nin":
            wanted = frozenset(test.value)
            among = _each((value in wanted for value in values), rows)
            return among if test.operator == "$in" else ~among
        case _:
            holds = _COMPARE[test.operator]
            found = _each((v is not None and holds(v, test.value) for v in values), rows)
    if kind == "number" and test.operator in ("$gt", "$gte"):
        # Postgres sorts NaN above every number; a filter's own value is never NaN.
        found |= _each((value is not None and value != value for value in values), rows)
    return found


def _each(decisions: Iterable[bool], rows: int) -> npt.NDArray[np.bool_]:
    return np.fromiter(decisions, dtype=np.bool_, count=rows)
