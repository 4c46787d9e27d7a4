"""Filters: parsing, the canonical text, and evaluation against a slow independent evaluator."""

from __future__ import annotations

import datetime
import json
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funnelvec import filters, kinds
from funnelvec.engines.masks import mask
from funnelvec.errors import FilterError
from funnelvec.filters import And, Not, Or, Test
from funnelvec.types import ColumnKind

UTC = datetime.timezone.utc
KINDS: dict[str, ColumnKind] = {
    "n": "integer",
    "x": "number",
    "s": "text",
    "b": "boolean",
    "d": "date",
    "t": "timestamp",
    "u": "uuid",
}
# Few different values, so that equality and ties happen.
DATES = [datetime.date(2024, 2, 29), datetime.date(1999, 12, 31), datetime.date(2024, 3, 1)]
UUIDS = [uuid.UUID(int=1), uuid.UUID(int=2**127), uuid.UUID(int=3)]
TIMES = [
    datetime.datetime(2024, 5, 31, 12, tzinfo=UTC),
    datetime.datetime(2024, 5, 31, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    datetime.datetime(2024, 5, 31, 12, 0, 0, 1),
]
POOLS: dict[str, list[Any]] = {
    "n": [-1, 0, 1, 2**62],
    "x": [-1.5, 0, 0.1, 1e300],
    "s": ["", "a", "B", "é", "😀", "\uffff"],
    "b": [True, False],
    "d": DATES,
    "t": TIMES,
    "u": UUIDS,
}
STORED: dict[str, list[Any]] = {**POOLS, "x": [*POOLS["x"], math.nan, math.inf]}
RANGES = ["$lt", "$lte", "$gt", "$gte"]


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(list(POOLS)))
    value = st.sampled_from(POOLS[field])
    ranges = [] if field in "bu" else RANGES
    operator = draw(st.sampled_from(["$eq", "$ne", "$in", "$nin", "$exists", "plain", *ranges]))
    if operator == "plain":
        return {field: draw(value)}
    if operator in ("$in", "$nin"):
        return {field: {operator: draw(st.lists(value, min_size=1, max_size=3))}}
    condition = {operator: draw(st.booleans() if operator == "$exists" else value)}
    return {field: {"$not": condition} if draw(st.booleans()) else condition}


given_filters = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda parts: dict(p for q in parts for p in q.items())
        ),
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {field: st.none() | st.sampled_from(values) for field, values in STORED.items()}
)
tables = st.lists(rows, min_size=0, max_size=12)


