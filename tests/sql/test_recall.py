"""measure_recall: intervals, given queries, filters, duplicates; SQL and both engines agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from funnelvec.engines.recall import bootstrap_interval
from funnelvec.errors import InvalidInput
from tests import awaited
from tests.databases import OTHER
from tests.sql.tables import fill, text, vectors

if TYPE_CHECKING:
    import numpy.typing as npt

    Connection = psycopg.Connection[Any]
    Database = Any


def measured(connection: Connection, funnel: str, **named: Any) -> list[dict[str, Any]]:
    arguments = "".join(f", {name} => %({name})s" for name in named)
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    cursor.execute(
        f"select * from funnelvec.measure_recall(%(_funnel)s{arguments})",  # type: ignore[arg-type]
        {"_funnel": funnel, **named},
    )
    return cursor.fetchall()


def exact(matrix: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    found: npt.NDArray[Any] = unit @ (query / np.linalg.norm(query))
    return found


@pytest.mark.parametrize("seed", [0, 7, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("n", [1, 2, 37, 200])
def test_the_interval_is_that_of_numpy(owner_conn: Connection, n: int, seed: int) -> None:
    shares = np.round(np.random.default_rng(n).beta(5, 1, n), 1)
    row = owner_conn.execute(
        "select low, high from funnelvec._bootstrap(%s::double precision[], %s)",
        (shares.tolist(), seed),
    ).fetchone()
    assert row == pytest.approx(bootstrap_interval(shares, seed=seed), abs=1e-12)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        low, high = bootstrap_interval(rng.binomial(10, 0.9, 100) / 10, seed=seed)
        held += low <= 0.9 <= high
    assert 0.91 <= held / 400 <= 0.98


def test_draws_are_even() -> None:
    """Every query is drawn as often as every other: the mean of resampled means is the mean."""
    for place in (0, 50, 99):
        one = np.zeros(100)
        one[place] = 1
        low, high = bootstrap_interval(one, seed=3)
        assert (low, high) == (0.0, pytest.approx(0.03, abs=0.0051))


def test_columns_and_limits(products: Connection) -> None:
    rows = measured(products, "three_stages", sample=40)
    assert list(rows[0]) == [
        "stage", "resolution", "keep", "recall", "low", "high", "queries", "funnel_ms", "exact_ms",
    ]  # fmt: skip
    assert [row["resolution"] for row in rows] == ["16:f16", "32:bit", "32:f32"]
    for row in rows:
        assert 0 <= row["low"] <= row["recall"] <= row["high"] <= 1
    assert rows[1]["low"] < rows[1]["recall"] < rows[1]["high"]  # an interval that says something
    again = measured(products, "three_stages", sample=40)
    assert [(r["recall"], r["low"], r["high"]) for r in again] == [
        (r["recall"], r["low"], r["high"]) for r in rows
    ]


def test_given_queries(owner_conn: Connection) -> None:
    matrix, asked = vectors(500, seed=1), vectors(40, seed=2)
    fill(owner_conn, matrix)
    owner_conn.execute("select funnelvec.add_resolution('products', 'embedding', '4:f16')")
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '4:f16@20 > 32:f32')"
    )
    owner_conn.execute("create table asked (query vector, note text)")
    with owner_conn.cursor() as cursor:
        cursor.executemany(
            "insert into asked values (%s)", [(text(each),) for each in (*asked, asked[0] * 0)]
        )
    owner_conn.execute(
        "insert into asked values (null), ('[1,2]'), (('[0,0,0,0' || repeat(',1', 28) || ']')::vector)"
    )
    shares = []
    for query in asked:
        truth = np.argsort(-exact(matrix, query))[:20]
        kept = np.argsort(-exact(matrix[:, :4], query[:4]))[:20]
        shares.append(np.isin(truth, kept).mean())
    # k is all that the funnel keeps: nothing is left out, so no place is needed for it.
    rows = measured(owner_conn, "f", k=20, queries_from="asked")
    assert rows[-1]["queries"] == 40  # those that can't be asked are passed over
    assert rows[0]["recall"] == rows[1]["recall"] == pytest.approx(np.mean(shares), abs=0.004)
    assert rows[-1]["low"] < np.mean(shares) < rows[-1]["high"]
    few = measured(owner_conn, "f", sample=5, queries_from="asked")
    assert few[0]["queries"] == 5
    owner_conn.execute("create view several as select query::halfvec as query from asked limit 10")
    assert measured(owner_conn, "f", queries_from="several")[0]["queries"] == 10


def test_refusals(products: Connection) -> None:
    products.execute("create table asked (query vector, note text)")
    products.execute("create table wrong (query text)")
    for named, state in (
        ({"queries_from": "asked"}, "FV004"),  # empty
        ({"queries_from": "wrong"}, "FV005"),
        ({"queries_from": "products"}, "FV005"),
        ({"filter": '{"price": {"$lt": -1}}'}, "FV004"),
        ({"filter": '{"no": 1}'}, "FV003"),
        ({"k": 100}, "FV004"),
        ({"seed": None}, "FV004"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            measured(products, "two_stages", **named)
        assert caught.value.sqlstate == state, named
    assert products.execute("show enable_seqscan").fetchone() == ("on",)


def test_under_a_filter(products: Connection) -> None:
    """Both searches have it: what is narrow is searched exactly, so nothing is lost."""
    narrow = measured(products, "three_stages", sample=20, filter='{"price": {"$lt": 40}}')
    assert [row["recall"] for row in narrow] == [1, 1, 1]
    # Only the row itself matches its own filter here, so the other queries have one neighbour each.
    single = measured(products, "two_stages", sample=20, filter='{"price": {"$eq": 7}}')
    assert (single[-1]["recall"], single[-1]["queries"]) in [(1, 20), (1, 19)]


@pytest.fixture
def duplicated(owner_conn: Connection) -> npt.NDArray[np.float32]:
    """Twenty vectors, thirty times each: a row has more duplicates than a funnel keeps."""
    matrix = np.tile(vectors(20), (30, 1))
    fill(owner_conn, matrix)
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true)"
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('products_search', 'products', 'embedding', '16:f16@20 > 32:f32')"
    )
    return matrix


def test_duplicates_of_the_query_row(
    owner_conn: Connection, owner_url: str, duplicated: npt.NDArray[np.float32]
) -> None:
    """Nine of 29 rows as near as can be are all that one can ask for, whichever they are."""
    rows = measured(owner_conn, "products_search", sample=60, k=9)
    assert [row["recall"] for row in rows] == [1, 1]


@pytest.mark.parametrize("how", ["memory", "sync", "async"])
def test_the_engines(owner_conn: Connection, owner_url: str, how: str) -> None:
    matrix, asked = vectors(300, seed=1), vectors(30, seed=2)
    prices = [float(i % 10) for i in range(300)]
    with awaited.opened(
        "memory:" if how == "memory" else owner_url, "sync" if how == "memory" else how
    ) as engine:
        table = engine.create("products", dims=32, columns={"price": "number"})
        table.add(range(300), matrix, columns={"price": prices})
        table.add_resolution("6:f16")
        table.create_funnel("products_search", "6:f16@25 > 32:f32")
        for options in ({"queries": asked}, {"queries": asked, "filter": {"price": {"$lt": 5}}}):
            keep = [i for i in range(300) if "filter" not in options or prices[i] < 5]
            shares = []
            for query in asked:
                truth = np.argsort(-exact(matrix[keep], query))[:10]
                kept = np.argsort(-exact(matrix[keep][:, :6], query[:6]))[:25]
                shares.append(np.isin(truth, kept).mean())
            report = table.measure_recall(**options)  # type: ignore[arg-type]
            assert report.queries == 30
            assert report.recall == pytest.approx(np.mean(shares), abs=0.004)
            assert report.low < report.recall < report.high
            assert report.stages[0].recall == report.recall
        assert table.measure_recall(queries=asked, sample=7).queries == 7
        assert (
            table.measure_recall(queries=asked[0] * 0 + np.eye(32, dtype=np.float32), k=25).queries
            == 6
        )
        assert table.measure_recall(sample=12, filter={"price": {"$eq": 3}}).queries == 12
        for refused in (asked[0], asked[:0], asked[:, :4], np.full((1, 32), np.nan), "x", [[1]]):
            with pytest.raises(InvalidInput):
                table.measure_recall(queries=refused)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            table.measure_recall(queries=asked, k=26)
        with pytest.raises(InvalidInput):
            table.measure_recall(filter={"price": {"$gt": 50}})
        with pytest.raises(InvalidInput):  # zero at the first stage, every one
            table.measure_recall(queries=np.eye(32, dtype=np.float32)[10:])


def test_a_reader_measures_with_queries_of_his_own(
    products: Connection, products_database: Database
) -> None:
    products.execute(f"grant select on products to {OTHER}")  # type: ignore[arg-type]
    with awaited.opened(products_database.other_url, "sync") as engine:
        report = engine.table("products").measure_recall(
            queries=vectors(5, seed=4), funnel="two_stages"
        )
    assert report.queries == 5 and report.recall > 0.8
