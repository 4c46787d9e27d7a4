"""Filters: parsed once into a small tree, checked against the columns, compiled by each engine.

``{"price": {"$lt": 50}, "lang": "de"}`` is the AND of two tests. Operators: ``$eq $ne $lt $lte
$gt $gte`` take one value, ``$in $nin`` a list, ``$exists`` true or false; ``$and $or`` join a list
of filters, ``$not`` negates one. A row without a value in the field (missing or NULL) matches
``$ne``, ``$nin``, ``$exists: false`` and what ``$not`` makes of a test that fails, nothing else:
every test is either true or false, never unknown. An array matches where one of its elements does.
A field of a JSON column is a path, ``meta.size``; see `column_of`.
"""

from __future__ import annotations

import datetime
import json
import math
import numbers
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, TypeAlias, get_args

from funnelvec import kinds as _kinds
from funnelvec.errors import FilterError
from funnelvec.types import ColumnKind

__all__ = [
    "MAX_DEPTH",
    "MAX_LIST",
    "And",
    "Filter",
    "Not",
    "Operator",
    "Or",
    "Scalar",
    "Test",
    "check",
    "column_of",
    "fields",
    "parse",
    "to_json",
]

Operator: TypeAlias = Literal["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$exists"]
#: A value as written: text, numbers and booleans, since dates and UUIDs travel as text.
Scalar: TypeAlias = str | int | float | bool | Decimal

MAX_DEPTH = 32
MAX_LIST = 1000

_OPERATORS: tuple[Operator, ...] = get_args(Operator)
_EXAMPLE = "{'price': {'$lt': 50}}"
_LISTS = ("$in", "$nin")
_RANGES = ("$lt", "$lte", "$gt", "$gte")
_UNORDERED: tuple[ColumnKind, ...] = ("boolean", "uuid", "boolean[]", "uuid[]")
MAX_STEPS = 32


@dataclass(frozen=True, slots=True)
class Test:
    """One field against one value (a tuple for ``$in`` and ``$nin``, a bool for ``$exists``)."""

    __test__ = False  # the name would make pytest collect it

    field: str
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True)
class And:
    """True if every part is."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if some part is."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True if the part is false; a missing value makes a test false, so its ``$not`` is true."""

    part: Filter


Filter: TypeAlias = Test | And | Or | Not