def slow(given: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Decide one row from the filter as written, without the code under test."""
    results = []
    for key, value in given.items():
        if key == "$and":
            results.append(all(slow(part, row) for part in value))
        elif key == "$or":
            results.append(any(slow(part, row) for part in value))
        elif key == "$not":
            results.append(not slow(value, row))
        else:
            results.append(slow_field(row[key], value))
    return all(results)


def slow_field(stored: Any, given: Any) -> bool:
    if not isinstance(given, dict):
        given = {"$eq": given}
    results = []
    for operator, value in given.items():
        if operator == "$not":
            results.append(not slow_field(stored, value))
        elif operator == "$exists":
            results.append((stored is not None) == value)
        elif operator in ("$ne", "$nin"):
            values = value if operator == "$nin" else [value]
            results.append(not any(slow_order(stored, v) == 0 for v in values))
        elif operator == "$in":
            results.append(any(slow_order(stored, v) == 0 for v in value))
        else:
            order = slow_order(stored, value)
            signs = {"$eq": [0], "$lt": [-1], "$lte": [-1, 0], "$gt": [1], "$gte": [0, 1]}
            results.append(order in signs[operator])
    return all(results)


def slow_order(stored: Any, value: Any) -> int | None:
    """-1, 0 or 1; None if nothing is stored; NaN stands above every number."""
    if stored is None:
        return None
    if isinstance(stored, float) and math.isnan(stored):
        return 1
    if isinstance(stored, datetime.datetime):
        stored, value = (
            (v if v.tzinfo else v.replace(tzinfo=UTC)).timestamp() for v in (stored, value)
        )
    if isinstance(stored, str):
        stored, value = [ord(c) for c in stored], [ord(c) for c in value]
    if isinstance(stored, uuid.UUID):
        stored, value = str(stored), str(value)
    return int(stored > value) - int(stored < value)


def evaluate(given: Mapping[str, Any], table: list[dict[str, Any]]) -> list[bool]:
    parsed = filters.parse(given)
    assert parsed is not None
    columns = {
        field: [None if row[field] is None else kinds.convert(row[field], kind) for row in table]
        for field, kind in KINDS.items()
    }
    result = mask(filters.check(parsed, KINDS), columns, KINDS, rows=len(table))
    assert result.dtype == np.bool_
    return [bool(value) for value in result]


@given(given_filters, tables)
def test_memory_agrees_with_the_slow_evaluator(
    given: dict[str, Any], table: list[dict[str, Any]]
) -> None:
    assert evaluate(given, table) == [slow(given, row) for row in table]


@given(given_filters, tables)
def test_not_is_two_valued(given: dict[str, Any], table: list[dict[str, Any]]) -> None:
    plain = evaluate(given, table)
    assert evaluate({"$not": given}, table) == [not value for value in plain]
    assert evaluate({"$not": {"$not": given}}, table) == plain


@given(given_filters, given_filters, tables)
def test_de_morgan(a: dict[str, Any], b: dict[str, Any], table: list[dict[str, Any]]) -> None:
    assert evaluate({"$not": {"$and": [a, b]}}, table) == evaluate(
        {"$or": [{"$not": a}, {"$not": b}]}, table
    )
    assert evaluate({"$not": {"$or": [a, b]}}, table) == evaluate(
        {"$and": [{"$not": a}, {"$not": b}]}, table
    )


@given(given_filters)
def test_the_canonical_text_reads_back(given: dict[str, Any]) -> None:
    parsed = filters.parse(given)
    assert parsed is not None
    assert filters.parse(json.loads(filters.to_json(parsed))) == parsed


def test_forms_that_mean_the_same() -> None:
    assert filters.parse({"n": 5}) == filters.parse({"n": {"$eq": 5}}) == Test("n", "$eq", 5)
    both = And((Test("n", "$gt", 1), Test("n", "$lt", 5)))
    assert filters.parse({"n": {"$gt": 1, "$lt": 5}}) == both
    assert filters.parse({"$and": [{"n": {"$gt": 1}}, {"n": {"$lt": 5}}]}) == both
    assert filters.parse({"n": {"$not": {"$lt": 5}}}) == Not(Test("n", "$lt", 5))
    assert filters.parse({"$or": [{"n": 1}, {"s": "a"}]}) == Or(
        (Test("n", "$eq", 1), Test("s", "$eq", "a"))
    )
    assert filters.parse(None) is filters.parse({}) is None


def test_values_travel_as_json() -> None:
    written = {
        "d": DATES[0],
        "t": {"$gt": TIMES[0]},
        "u": UUIDS[0],
        "x": {"$in": [Decimal("0.10"), 1e22, np.float32(0.5), np.int64(3)]},
    }
    parsed = filters.parse(written)
    assert parsed is not None
    assert json.loads(filters.to_json(parsed)) == {
        "$and": [
            {"d": {"$eq": "2024-02-29"}},
            {"t": {"$gt": "2024-05-31T12:00:00+00:00"}},
            {"u": {"$eq": "00000000-0000-0000-0000-000000000001"}},
            {"x": {"$in": [0.10, 1e22, 0.5, 3]}},
        ]
    }
    assert "0.10" in filters.to_json(parsed)  # a Decimal keeps its digits
    assert filters.fields(parsed) == {"d", "t", "u", "x"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "a filter is a mapping"),
        ("n = 5", "a filter is a mapping"),
        ({"n": None}, r"\$exists"),
        ({"n": {"$eq": None}}, r"\$exists"),
        ({"n": {"$in": [1, None]}}, r"\$exists"),
        ({"n": {}}, "no operator"),
        ({"n": [1, 2]}, r"use \$in"),
        ({"n": {"$eq": [1]}}, r"use \$in"),
        ({"n": {"$like": "x"}}, r"'\$like'; known are \$eq, \$ne"),
        ({"n": {"gt": 1}}, "'gt'"),
        ({"n": {"$and": [{"$lt": 1}]}}, r"'\$and'"),
        ({"$nor": [{"n": 1}]}, r"'\$nor'.*\$and, \$or and \$not"),
        ({"$and": []}, "non-empty list"),
        ({"$or": {"n": 1}}, "non-empty list"),
        ({"$and": [{}]}, "expected a filter"),
        ({"$and": [1]}, "expected a filter"),
        ({"$not": {}}, "expected a filter"),
        ({"$not": 5}, "expected a filter"),
        ({"n": {"$not": 5}}, r"write \$ne"),
        ({"n": {"$not": {}}}, "no operator"),
        ({"n": {"$in": []}}, "at least one"),
        ({"n": {"$in": 5}}, "a list"),
        ({"s": {"$in": "abc"}}, "a list"),
        ({"n": {"$in": list(range(1001))}}, "at most 1000"),
        ({"n": {"$exists": 1}}, "true or false"),
        ({"x": math.nan}, "not finite"),
        ({"x": {"$lt": math.inf}}, "not finite"),
        ({"x": Decimal("NaN")}, "not finite"),
        ({"x": 10**400}, "too large"),
        ({"x": 1j}, "cannot compare"),
        ({"s": b"bytes"}, "cannot compare"),
        ({"s": "a\0b"}, "UTF-8"),
        ({"s": "\ud800"}, "UTF-8"),
        ({"": 1}, "name of a column"),
        ({5: 1}, "name of a column"),
        ({"a\0": 1}, "UTF-8"),
    ],
)
def test_malformed_filters_are_refused(given: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        filters.parse(given)


@pytest.mark.parametrize("wrap", ["$not", "$and"])
def test_depth_is_limited(wrap: str) -> None:
    def nested(levels: int) -> dict[str, Any]:
        given: dict[str, Any] = {"n": 1}
        for _ in range(levels):
            given = {wrap: given if wrap == "$not" else [given]}
        return given

    deepest = filters.parse(nested(32))
    assert deepest is not None
    assert filters.parse(json.loads(filters.to_json(deepest))) == deepest
    with pytest.raises(FilterError, match="32 levels"):
        filters.parse(nested(33))


def test_an_unwritten_and_counts_as_a_level() -> None:
    given: dict[str, Any] = {"n": 1, "s": "a"}
    for _ in range(31):
        given = {"$not": given}
    parsed = filters.parse(given)
    assert parsed is not None
    assert filters.parse(json.loads(filters.to_json(parsed))) == parsed
    with pytest.raises(FilterError, match="32 levels"):
        filters.parse({"$not": given})


def test_a_filter_that_contains_itself_is_refused() -> None:
    given: dict[str, Any] = {}
    given["$not"] = given
    with pytest.raises(FilterError, match="32 levels"):
        filters.parse(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"missing": 1}, "unknown field 'missing'; columns that can be filtered: b, d, n"),
        ({"missing": {"$exists": False}}, "unknown field"),
        ({"n": True}, "integer"),
        ({"n": 5.0}, "integer"),
        ({"n": "5"}, "integer"),
        ({"n": 2**63}, "integer"),
        ({"x": "0.5"}, "number"),
        ({"x": True}, "number"),
        ({"s": 5}, "text"),
        ({"b": 1}, "boolean"),
        ({"b": "true"}, "boolean"),
        ({"b": {"$lt": True}}, "no order"),
        ({"u": {"$gte": str(UUIDS[0])}}, "no order"),
        ({"u": "not-a-uuid"}, "uuid"),
        ({"u": UUIDS[0].hex}, "uuid"),
        ({"d": "2024-02-30"}, "date"),
        ({"d": "20240229"}, "date"),
        ({"d": "2024-02-29T00:00:00"}, "date"),
        ({"d": 20240229}, "date"),
        ({"t": "yesterday"}, "timestamp"),
        ({"t": "2024-05-31T24:00"}, "timestamp"),
        ({"t": "2024-05-31T12:00:00+16:00"}, "timestamp"),
        ({"t": "0001-01-01T00:00+01:00"}, "timestamp"),
        ({"t": {"$in": ["2024-05-31T12:00", 5]}}, "timestamp"),
        ({"$or": [{"n": 1}, {"$not": {"n": {"$nin": ["x"]}}}]}, "integer"),
    ],
)
def test_fields_and_kinds_are_checked(given: dict[str, Any], message: str) -> None:
    parsed = filters.parse(given)
    assert parsed is not None
    with pytest.raises(FilterError, match=message):
        filters.check(parsed, KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-31T12:00:00Z",
        "2024-05-31 12:00:00",
        "2024-05-31T12:00",
        "2024-05-31T14:00:00+02:00",
        "2024-05-31T14:00:00.000+0200",
        "2024-05-31T14:00:00.0+02",
        "2024-05-31T10:30:00-01:30",
    ],
)
def test_ways_to_write_one_moment(text: str) -> None:
    assert kinds.convert(text, "timestamp") == datetime.datetime(2024, 5, 31, 12, tzinfo=UTC)


def test_a_bare_date_is_its_midnight() -> None:
    midnight = datetime.datetime(2024, 5, 31, tzinfo=UTC)
    assert kinds.convert("2024-05-31", "timestamp") == midnight
    assert kinds.convert(datetime.date(2024, 5, 31), "timestamp") == midnight


def test_missing_matches_only_negations() -> None:
    row = dict.fromkeys(POOLS)
    matching = [{"$ne": 1}, {"$nin": [1]}, {"$not": {"$lt": 1}}, {"$exists": False}]
    others = [{"$eq": 1}, {"$in": [1]}, {"$lt": 1}, {"$gte": 1}, {"$exists": True}]
    assert all(evaluate({"n": condition}, [row]) == [True] for condition in matching)
    assert not any(evaluate({"n": condition}, [row])[0] for condition in others)
