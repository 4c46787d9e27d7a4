"""Pages, many queries in one call, and returned columns: alike on every engine."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import funnelvec as fv
from tests import awaited, databases
from tests.agreement import edge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from funnelvec.engines.base import Engine, Table
    from funnelvec.types import Hit
    from tests.databases import Server

ROWS, DIMS, KEEP = 60, 8, 45
WORDS = ["a", "B", "b", "A", "ä", "z", "Z", "é", "", " ", "10", "9", "\uffff", "\U0001f600", "a'b"]


def matrix() -> Any:
    """(ROWS, DIMS) rows, each there three times, so that every score is a tie."""
    rows = np.random.default_rng(3).standard_normal((ROWS // 3, DIMS)).astype(np.float32)
    return np.repeat(rows, 3, axis=0)


def build(engine: Engine) -> dict[str, Table]:
    """Tables with keys of several kinds, and a funnel of two stages and one of one stage each."""
    rng = np.random.default_rng(4)
    keys: dict[str, tuple[Any, Any, list[Any]]] = {
        "numbers": ("id", "integer", [int(i) - 40 for i in rng.permutation(ROWS)]),
        "words": ("id", "text", [f"{WORDS[i % 15]}{i // 15 or ''}" for i in rng.permutation(ROWS)]),
        "pairs": (
            ("at", "part"),
            ("timestamp", "text"),
            [
                (
                    datetime.datetime(2024, 1, 1 + i // 20, tzinfo=datetime.timezone.utc),
                    WORDS[i % 15] + str(i // 15),
                )
                for i in rng.permutation(ROWS)
            ],
        ),
    }
    tables = {}
    for name, (id, id_kind, ids) in keys.items():
        table = engine.create(
            name, dims=DIMS, id=id, id_kind=id_kind, columns={"price": "number", "Odd name": "text"}
        )
        columns = {
            "price": [None if i % 7 == 0 else i / 3 for i in range(ROWS)],
            "Odd name": [f"n{i}" for i in range(ROWS)],
        }
        table.add(ids, matrix(), columns=columns)
        table.add_resolution("4:f16")
        table.create_funnel(
            f"{name}_search", f"4:f16@{KEEP} > 8:f32", returns=["Odd name", "price"]
        )
        table.create_funnel(f"{name}_one", "8:f32")
        tables[name] = table
    return tables


#: Both forms of Postgres among the others, so that those do not run twice.
ENGINES = ("memory", "sync", "async", "local", "edge")


@pytest.fixture(scope="module")
def engines(pg_server: Server) -> Iterator[dict[str, dict[str, Table]]]:
    with (
        edge.folder() as folder,
        databases.copied(pg_server, pg_server.template("funnelvec")) as one,
        databases.copied(pg_server, pg_server.template("funnelvec")) as other,
        awaited.opened(one.owner_url, "sync") as sync,
        awaited.opened(other.owner_url, "async") as later,
        fv.connect("memory:") as memory,
        fv.connect("qdrant-local::memory:") as local,
        fv.connect(f"edge:{folder}") as of_edge,
    ):
        yield {
            "memory": build(memory),
            "sync": build(sync),
            "async": build(later),
            "local": build(local),
            "edge": build(of_edge),
        }


def check_same(engine: str, hits: list[Hit], others: list[Hit]) -> None:
    """The same hits; the last bits of what Qdrant's local mode says differ from call to call."""
    if engine != "local":
        assert hits == others
        return
    assert [(hit.id, hit.columns) for hit in hits] == [(hit.id, hit.columns) for hit in others]
    for hit, other in zip(hits, others, strict=True):
        assert hit.score == pytest.approx(other.score, abs=1e-6)


def pages(table: Table, query: Any, size: int, **options: Any) -> list[list[Hit]]:
    """Every page up to the first that is empty."""
    found: list[list[Hit]] = []
    after: Any = None
    while page := table.search(query, k=size, after=after, **options):
        found.append(page)
        # Whatever form the place has, it is the same place.
        forms = [page[-1], page[-1].cursor, json.loads(page[-1].cursor)]
        after = forms[len(found) % 3]
    return found


QUERY = np.random.default_rng(8).standard_normal(DIMS)


#: Qdrant's local mode lies below the same engine as Edge and is the slowest by far: it turns no page
#: for every single row.
SIZES = [
    (engine, size)
    for engine in ENGINES
    for size in (1, 4, 7, KEEP)
    if (engine, size) != ("local", 1)
]


@pytest.mark.parametrize(("engine", "size"), SIZES)
@pytest.mark.parametrize("name", ["numbers", "words", "pairs"])
@pytest.mark.parametrize("filter", [None, {"price": {"$gte": 4}}])
def test_pages_are_the_one_big_answer(
    engines: dict[str, dict[str, Table]], engine: str, name: str, size: int, filter: Any
) -> None:
    table = engines[engine][name]
    for funnel, most in ((f"{name}_search", KEEP), (f"{name}_one", ROWS)):
        whole = table.search(QUERY, k=most, filter=filter, funnel=funnel)
        found = pages(table, QUERY, size, filter=filter, funnel=funnel)
        check_same(engine, [hit for page in found for hit in page], whole)
        assert all(len(page) == size for page in found[:-1])
        assert len({hit.id for hit in whole}) == len(whole) > 30


