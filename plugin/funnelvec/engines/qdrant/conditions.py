"""Filters as Qdrant's conditions: what `funnelvec.filters.check` has bound, test by test. Pure.

Every test is true or false of every point, as `funnelvec.filters` says, so ``$not`` is
``must_not``. What Qdrant cannot decide exactly is refused: the order of text, and that of whole
numbers beyond 53 bits, which it compares as doubles.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from qdrant_client import models

from funnelvec.engines.qdrant.names import payload_path
from funnelvec.engines.qdrant.payload import NAN, NEGATIVE, POSITIVE
from funnelvec.errors import CapabilityError
from funnelvec.filters import And, Filter, Not, Or, Test, column_of
from funnelvec.kinds import element_kind
from funnelvec.types import ColumnKind

__all__ = ["compile_filter", "lacking_filter", "without_ids"]

_Condition: TypeAlias = models.Condition
_NEGATED = {"$ne": "$eq", "$nin": "$in"}
_BOUND = {"$lt": "lt", "$lte": "lte", "$gt": "gt", "$gte": "gte"}
#: From here on not every whole number is a double.
_EXACT = 2**53
_DIGITS = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:e([+-][0-9]+))?")
_OTHERS = "a postgresql:// or memory: table can"


def compile_filter(filter: Filter, kinds: Mapping[str, ColumnKind]) -> models.Filter:
    """Compile a bound filter.

    Raises
    ------
    CapabilityError
        If Qdrant cannot decide one of its tests.
    """
    condition = _compile(filter, kinds)
    return condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])


def without_ids(ids: Sequence[int | str], within: models.Filter | None = None) -> models.Filter:
    """Return what all other points match, if they also match `within`."""
    left_out: list[Any] = [models.HasIdCondition(has_id=list(ids))]
    return models.Filter(must_not=left_out, must=None if within is None else [within])


def lacking_filter(vector: str, but: Sequence[int | str]) -> models.Filter:
    """Return what points match that do not have a vector, but for some points."""
    has = models.HasVectorCondition(has_vector=vector)
    return models.Filter(must_not=[has, models.HasIdCondition(has_id=list(but))])


def unmeasured_filter(path: str, vector: str, but: Sequence[int | str]) -> models.Filter:
    """Return what points match that have a vector and no number, but for some points."""
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    has = models.HasVectorCondition(has_vector=vector)
    return models.Filter(must=[empty, has], must_not=[models.HasIdCondition(has_id=list(but))])


def holding_filter(path: str, but: Sequence[int | str]) -> models.Filter:
    """Return what points match that have something at a path, but for some points."""
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    return models.Filter(must_not=[empty, models.HasIdCondition(has_id=list(but))])


def _compile(filter: Filter, kinds: Mapping[str, ColumnKind]) -> _Condition:
    match filter:
        case Test():
            return _test(filter, kinds)
        case Not(part):
            return models.Filter(must_not=[_compile(part, kinds)])
        case And(parts):
            return models.Filter(must=[_compile(part, kinds) for part in parts])
        case Or(parts):
            return models.Filter(should=[_compile(part, kinds) for part in parts])


def _test(test: Test, kinds: Mapping[str, ColumnKind]) -> _Condition:
    column, steps = column_of(test.field, kinds)
    path = payload_path(column, steps)
    if test.operator == "$exists":
        missing = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
        return models.Filter(must_not=[missing]) if test.value else missing
    kind = kinds[column]
    positive = _NEGATED.get(test.operator, test.operator)
    among = test.value if positive == "$in" else (test.value,)
    if positive in _BOUND:
        found = _ordered(path, positive, test.value, str(element_kind(kind) or kind))
    else:
        found = _equal(path, among, str(element_kind(kind) or kind))
    return found if positive == test.operator else models.Filter(must_not=[found])


def _equal(path: str, values: Sequence[Any], kind: str) -> _Condition:
    """Whether the field, or an element of it, is one of these values."""
    words: list[str] = []
    integers: list[int] = []
    others: list[_Condition] = []
    for value in values:
        if isinstance(value, bool):
            others.append(_matches(path, models.MatchValue(value=value)))
        elif isinstance(value, datetime.date):
            at = _instant(value)
            others.append(_within(path, models.DatetimeRange(gte=at, lte=at)))
        elif kind == "integer":
            integers.append(value)
        elif isinstance(value, (int, float, Decimal)):
            low, high = _seen_as(_double(value, kind, path))
            others.append(_within(path, models.Range(gte=low, lte=high)))
        else:
            words.append(str(value))
    if words:
        others.append(_among(path, words))
    if integers:
        others.append(_among(path, integers))
    return others[0] if len(others) == 1 else models.Filter(should=others)


def _ordered(path: str, operator: str, value: Any, kind: str) -> _Condition:
    bound = _BOUND[operator]
    if isinstance(value, str):
        raise CapabilityError(
            f"Qdrant has no order of text, so {operator} on {path} cannot be decided; {_OTHERS}"
        )
    if isinstance(value, datetime.date):
        return _within(path, models.DatetimeRange(**{bound: _instant(value)}))
    low, high = _seen_as(_double(value, kind, path, ordered=True))
    found = _within(path, models.Range(**{bound: low if bound in ("lt", "gte") else high}))
    if kind != "number":
        return found
    # NaN is above every number, as in Postgres.
    beyond = [NEGATIVE] if bound in ("lt", "lte") else [NAN, POSITIVE]
    return models.Filter(should=[found, _among(path, beyond)])


def _double(value: Any, kind: str, path: str, *, ordered: bool = False) -> float:
    """Return a number as the double that Qdrant compares with; refused where it is another."""
    number = float(value)
    whole = kind == "integer" or (kind == "json" and number.is_integer())
    if (whole and _EXACT <= abs(number) <= 2**64) or (
        kind == "json" and Decimal(repr(number)) != Decimal(str(value))
    ):
        what = "orders" if ordered else "compares"
        raise CapabilityError(
            f"Qdrant {what} numbers as doubles, which {value} on {path} is too long for; {_OTHERS}"
        )
    return number


def _seen_as(number: float) -> tuple[float, float]:
    """Return a number and what Qdrant reads it back as from a payload, the smaller first.

    Its JSON parser multiplies the digits by a power of ten and rounds twice; numbers of more than
    15 digits may come back as the double next to them.
    """
    found = _DIGITS.fullmatch(repr(number))
    if found is None:
        return number, number
    sign, whole, fraction, exponent = found.groups()
    digits = int(whole + (fraction or ""))
    power = int(exponent or 0) - len(fraction or "")
    if not -308 <= power <= 308:
        return number, number
    scale = float(f"1e{abs(power)}")
    read = float(digits) * scale if power >= 0 else float(digits) / scale
    read = -read if sign else read
    return (number, number) if math.isinf(read) else (min(number, read), max(number, read))


def _instant(value: datetime.date) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value
    return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.timezone.utc)


def _among(path: str, values: list[Any]) -> models.FieldCondition:
    if len(values) == 1:
        return _matches(path, models.MatchValue(value=values[0]))
    return _matches(path, models.MatchAny(any=values))


def _matches(path: str, match: models.Match) -> models.FieldCondition:
    return models.FieldCondition(key=path, match=match)


def _within(path: str, range: models.RangeInterface) -> models.FieldCondition:
    return models.FieldCondition(key=path, range=range)
