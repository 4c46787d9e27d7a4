"""Prepared statements, and several clients on one server connection, as transaction pooling has it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest

import funnelvec as fv
from tests import awaited
from tests.sql.tables import search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

QUERIES = [text(row) for row in vectors(12, seed=21)]
SETTINGS = "select name, setting from pg_settings where context = 'user' order by 1"

#: Every way through a search function: indexed, iterating, exact, narrow, without an index, behind a row.
CALLS = [
    "select * from two_stages('{q}')",
    "select * from wide('{q}', 50)",
    """select * from two_stages('{q}', filter => '{{"price": {{"$lt": 20}}}}')""",
    """select * from two_stages('{q}', filter => '{{"price": {{"$gte": 1}}}}')""",
    """select * from base_alone('{q}', after => '{{"score": 0.5, "key": [3]}}')""",
    """select * from two_stages('{q}', after => '{{"score": 0.5, "key": [3]}}')""",
]


def settings(connection: Connection) -> list[Any]:
    return connection.execute(SETTINGS).fetchall()


@pytest.mark.parametrize("reset", [None, "discard all"])
def test_transactions_of_two_clients_on_one_connection(
    products: Connection, reset: str | None
) -> None:
    """PgBouncer in transaction mode gives a server connection to another client after each commit."""
    products.prepare_threshold = None  # the driver's own statements would be gone with a reset
    products.execute("select '[1]'::vector")  # hnsw.* exist from here on
    alone = [products.execute(call.format(q=QUERIES[0])).fetchall() for call in CALLS]  # type: ignore[arg-type]
    bare = settings(products)
    for turn, (call, expected) in enumerate(itertools.islice(itertools.cycle(zip(CALLS, alone, strict=True)), 24)):  # fmt: skip
        with products.transaction():
            assert products.execute(SETTINGS).fetchall() == bare  # nothing of the client before
            if turn % 2:  # this client has settings of its own, for its transaction
                products.execute(
                    "set local hnsw.ef_search = 333; set local hnsw.iterative_scan = strict_order"
                )
                own = settings(products)
            found = products.execute(call.format(q=QUERIES[0])).fetchall()  # type: ignore[arg-type]
            assert len(found) == len(expected)
            assert settings(products) == (own if turn % 2 else bare)
        if reset:
            products.execute(reset)  # type: ignore[arg-type]
            products.execute("select '[1]'::vector")
        assert settings(products) == bare


def test_a_search_that_fails_leaves_no_setting(products: Connection) -> None:
    products.execute(
        "select funnelvec.create_funnel('r', 'products', 'embedding', '16:f16@100 > 32:f32', returns => array['name'])"
    )
    products.execute("alter table products rename name to title")
    with products.transaction():
        before = settings(products)
        for _ in range(3):
            with pytest.raises(psycopg.errors.UndefinedColumn), products.transaction():
                search(products, "r", QUERIES[0])
            assert settings(products) == before
        products.execute(
            f"do $$ begin perform * from r('{QUERIES[0]}'); exception when undefined_column then null; end $$"  # type: ignore[arg-type]
        )
        assert settings(products) == before


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
def test_prepared_by_the_user(products: Connection, mode: str) -> None:
    products.prepare_threshold = None  # after a DROP the driver would deallocate ours too
    products.execute(f"set plan_cache_mode = {mode}")  # type: ignore[arg-type]
    products.execute("prepare p(vector, int, jsonb) as select * from two_stages($1, $2, null, $3)")

    def run(query: str, filter: str | None) -> list[Any]:
        return products.execute(
            f"execute p('{query}', 7, {'null' if filter is None else repr(filter)})"
        ).fetchall()  # type: ignore[arg-type]

    filters = [None, '{"price": {"$lt": 20}}', '{"price": {"$gte": 1}}']
    for query, filter in itertools.product(QUERIES, filters):
        assert run(query, filter) == search(products, "two_stages", query, k=7, filter=filter)
    # The funnel is replaced: what was prepared runs the new one.
    products.execute(
        "select funnelvec.create_funnel('two_stages', 'products', 'embedding', '24:f32@9 > 32:f32', replace => true)"
    )
    for query in QUERIES:
        assert run(query, None) == search(products, "two_stages", query, k=7)
    with pytest.raises(psycopg.Error, match="k is 10"):
        products.execute(f"execute p('{QUERIES[0]}', 10, null)")  # type: ignore[arg-type]
    # An index comes and goes.
    products.execute("drop index products_embedding_24_f32_idx")
    assert [row[0] for row in run(QUERIES[0], None)] == [row[0] for row in search(products, "two_stages", QUERIES[0], k=7)]  # fmt: skip
    # It returns more columns: a prepared `select *` may not change its shape, and Postgres says so.
    products.execute(
        "select funnelvec.create_funnel('two_stages', 'products', 'embedding', '16:f16@50 > 32:f32', replace => true,"
        " returns => array['price'])"
    )
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        run(QUERIES[0], None)
    products.execute("deallocate p")


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("threshold", [None, 0, 1, 5])
def test_whatever_the_driver_prepares(
    products_database: Database, how: str, threshold: int | None
) -> None:
    url = products_database.owner_url
    query = vectors(1, seed=4)[0]
    with (
        awaited.opened(url, how, prepare_threshold=threshold) as engine,
        psycopg.connect(url, autocommit=True) as other,
        fv.connect(url) as second,
    ):
        table, elsewhere = engine.table("products"), second.table("products")
        for filter in (None, {"price": {"$lt": 20}}):
            for _ in range(7):
                hits = table.search(query, filter=filter, funnel="two_stages")
                assert hits == elsewhere.search(query, filter=filter, funnel="two_stages")
                assert table.search_many([query], filter=filter, funnel="two_stages") == [hits]
        with engine.connection() as connection:
            row = connection.execute("select count(*) from pg_prepared_statements").fetchone()
            assert row is not None and (row[0] == 0) == (threshold is None)
        # Somebody else replaces the funnel, and what it returns.
        for returns in ("{name}", "{name,price}", "{}", "{price}"):
            other.execute(
                "select funnelvec.create_funnel('two_stages', 'products', 'embedding', '24:f32@50 > 32:f32',"
                " replace => true, returns => %s::text[])",
                (returns,),
            )
            try:
                found = table.search(query, funnel="two_stages")
            except fv.errors.NotFound:  # a column that this table knew is not returned any more
                found = table.search(query, funnel="two_stages")
            assert [hit.id for hit in found] == [
                row[0] for row in search(other, "two_stages", text(query))
            ]
            assert {*found[0].columns} <= {"name", "price"}


def test_clients_of_a_pooler_without_prepared_statements(products_database: Database) -> None:
    """Two engines on one server connection which is reset after each transaction."""
    query = vectors(1, seed=4)[0]
    with psycopg.connect(
        products_database.owner_url, autocommit=True, prepare_threshold=None
    ) as connection:
        clients = [fv.wrap(connection).table("products") for _ in range(2)]
        expected = clients[0].search(query, funnel="two_stages")
        for turn in range(12):
            client = clients[turn % 2]
            with connection.transaction():
                assert client.search(query, funnel="two_stages") == expected
                page = client.search(query, k=4, funnel="two_stages", filter={"price": {"$gte": 0}})
                assert len(page) == 4
            connection.execute("discard all")


@pytest.mark.parametrize("threshold", [None, 0, 5])
def test_a_pool_of_connections(products_database: Database, threshold: int | None) -> None:
    queries = vectors(20, seed=4)
    with (
        psycopg_pool.ConnectionPool(
            products_database.owner_url, min_size=1, max_size=3, open=True,
            kwargs={"prepare_threshold": threshold, "autocommit": True},
        ) as pool,
        fv.connect(products_database.owner_url) as single,
    ):  # fmt: skip
        table, alone = fv.wrap(pool).table("products"), single.table("products")
        many = table.search_many(queries, funnel="two_stages")
        for query, hits in zip(queries, many, strict=True):
            assert table.search(query, funnel="two_stages") == hits
            assert alone.search(query, funnel="two_stages") == hits