@pytest.mark.parametrize("name", ["numbers", "words", "pairs"])
def test_engines_page_alike(engines: dict[str, dict[str, Table]], name: str) -> None:
    ids = [
        [[hit.id for hit in page] for page in pages(engines[engine][name], QUERY, 4)]
        for engine in ENGINES
    ]
    assert ids[0] and all(each == ids[0] for each in ids)


@pytest.mark.parametrize("engine", ENGINES)
def test_hits_bring_columns_along(engines: dict[str, dict[str, Table]], engine: str) -> None:
    for table in engines[engine].values():
        hits = table.search(QUERY, k=KEEP)
        by_name = {f"n{i}": None if i % 7 == 0 else i / 3 for i in range(ROWS)}
        assert {
            hit.columns["Odd name"]: hit.columns["price"] for hit in hits
        }.items() <= by_name.items()
        assert all(list(hit.columns) == ["Odd name", "price"] for hit in hits)
        assert all(hit.columns == {} for hit in table.search(QUERY, funnel=f"{table.name}_one"))
        assert len(set(hits)) == KEEP  # a hit can still be put into a set


def test_engines_return_alike(engines: dict[str, dict[str, Table]]) -> None:
    for name, table in engines["memory"].items():
        hits = table.search(QUERY, k=KEEP)
        for engine in ENGINES[1:]:
            others = engines[engine][name].search(QUERY, k=KEEP)
            found = [(hit.id, hit.columns) for hit in others]
            assert [(hit.id, hit.columns) for hit in hits] == found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("filter", [None, {"price": {"$gte": 4}}, {"price": -1}])
def test_many_queries_are_as_many_searches(
    engines: dict[str, dict[str, Table]], engine: str, filter: Any
) -> None:
    queries = np.random.default_rng(9).standard_normal((6, DIMS))
    for table in engines[engine].values():
        for k in (1, 10, KEEP):
            each = [table.search(query, k=k, filter=filter) for query in queries]
            many = table.search_many(queries, k=k, filter=filter)
            for hits, others in zip(each, many, strict=True):
                check_same(engine, hits, others)
        assert table.search_many(queries[:0]) == []
        (hits,) = table.search_many(queries[:1].tolist(), funnel=f"{table.name}_one")
        check_same(engine, hits, table.search(queries[0], funnel=f"{table.name}_one"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "after",
    [
        1, "", "x", "null", "[]", "{}", {"score": 1.0}, {"score": "x", "key": [1]}, {"score": float("nan"), "key": [1]},
        {"score": True, "key": [1]}, {"score": 1, "key": []}, {"score": 1, "key": [1, 2]}, {"score": 1, "key": 1},
        {"score": 1, "key": [None]}, {"score": 1, "key": [[1]]}, {"score": 1, "key": ["x"]}, {"score": 1, "key": [1.5]},
        {"score": 1, "key": [1], "k": 1}, {"score": None, "key": [1]},
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(
    engines: dict[str, dict[str, Table]], engine: str, after: Any
) -> None:
    with pytest.raises(fv.errors.InvalidInput, match=r"after|key"):
        engines[engine]["numbers"].search(QUERY, after=after)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("returns", "error"),
    [
        (["nope"], fv.errors.NotFound), (["id"], fv.errors.Conflict), (["price", "price"], fv.errors.Conflict),
        (["score"], fv.errors.FunnelvecError), ("price", fv.errors.InvalidInput), ([1], fv.errors.InvalidInput),
        ([""], fv.errors.InvalidInput),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_returned(
    engines: dict[str, dict[str, Table]], engine: str, returns: Any, error: Any
) -> None:
    table = engines[engine]["numbers"]
    with pytest.raises(error):
        table.create_funnel("more", "8:f32", returns=returns)
    with pytest.raises(fv.errors.NotFound):
        table.search(QUERY, funnel="more")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "queries", ["x", 1, [1.0] * DIMS, [[1.0] * 3], [[float("nan")] * DIMS], None, [[]]]
)
def test_queries_that_cannot_be_asked(
    engines: dict[str, dict[str, Table]], engine: str, queries: Any
) -> None:
    with pytest.raises(fv.errors.InvalidInput, match="queries"):
        engines[engine]["numbers"].search_many(queries)


def test_a_cursor_comes_back_to_the_last_bit() -> None:
    for score in (0.1, 1 / 3, -5e-324, 0.1 + 0.2, 1e22, float("-inf")):
        read = json.loads(fv.Hit(5, score, None).cursor)
        assert float(read["score"]) == score and read["key"] == [5]
