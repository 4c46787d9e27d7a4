"""Random filters mean the same on every engine, missing fields included."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import funnelvec as fv
from funnelvec.errors import CapabilityError
from tests.agreement import edge

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine, Table
    from funnelvec.types import ColumnKind

ROWS = 60

KINDS: dict[str, ColumnKind] = {
    "count": "integer",
    "price": "number",
    "name": "text",
    "sold": "boolean",
    "day": "date",
    "at": "timestamp",
    "ref": "uuid",
    'Odd "name"': "text",
    "tags": "text[]",
    "counts": "integer[]",
    "prices": "number[]",
    "flags": "boolean[]",
    "days": "date[]",
    "times": "timestamp[]",
    "refs": "uuid[]",
    "meta": "json",
    "meta.size": "number",  # a column that looks like a path
    "a.b": "json",
}

#: Fields to ask for: every column, and paths into JSON, each with the kind of its values.
FIELDS: dict[str, str] = {
    **{name: kind for name, kind in KINDS.items()},
    "meta.color": "json",
    "meta.deep.x": "json",
    "meta.tags": "json",
    "meta.": "json",
    'meta.it\'s "odd" %s': "json",
    "a.b.c": "json",
    "a.b.0": "json",
}

# Few values, so that equal ones meet; the edges of each kind among them.
VALUES: dict[str, list[Any]] = {
    "integer": [-(2**63), -1, 0, 1, 7, 2**53 + 1, 2**63 - 1],
    "number": [-1e300, -1.5, -0.0, 0.0, 0.1, 1 / 3, 7, 1e300],
    "text": [
        "",
        "a",
        "A",
        "b",
        "Z",
        "é",
        "\u0001",
        "\U0001f600",
        "\uffff",
        "a b",
        "a'b",
        "a\\b",
        "%",
        "10",
        "9",
    ],
    "boolean": [True, False],
    "date": [datetime.date(1969, 12, 31), datetime.date(2024, 2, 29), datetime.date(2026, 1, 1)],
    "timestamp": [
        datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        datetime.datetime(1900, 1, 1, 12, tzinfo=datetime.timezone.utc),
    ],
    "uuid": [uuid.UUID(int=i) for i in (0, 1, 2**127, 2**128 - 1)],
    "json": [
        "",
        "a",
        "A",
        "é",
        "\U0001f600",
        "\uffff",
        "1",
        0,
        1,
        -1.5,
        0.1,
        1 / 3,
        7,
        2**53 + 1,
        1e300,
        True,
        False,
    ],
}


def document(rng: np.random.Generator, depth: int = 0) -> Any:
    """A JSON value: mostly objects with the keys that the paths name, or what stands at their end."""
    scalars = [*VALUES["json"], None]
    pick = rng.random()
    if pick < (0.75, 0.3, 0.1)[min(depth, 2)]:
        keys = ("color", "deep", "x", "tags", "", 'it\'s "odd" %s', "c", "0", "size")
        chosen = rng.choice(len(keys), size=6, replace=False)
        return {keys[i]: document(rng, depth + 1) for i in chosen}
    if pick < 0.85 and depth < 4:
        return [document(rng, depth + 2) for _ in range(rng.integers(4))]
    return scalars[rng.integers(len(scalars))]


def column(kind: ColumnKind, rng: np.random.Generator) -> list[Any]:
    if kind == "json":
        return [None if rng.random() < 0.1 else document(rng) for _ in range(ROWS)]
    if kind.endswith("[]"):
        return [
            None if rng.random() < 0.2 else column(kind[:-2], rng)[: rng.integers(5)]  # type: ignore[arg-type]
            for _ in range(ROWS)
        ]
    stored = [*VALUES[kind], float("nan"), float("inf")] if kind == "number" else VALUES[kind]
    return [None if rng.random() < 0.25 else stored[rng.integers(len(stored))] for _ in range(ROWS)]


def build(engine: Engine) -> Table:
    rng = np.random.default_rng(5)
    table = engine.create("things", dims=4, columns=KINDS)
    vectors = rng.standard_normal((ROWS, 4))
    columns = {name: column(kind, rng) for name, kind in KINDS.items()}
    table.add(range(ROWS), vectors, columns=columns)
    table.create_funnel("things_search", "4:f32")
    return table


@pytest.fixture(scope="module")
def tables(postgres: Engine) -> Iterator[tuple[Table, Table]]:
    with postgres.connection() as connection:  # type: ignore[attr-defined]
        # Neither the session's zone nor its date style may change what a filter means.
        connection.execute("set timezone = 'Asia/Kolkata'")
        connection.execute("set datestyle = 'German'")
    with fv.connect("memory:") as memory:
        yield build(memory), build(postgres)


def test_of_field(name: str) -> st.SearchStrategy[Any]:
    kind = FIELDS[name].removesuffix("[]")
    value = st.sampled_from(VALUES[kind])
    operators = ["$eq", "$ne"] + (
        ["$lt", "$lte", "$gt", "$gte"] if kind not in ("boolean", "uuid") else []
    )
    one = st.tuples(st.sampled_from(operators), value)
    if kind == "json":  # true and false have no order
        ordered = [v for v in VALUES[kind] if not isinstance(v, bool)]
        one = st.one_of(
            st.tuples(st.sampled_from(operators[:2]), value),
            st.tuples(st.sampled_from(operators[2:]), st.sampled_from(ordered)),
        )
    many = st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(value, min_size=1, max_size=12))
    exists = st.tuples(st.just("$exists"), st.booleans())
    tests = st.lists(st.one_of(one, many, exists), min_size=1, max_size=3).map(dict)
    negated = tests.map(lambda test: {"$not": test})
    return st.one_of(tests, negated, value).map(lambda test: {name: test})


test_of_field.__test__ = False  # type: ignore[attr-defined]

leaves = st.sampled_from(sorted(FIELDS)).flatmap(test_of_field)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.tuples(inner, inner).map(lambda two: {**two[0], **two[1]}),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def of_qdrant() -> Iterator[list[Table]]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(edge.folder())
        urls = ("memory:", "qdrant-local::memory:", f"edge:{folder}")
        yield [build(stack.enter_context(fv.connect(url))) for url in urls]


ORDERED = ("$lt", "$lte", "$gt", "$gte")


def beyond_qdrant(filter: Any) -> bool:
    """Whether a filter asks for what Qdrant cannot decide: order of text, long numbers, quotes.

    Said here a second time, so that the engine refuses neither more nor less.
    """
    if isinstance(filter, list):
        return any(map(beyond_qdrant, filter))
    return any(
        beyond_qdrant(tests)
        if field in ("$and", "$or", "$not")
        else beyond_qdrant_test(field, tests)
        for field, tests in filter.items()
    )


def beyond_qdrant_test(field: str, tests: Any) -> bool:
    if not isinstance(tests, dict):
        tests = {"$eq": tests}
    if "$not" in tests:
        return beyond_qdrant_test(field, tests["$not"])
    kind = FIELDS[field].removesuffix("[]")
    path = field not in KINDS
    for operator, operand in tests.items():
        for value in operand if isinstance(operand, list) else [operand]:
            long = isinstance(value, int) and abs(value) >= 2**53
            if operator in ORDERED and (isinstance(value, str) or (long and kind == "integer")):
                return True
            if kind == "json" and long:
                return True
        if path and '"' in field:
            return True
    return False


@hypothesis.settings(
    max_examples=300, suppress_health_check=[hypothesis.HealthCheck.filter_too_much]
)
@hypothesis.given(filter=filters.filter(lambda filter: not beyond_qdrant(filter)))
def test_qdrant_agrees(of_qdrant: list[Table], filter: dict[str, Any]) -> None:
    """Local mode and Edge, with what Postgres agrees on with memory below."""
    memory, local, edge = (
        {hit.id for hit in table.search([1, 0, 0, 0], k=ROWS, filter=filter)} for table in of_qdrant
    )
    assert local == memory
    assert edge == memory


@hypothesis.settings(
    max_examples=100, suppress_health_check=[hypothesis.HealthCheck.filter_too_much]
)
@hypothesis.given(filter=filters.filter(beyond_qdrant))
def test_qdrant_refuses_what_it_cannot_decide(
    of_qdrant: list[Table], filter: dict[str, Any]
) -> None:
    for table in of_qdrant[1:]:
        with pytest.raises(CapabilityError, match=r"postgresql:// or memory:"):
            table.search([1, 0, 0, 0], k=ROWS, filter=filter)


def test_numbers_of_17_digits_are_found_again(of_qdrant: list[Table]) -> None:
    """Qdrant reads some of them back as the double next to them."""
    numbers = [float(x) for x in np.random.default_rng(1).uniform(1, 1000, 60)]
    for engine in ("qdrant-local::memory:", "edge"):
        with contextlib.ExitStack() as stack:
            url = f"edge:{stack.enter_context(edge.folder())}" if engine == "edge" else engine
            table = stack.enter_context(fv.connect(url)).create(
                "n", dims=1, columns={"x": "number"}
            )
            table.add(range(60), np.ones((60, 1)), columns={"x": numbers})
            table.create_funnel("n_search", "1:f32")
            for row, number in enumerate(numbers):
                for operators in ({"$eq": number}, {"$gte": number, "$lte": number}):
                    (hit,) = table.search([1], filter={"x": operators})
                    assert hit.id == row
                lower = sum(each < number for each in numbers)
                assert len(table.search([1], k=60, filter={"x": {"$lt": number}})) == lower


@pytest.mark.parametrize("postgres", ["sync"], indirect=True)
@hypothesis.settings(max_examples=400)
@hypothesis.given(filter=filters)
def test_engines_agree(tables: tuple[Table, Table], filter: dict[str, Any]) -> None:
    check_agrees(tables, filter)


@pytest.mark.parametrize("postgres", ["async"], indirect=True)
@hypothesis.settings(max_examples=60)
@hypothesis.given(filter=filters)
def test_the_asynchronous_form_agrees(tables: tuple[Table, Table], filter: dict[str, Any]) -> None:
    """The SQL is the same, and what calls it is written from one source."""
    check_agrees(tables, filter)


def check_agrees(tables: tuple[Table, Table], filter: dict[str, Any]) -> None:
    memory, postgres = (
        {hit.id for hit in table.search([1, 0, 0, 0], k=ROWS, filter=filter)} for table in tables
    )
    assert memory == postgres


@pytest.mark.parametrize(
    "filter",
    [
        {"nope": 1},
        {"count": 1.5},
        {"count": "1"},
        {"count": True},
        {"price": "1"},
        {"name": 1},
        {"sold": 1},
        {"day": "2024-02-30"},
        {"day": "yesterday"},
        {"at": "2024-01-01T25:00:00Z"},
        {"ref": "123"},
        {"sold": {"$lt": True}},
        {"ref": {"$gt": str(uuid.UUID(int=1))}},
        {"name": {"$in": ["a", 1]}},
        {"tags": 1},
        {"tags": {"$in": ["a", 1]}},
        {"counts": "1"},
        {"flags": {"$lt": True}},
        {"refs": {"$gte": str(uuid.UUID(int=1))}},
        {"meta.color": {"$lt": True}},
        {"name.first": "a"},
        {"tags.0": "a"},
        {"nope.color": "a"},
        {"meta" + ".x" * 33: 1},
    ],
)
def test_engines_refuse_the_same(
    tables: tuple[Table, Table], of_qdrant: list[Table], filter: dict[str, Any]
) -> None:
    for table in (*tables, *of_qdrant):
        with pytest.raises(fv.errors.FilterError, match=next(iter(filter))[:20]):
            table.search([1, 0, 0, 0], filter=filter)