def parse(given: Mapping[str, Any] | None) -> Filter | None:
    """Read a filter as users write it.

    Returns
    -------
    Filter or None
        None for None and for the empty mapping, which filter nothing. Dates, timestamps and
        UUIDs have become ISO text, so ``parse(json.loads(to_json(f))) == f`` (floats exactly).

    Raises
    ------
    FilterError
        If it is malformed; the message names the part and what is accepted there.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise FilterError(
            f"a filter is a mapping such as {{'price': {{'$lt': 50}}}}, not {given!r}"
        )
    return _parse_mapping(given, depth=0) if given else None


def _parse_mapping(given: Any, *, depth: int) -> Filter:
    if not isinstance(given, Mapping) or not given:
        raise FilterError(f"expected a filter such as {_EXAMPLE}, not {given!r}")
    depth = _deeper(depth) if len(given) > 1 else depth  # several keys are an $and unwritten
    parts: list[Filter] = []
    for key, value in given.items():
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise FilterError(f"{key} takes a non-empty list of filters, not {value!r}")
            below = _deeper(depth)
            inner = tuple(_parse_mapping(part, depth=below) for part in value)
            parts.append(And(inner) if key == "$and" else Or(inner))
        elif key == "$not":
            parts.append(Not(_parse_mapping(value, depth=_deeper(depth))))
        else:
            parts.append(_parse_field(_field(key), value, depth=depth))
    return _all(parts)


def _parse_field(field: str, given: Any, *, depth: int) -> Filter:
    if not isinstance(given, Mapping):
        return Test(field, "$eq", _scalar(field, "$eq", given))
    if not given:
        raise FilterError(f"field {field!r}: no operator given; known are {', '.join(_OPERATORS)}")
    depth = _deeper(depth) if len(given) > 1 else depth
    parts: list[Filter] = []
    for operator, value in given.items():
        if operator == "$not":
            if not isinstance(value, Mapping):
                raise FilterError(
                    f"field {field!r}: $not takes operators such as {{'$lt': 5}}, not {value!r}; "
                    "for a single value write $ne"
                )
            parts.append(Not(_parse_field(field, value, depth=_deeper(depth))))
        elif operator in _OPERATORS:
            parts.append(Test(field, operator, _operand(field, operator, value)))
        else:
            raise FilterError(
                f"field {field!r}: unknown operator {operator!r}; known are "
                f"{', '.join(_OPERATORS)} and $not"
            )
    return _all(parts)


def _deeper(depth: int) -> int:
    if depth == MAX_DEPTH:
        raise FilterError(f"the filter is nested more than {MAX_DEPTH} levels deep; flatten it")
    return depth + 1


def _all(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _field(key: Any) -> str:
    if not isinstance(key, str) or not key:
        raise FilterError(f"a field is the name of a column, not {key!r}")
    if key.startswith("$"):
        raise FilterError(
            f"unknown operator {key!r} in place of a field; known there are $and, $or and $not"
        )
    return str(_require_text(key, f"field {key!r}"))


def _operand(field: str, operator: Operator, value: Any) -> Scalar | tuple[Scalar, ...]:
    if operator == "$exists":
        if not isinstance(value, bool):
            raise FilterError(f"field {field!r}: $exists takes true or false, not {value!r}")
        return value
    if operator not in _LISTS:
        return _scalar(field, operator, value)
    if isinstance(value, (str, Mapping)) or not isinstance(value, (list, tuple, set, frozenset)):
        raise FilterError(f"field {field!r}: {operator} takes a list of values, not {value!r}")
    if not value:
        raise FilterError(f"field {field!r}: {operator} takes at least one value")
    if len(value) > MAX_LIST:
        raise FilterError(
            f"field {field!r}: {operator} takes at most {MAX_LIST} values, not {len(value)}; "
            "keep a longer list in a table and join it"
        )
    return tuple(_scalar(field, operator, item) for item in value)


def _scalar(field: str, operator: str, value: Any) -> Scalar:
    where = f"field {field!r}, {operator}"
    if value is None:
        raise FilterError(f"{where}: null is not a value; use $exists")
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _require_text(value, where)
    if isinstance(value, (numbers.Real, Decimal)):
        return _finite(value, where)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        raise FilterError(f"{where}: a list is not a value; use $in or $nin")
    raise FilterError(f"{where}: cannot compare with {value!r}")


def _finite(value: numbers.Real | Decimal, where: str) -> int | float | Decimal:
    try:
        finite = math.isfinite(float(value))
    except (OverflowError, ValueError):
        finite = False
    if not finite:
        raise FilterError(f"{where}: {value!r} is not finite or too large to be compared")
    if isinstance(value, Decimal):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _require_text(value: str, where: str) -> str:
    try:
        return str(_kinds.convert(value, "text"))
    except ValueError:
        raise FilterError(f"{where}: {value!r} holds a character that UTF-8 text cannot") from None


def to_json(filter: Filter) -> str:
    """Write the canonical JSON text, in the same grammar that `parse` reads."""
    match filter:
        case Test(field, operator, value):
            return f"{{{_json(field)}: {{{_json(operator)}: {_json(value)}}}}}"
        case Not(part):
            return f'{{"$not": {to_json(part)}}}'
        case And(parts):
            return f'{{"$and": [{", ".join(map(to_json, parts))}]}}'
        case Or(parts):
            return f'{{"$or": [{", ".join(map(to_json, parts))}]}}'


def _json(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_json, value))}]"
    # A Decimal prints as a JSON number already; through a float it would lose digits.
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def fields(filter: Filter) -> frozenset[str]:
    """Names of all fields that the filter tests."""
    return frozenset(test.field for test in _tests(filter))


def _tests(filter: Filter) -> list[Test]:
    match filter:
        case Test():
            return [filter]
        case Not(part):
            return _tests(part)
        case And(parts) | Or(parts):
            return [test for part in parts for test in _tests(part)]


def check(filter: Filter, kinds: Mapping[str, ColumnKind]) -> Filter:
    """Check fields and values against the columns.

    Parameters
    ----------
    kinds
        The kind of each column that can be filtered.

    Returns
    -------
    Filter
        The same filter with every value turned into what the column holds (``datetime.date``,
        aware ``datetime.datetime``, ``uuid.UUID``, float ...), ready to be evaluated.

    Raises
    ------
    FilterError
        For an unknown field, a value of another kind, or a range test on booleans or UUIDs.
    """
    return _map_tests(filter, lambda test: _bind(test, kinds))


def _map_tests(filter: Filter, change: Callable[[Test], Test]) -> Filter:
    match filter:
        case Test():
            return change(filter)
        case Not(part):
            return Not(_map_tests(part, change))
        case And(parts):
            return And(tuple(_map_tests(part, change) for part in parts))
        case Or(parts):
            return Or(tuple(_map_tests(part, change) for part in parts))


def column_of(field: str, kinds: Mapping[str, ColumnKind]) -> tuple[str, tuple[str, ...]]:
    """Find the column that a field is of, and the path that leads on from there.

    A column of just that name comes first; else the longest beginning, up to a dot, that is a
    column, and the rest is the path in its JSON, key by key.

    Raises
    ------
    FilterError
        If there is no such column, or the path leads into one that is not JSON.
    """
    if field in kinds:
        return field, ()
    steps = field.split(".")
    if len(steps) > MAX_STEPS + 1:
        raise FilterError(f"field {field[:100]!r}... is a path of more than {MAX_STEPS} steps")
    for width in range(len(steps) - 1, 0, -1):
        column = ".".join(steps[:width])
        if column not in kinds:
            continue
        if kinds[column] != "json":
            raise FilterError(
                f"field {field!r} is a path into column {column!r}, which is of kind "
                f"{kinds[column]}; paths lead into JSON"
            )
        return column, tuple(steps[width:])
    known = ", ".join(sorted(kinds)) or "none"
    raise FilterError(f"unknown field {field!r}; columns that can be filtered: {known}")


def _bind(test: Test, kinds: Mapping[str, ColumnKind]) -> Test:
    column, _ = column_of(test.field, kinds)
    kind = kinds[column]
    if test.operator == "$exists":
        return test
    if test.operator in _RANGES and kind in _UNORDERED:
        raise FilterError(
            f"field {test.field!r} is of kind {kind}, which has no order for {test.operator}; "
            "use $eq, $ne, $in or $nin"
        )
    if test.operator in _RANGES and kind == "json" and isinstance(test.value, bool):
        raise FilterError(
            f"field {test.field!r}: booleans have no order for {test.operator}; use $eq or $ne"
        )
    if kind == "json":
        return test  # what is in JSON has the type that it has; a value of another does not match
    compared = _kinds.element_kind(kind) or kind
    try:
        if isinstance(test.value, tuple):
            return replace(test, value=tuple(_kinds.convert(v, compared) for v in test.value))
        return replace(test, value=_kinds.convert(test.value, compared))
    except ValueError as error:
        raise FilterError(
            f"field {test.field!r} is of kind {compared}; {test.operator}: {error}"
        ) from None
