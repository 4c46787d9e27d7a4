"""The Python engine on Postgres: ways in, transactions, loading, and what users do wrong."""

from __future__ import annotations

import datetime
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import psycopg_pool
import pytest

import funnelvec as fv
from funnelvec import errors
from tests import awaited
from tests.sql.tables import DIMS, vectors

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine, Table
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

Q = vectors(1, seed=3)[0]


@pytest.fixture(params=["sync", "async"])
def engine(request: pytest.FixtureRequest, owner_url: str) -> Iterator[Engine]:
    with awaited.opened(owner_url, request.param) as opened:
        yield opened


@pytest.fixture
def docs(engine: Engine) -> Table:
    table = engine.create("docs", dims=DIMS, columns={"price": "number", "name": "text"})
    table.add(
        range(300),
        vectors(300),
        columns={"price": [float(i) for i in range(300)], "name": [None] * 300},
    )
    table.add_resolution("16:f16", index=True)
    table.create_funnel("docs_search", "16:f16@100 > 32:f32")
    return table


def test_the_first_screen(docs: Table) -> None:
    hits = docs.search(Q, k=3, filter={"price": {"$lt": 50}})
    assert len(hits) == 3
    assert all(hit.id < 50 and hit.relevance is None for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    explained = docs.explain(Q, k=3)
    assert [(s.rows_in, s.rows_out) for s in explained.stages] == [(300, 100), (100, 3)]
    assert "docs_embedding_16_f16_idx" in str(explained)
    report = docs.measure_recall(sample=20)
    assert 0.9 <= report.recall <= 1 and report.queries == 20
    status = docs.status()
    assert [(s.resolution, s.rows, s.coverage) for s in status] == [("16:f16", 300, 1.0)]


def test_calibrate(docs: Table) -> None:
    rng = np.random.default_rng(0)
    queries, ids, labels = [], [], []
    for query in vectors(20, seed=8):
        for hit in docs.search(query, k=15):
            queries.append(query)
            ids.append(hit.id)
            labels.append(rng.random() < hit.score)
    fitted = docs.calibrate(fv.Judgments(np.array(queries), ids, np.array(labels)))
    hits = docs.search(Q, k=20)
    assert [hit.relevance for hit in hits] == pytest.approx(
        fitted.apply(None, [hit.score for hit in hits])
    )
    kept = docs.search(Q, k=20, min_relevance=hits[4].relevance - 1e-9)
    assert kept == hits[:5]


@pytest.mark.parametrize("pool", [False, True])
def test_wrap_leaves_what_it_borrowed_open(docs: Table, owner_url: str, pool: bool) -> None:
    if pool:
        with psycopg_pool.ConnectionPool(owner_url, min_size=1, max_size=2) as borrowed:
            with fv.wrap(borrowed) as engine:
                assert engine.table("docs").search(Q) == docs.search(Q)
            with borrowed.connection() as connection:
                assert connection.execute("select 1").fetchone() == (1,)
    else:
        with psycopg.connect(owner_url) as connection:
            with fv.wrap(connection) as engine:
                assert engine.table("docs").search(Q) == docs.search(Q)
            assert connection.execute("select 1").fetchone() == (1,)


def test_work_stays_in_the_transaction_of_the_application(docs: Table, owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        table = fv.wrap(connection).table("docs")
        connection.execute("select 1")  # a transaction is open from here on
        table.add([1000], vectors(1))
        with pytest.raises(errors.Conflict, match="1000"):
            table.add([1000], vectors(1))
        assert len(table) == 301  # the refused call did not break the transaction
        table.add_resolution("8:f16")
        connection.rollback()
        assert len(table) == 300
    assert len(docs.status()) == 1


def test_our_parameters_leave_the_application_alone(docs: Table, owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as connection:
        fv.wrap(connection).table("docs").search(Q)
        row = connection.execute("select embedding from docs limit 1").fetchone()
        assert row is not None and isinstance(row[0], str)


def test_add_is_all_or_nothing(docs: Table) -> None:
    with pytest.raises(errors.Conflict, match="5"):
        docs.add([*range(300, 400), 5], vectors(101))
    assert len(docs) == 300


@pytest.mark.parametrize(
    ("kind", "key", "type"),
    [
        ("integer", 2**62, "bigint"),
        ("text", "Ünï", "text"),
        ("uuid", uuid.UUID(int=7), "uuid"),
        ("date", datetime.date(2024, 2, 29), "date"),
        ("timestamp", datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc), "timestamptz"),
        ("number", 0.1, "double precision"),
        ("integer", 7, "smallint"),
        ("integer", 7, "integer"),
        ("text", "x", "varchar(5)"),
        ("number", Decimal("1.5"), "numeric"),
        ("number", Decimal(2**53 + 1), "numeric"),
        ("number", Decimal("0.12345678901234567890"), "numeric(30, 20)"),
    ],
)
def test_keys_of_any_type(engine: Any, kind: str, key: Any, type: str) -> None:
    with engine.connection() as connection:
        connection.execute(f"create table keyed (k1 {type} primary key, embedding vector(4))")
    table = engine.table("keyed")
    table.add([key], [[1, 2, 3, 4]])
    table.create_funnel("keyed_search", "4:f32")
    assert [hit.id for hit in table.search([1, 2, 3, 4])] == [key]


def test_digits_beyond_a_double_are_kept_where_the_column_keeps_them(engine: Any) -> None:
    with engine.connection() as connection:
        connection.execute(
            "create table exact (n numeric primary key, embedding vector(4), price numeric, r float8)"
        )
    table = engine.table("exact")
    keys = [2**53, 2**53 + 1, Decimal(2**53 + 2), 0.1]
    prices = [2**70 + 1, Decimal("0.1000000000000000000001"), 0.1, None]
    table.add(keys, np.eye(4), columns={"price": prices, "r": [1, 0.1, Decimal("0.1"), 2**53 + 1]})
    table.create_funnel("exact_search", "4:f32")
    assert sorted(hit.id for hit in table.search([1, 0, 0, 0])) == [Decimal("0.1"), *keys[:3]]
    with engine.connection() as connection:
        found = connection.execute("select price::text, r from exact order by n desc")
        assert found.fetchall() == [
            ("0.1", 0.1), ("0.1000000000000000000001", 0.1), (str(2**70 + 1), 1), (None, 2.0**53)
        ]  # fmt: skip
    with pytest.raises(errors.Conflict, match=str(2**53 + 1)):
        table.add([2**53 + 1], [[1, 2, 3, 4]])
    with pytest.raises(errors.InvalidInput, match="occurs more than once"):
        table.add([0.5, Decimal("0.5")], np.eye(4)[:2])
    with pytest.raises(errors.InvalidInput, match="NaN"):
        table.add([float("nan")], [[1, 2, 3, 4]])


def test_names_are_found_as_written_and_as_sql(engine: Any) -> None:
    with engine.connection() as connection:
        connection.execute("create schema shop")
    for name in ("Mixed Case", "shop.products", "select"):
        table = engine.create(name, dims=4)
        table.add([1], [[1, 2, 3, 4]])
        table.create_funnel(table.name + "_search", "4:f32")
        assert engine.table(name).search([1, 2, 3, 4])[0].id == 1
    assert engine.table('"Mixed Case"').name == "Mixed Case"
    assert engine.table("shop.products").schema == "shop"


def test_wrong_ways_in(owner_url: str, new_database: Callable[..., Database]) -> None:
    with pytest.raises(errors.Unreachable, match="cannot use the server"):
        fv.connect("postgresql://localhost:1/x?connect_timeout=2")
    with pytest.raises(errors.Unreachable, match="nowhere"):
        fv.connect(owner_url.replace("/fv_", "/nowhere_"))
    bare = new_database("vector")
    with pytest.raises(errors.InstallError, match="funnelvec install"):
        fv.connect(bare.owner_url)
    with psycopg.connect(bare.owner_url) as connection:
        with pytest.raises(errors.InstallError, match="funnelvec install"):
            fv.wrap(connection)
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(errors.InvalidInput, match="wrap takes"):
        fv.wrap(3)


def test_wrong_tables(engine: Any) -> None:
    with pytest.raises(errors.NotFound, match="nowhere"):
        engine.table("nowhere")
    for hostile in ("x; drop table docs", "a b c", "'", '"', "x\x00y", "", "a..b", "1", "n" * 64):
        with pytest.raises((errors.NotFound, errors.InvalidInput)):
            engine.table(hostile)
    with engine.connection() as connection:
        connection.execute("create table plain (id bigint primary key)")
        connection.execute("create table two (id bigint primary key, a vector(3), b vector(3))")
        connection.execute("create table keyless (a vector(3))")
        connection.execute("create view seen as select * from two")
    with pytest.raises(errors.NotFound, match="no column of type vector"):
        engine.table("plain")
    with pytest.raises(errors.InvalidInput, match=r"a, b"):
        engine.table("two")
    with pytest.raises(errors.NotFound, match="key"):
        engine.table("keyless")
    with pytest.raises(errors.CapabilityError, match="view"):
        engine.table("seen", vector="a")
    assert engine.table("two", vector="b").vector == "b"


def test_wrong_arguments(docs: Table) -> None:
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (errors.InvalidInput, "31 dimensions", lambda: docs.search(Q[:31])),
        (errors.InvalidInput, "nan", lambda: docs.search(np.full(DIMS, np.nan))),
        (errors.InvalidInput, "inf", lambda: docs.search(np.full(DIMS, np.inf))),
        (errors.InvalidInput, "zero", lambda: docs.search(np.zeros(DIMS))),
        (errors.InvalidInput, "k", lambda: docs.search(Q, k=0)),
        (errors.InvalidInput, "101", lambda: docs.search(Q, k=101)),
        (errors.NotCalibrated, "calibrat", lambda: docs.search(Q, min_relevance=0.5)),
        (errors.InvalidInput, "1.5", lambda: docs.search(Q, min_relevance=1.5)),
        (errors.FilterError, "nope", lambda: docs.search(Q, filter={"nope": 1})),
        (errors.FilterError, "price", lambda: docs.search(Q, filter={"price": "x"})),
        (errors.NotFound, "docs_search", lambda: docs.search(Q, funnel="other")),
        (errors.NotFound, "docs_search", lambda: docs.drop_funnel("other")),
        (errors.SpecError, "int4", lambda: docs.add_resolution("16:int4")),
        (errors.SpecError, "64:f16", lambda: docs.add_resolution("64:f16")),
        (
            errors.SpecError,
            "more rows",
            lambda: docs.create_funnel("f", "16:f16@5 > 8:f16@6 > 32:f32"),
        ),
        (errors.SpecError, "approximate", lambda: docs.create_funnel("f", "16:f16")),
        (errors.NotFound, "8:f16", lambda: docs.create_funnel("f", "8:f16@50 > 32:f32")),
        (errors.Conflict, "replace", lambda: docs.create_funnel("docs_search", "32:f32")),
        (errors.Conflict, "docs_search", lambda: docs.drop_resolution("16:f16")),
        (errors.InvalidInput, "nan", lambda: docs.add([999], np.full((1, DIMS), np.nan))),
        (errors.InvalidInput, "zero", lambda: docs.add([999], np.zeros((1, DIMS)))),
        (errors.InvalidInput, "31", lambda: docs.add([999], vectors(1)[:, :31])),
        (errors.InvalidInput, "more than once", lambda: docs.add([9, 9], vectors(2))),
        (
            errors.NotFound,
            "colour",
            lambda: docs.add([999], vectors(1), columns={"colour": ["red"]}),
        ),
        (
            errors.InvalidInput,
            "price",
            lambda: docs.add([999], vectors(1), columns={"price": ["red"]}),
        ),
        (
            errors.CalibrationError,
            "10 relevant",
            lambda: docs.calibrate(fv.Judgments(vectors(1), [1], np.array([True]))),
        ),
    ]
    for kind, said, call in wrong:
        with pytest.raises(kind) as caught:
            call()
        assert said in str(caught.value), (said, str(caught.value))
    assert len(docs) == 300
    assert [s.resolution for s in docs.status()] == ["16:f16"]


def test_an_empty_table(engine: Engine) -> None:
    table = engine.create("bare", dims=4)
    table.create_funnel("bare_search", "4:f32")
    assert table.search([1, 2, 3, 4]) == []
    with pytest.raises(errors.InvalidInput, match="two rows"):
        table.measure_recall()


@pytest.mark.parametrize("module", ["psycopg", "pgvector", "numpy"])
def test_a_missing_extra_is_one_clear_error(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import funnelvec as fv\n"
        "try: fv.connect('postgresql:///x')\n"
        "except fv.errors.MissingDependency as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert module in done.stdout
    assert "funnelvec[postgres]" in done.stdout
