"""Every generated first stage uses its index: for whom, and when, users run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from funnelvec.bench.overhead import MADE_UP, asking
from tests.sql.tables import FUNNELS, fill, search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]


def used_indexes(connection: Connection, call: str, query: str) -> set[str]:
    """Indexes that a search touched, counted by the server itself."""
    counted = (
        "select indexrelname, pg_stat_get_numscans(indexrelid) as scans"
        "  from pg_stat_user_indexes where relname = 'products'"
    )
    with connection.cursor() as cursor:
        cursor.execute("select pg_stat_force_next_flush()")
        before = dict(cursor.execute(counted).fetchall())
        cursor.execute(call, {"query": query})  # type: ignore[arg-type]
        cursor.execute("select pg_stat_force_next_flush()")
        after = dict(cursor.execute(counted).fetchall())
    return {name for name in after if after[name] > before[name]}


def expected_index(funnel: str) -> str:
    first = funnel.split("@")[0].split(" ")[0]
    return {
        "16:f16": "products_embedding_16_f16_idx",
        "32:bit": "products_embedding_32_bit_idx",
        "24:f32": "products_embedding_24_f32_idx",
        "32:f32": "products_embedding_idx",
    }[first]


@pytest.mark.parametrize("name", FUNNELS)
def test_the_function_uses_the_index_in_a_fresh_session(
    products_database: Database, name: str
) -> None:
    query = text(vectors(1, seed=9)[0])
    with psycopg.connect(products_database.owner_url, autocommit=True) as fresh:
        for _ in range(7):  # custom plans first, then the generic one
            used = used_indexes(fresh, f"select * from {name}(%(query)s)", query)
            assert used == {expected_index(FUNNELS[name])}


@pytest.mark.parametrize("name", FUNNELS)
def test_explain_of_the_shown_sql_names_the_index(products: Connection, name: str) -> None:
    shown = products.execute("select funnelvec.search_sql(%s)", (name,)).fetchone()
    assert shown is not None
    products.execute("set enable_seqscan = off")
    products.execute(f"prepare shown(vector, integer) as {shown[0]}")  # type: ignore[arg-type]
    plan = products.execute(
        f"explain execute shown('{text(vectors(1)[0])}', 10)"  # type: ignore[arg-type]
    ).fetchall()
    products.execute("deallocate shown")
    assert any(expected_index(FUNNELS[name]) in line for (line,) in plan)


def test_after_dump_and_restore_by_the_owner(
    products: Connection, products_database: Database, pg_server: Server, new_database: Any
) -> None:
    query = text(vectors(1, seed=4)[0])
    before = {name: search(products, name, query) for name in FUNNELS}
    dump = pg_server.run("pg_dump", "--no-owner", products_database.owner_url)
    restored = new_database("vector")
    script = dump.replace("CREATE EXTENSION IF NOT EXISTS vector", "-- present: vector")
    script = "\n".join(
        line for line in script.splitlines() if not line.startswith("COMMENT ON EXTENSION vector")
    )
    pg_server.run("psql", "-q", "-v", "ON_ERROR_STOP=1", restored.owner_url, stdin=script)
    with psycopg.connect(restored.owner_url, autocommit=True) as fresh:
        for name, funnel in FUNNELS.items():
            used = used_indexes(fresh, f"select * from {name}(%(query)s)", query)
            assert used == {expected_index(funnel)}
            if name != "signs":  # equal Hamming distances come in the order of a rebuilt graph
                assert search(fresh, name, query) == before[name]
        kept = fresh.execute("select count(*) from funnelvec.funnels").fetchone()
        assert kept == (len(FUNNELS),)


def test_a_filter_is_answered_in_full(products: Connection) -> None:
    query = text(vectors(1, seed=5)[0])
    for limit in (1, 3, 40, 1000):
        rows = search(
            products, "two_stages", query, k=50, filter=f'{{"price": {{"$lt": {limit}}}}}'
        )
        assert len(rows) == min(50, limit)
        assert all(row[0] < limit for row in rows)


def test_dead_rows_do_not_shorten_the_answer(products: Connection) -> None:
    # The graph still holds the deleted rows, and they take places in the list that it returns.
    query = vectors(1, seed=6)[0]
    near = products.execute(
        "select id from products order by (embedding <=> %s) + 0 limit 150", (text(query),)
    ).fetchall()
    products.execute("delete from products where id = any(%s)", ([row[0] for row in near],))
    rows = search(products, "two_stages", text(query), k=100)
    truth = products.execute(
        "select id from products order by (embedding <=> %s) + 0 limit 10", (text(query),)
    ).fetchall()
    assert len(rows) == 100
    assert len({row[0] for row in truth} & {row[0] for row in rows[:10]}) >= 9


def test_settings_are_put_back(products: Connection) -> None:
    names = ("hnsw.ef_search", "hnsw.iterative_scan", "enable_seqscan")
    query = text(vectors(1)[0])
    products.execute("begin")
    products.execute("set local hnsw.ef_search = 77")
    products.execute("set local hnsw.iterative_scan = strict_order")
    for call in ("two_stages(%s)", "wide(%s)", """two_stages(%s, filter => '{"price": 5}')"""):
        products.execute(f"select * from {call}", (query,))  # type: ignore[arg-type]
        after = [products.execute(f"show {name}").fetchone() for name in names]
        assert after == [("77",), ("strict_order",), ("on",)]
    products.execute("rollback")
    after = [products.execute(f"show {name}").fetchone() for name in names]
    assert after == [("40",), ("off",), ("on",)]


def test_a_small_table_is_searched_whole(owner_conn: Connection) -> None:
    matrix = vectors(30)
    fill(owner_conn, matrix)
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '8:f16', index => true)"
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '8:f16@200 > 32:f32')"
    )
    notices: list[str] = []
    owner_conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    assert len(search(owner_conn, "f", text(matrix[3]), k=100)) == 30
    assert notices == []  # nothing was missed, so there is nothing to say


def test_a_calibrated_search_is_not_planned_anew_each_time(products: Connection) -> None:
    products.execute(
        "select funnelvec.create_funnel('long', 'products', 'embedding', '16:f16@800 > 32:f32')"
    )
    for name, parameters in [*MADE_UP.items(), ("adapter of the query", asking(products, "long"))]:
        family = name.partition(" ")[0]
        products.execute(
            "select funnelvec._keep_calibration(funnelvec._funnel('long'), %s, %s::jsonb, '', 0, 0, 0)",
            (family, json.dumps(parameters)),
        )
        row = products.execute(
            "select (funnelvec._statement(f, false, '$1', array['$2', '$1'], '$3',"
            " funnelvec._least_sql(f, '$4', '$5'), counted => true, after => array['$6', '$7'],"
            " asked => funnelvec._asked_numbers(f, 8))).* from funnelvec._funnel('long') as f"
        ).fetchone()
        assert row is not None
        types = "vector, halfvec, bigint, float8, float8, float8, bigint, float8, float8"
        products.execute(f"prepare searched({types}) as {row[0]}{row[1]}")  # type: ignore[arg-type]
        query = text(vectors(1)[0])
        for _ in range(8):
            found = products.execute(
                f"execute searched('{query}', subvector('{query}'::vector, 1, 16),"  # type: ignore[arg-type]
                " 10, '-infinity', '-infinity', 'NaN', null, 1, 0)"
            ).fetchall()
            assert len(found) == 10
        # The first five plans know their parameters; after that one serves all searches.
        assert products.execute(
            "select generic_plans from pg_prepared_statements where name = 'searched'"
        ).fetchone() == (3,), name
        products.execute("deallocate searched")
