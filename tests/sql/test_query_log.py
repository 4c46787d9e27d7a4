"""The query log: who may write and read what, that it never gets into a search's way, and what it is for."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from funnelvec.errors import Conflict, InvalidInput, NotFound
from tests import awaited
from tests.databases import OTHER
from tests.sql.tables import search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])
FUNNELS = ("two_stages", "base_alone")  # one whose first stage has an index, one that scans


@pytest.fixture
def other(products: Connection, products_database: Database) -> Iterator[Connection]:
    """A role that may search and nothing else."""
    products.execute(f"grant select on products to {OTHER}")  # type: ignore[arg-type]
    with psycopg.connect(products_database.other_url, autocommit=True) as connection:
        yield connection


def log(connection: Connection, funnel: str = "two_stages", **named: Any) -> None:
    named = {"share": 1, **named}
    arguments = "".join(f", {name} => %({name})s" for name in named)
    connection.execute(
        f"select funnelvec.log_queries(%(_funnel)s{arguments})",  # type: ignore[arg-type]
        {"_funnel": funnel, **named},
    )


def logged(connection: Connection, funnel: str = "two_stages") -> int:
    row = connection.execute(f"select count(*) from {funnel}_log").fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


def refused(connection: Connection, call: str) -> str:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(call)  # type: ignore[arg-type]
    return caught.value.sqlstate or ""


@pytest.mark.parametrize("funnel", FUNNELS)
def test_what_is_logged(products: Connection, funnel: str) -> None:
    before = search(products, funnel, Q, k=7), search(products, funnel, Q, filter='{"id": 5}')
    log(products, funnel)
    products.execute("set lock_timeout = '7s'")
    assert search(products, funnel, Q, k=7) == before[0]
    assert search(products, funnel, Q, filter='{"id": 5}') == before[1]
    assert search(products, funnel, Q, filter='{"id": -5}') == []
    rows = products.execute(
        "select query = %s::vector, k, min_relevance, filter, returned, best_score, role,"
        f"      asked_at between now() - interval '1 minute' and now() from {funnel}_log order by id",  # type: ignore[arg-type]
        (Q,),
    ).fetchall()
    assert rows == [
        (True, 7, None, None, 7, before[0][0][1], None, True),
        (True, 10, None, {"id": 5}, 1, before[1][0][1], None, True),
        (True, 10, None, {"id": -5}, 0, None, None, True),
    ]
    assert products.execute("show lock_timeout").fetchone() == ("7s",)


def test_without_a_log_nothing_is_different(products: Connection) -> None:
    facts = "select prosrc, provolatile, proparallel from pg_proc where proname = 'two_stages'"
    before = products.execute(facts).fetchone()
    log(products)
    during = products.execute(facts).fetchone()
    assert during is not None and before is not None
    assert (during[1:], before[1:]) == (("v", "u"), ("s", "r"))
    products.execute("select funnelvec.stop_logging('two_stages', forget => true)")
    assert products.execute(facts).fetchone() == before
    assert products.execute("select to_regclass('two_stages_log')").fetchone() == (None,)
    assert "_log" not in before[0]


def test_a_share_is_a_share(products: Connection) -> None:
    log(products, share=0.2)
    products.execute("select setseed(0.5)")
    products.execute(
        "select count(*) from generate_series(1, 300) as i cross join lateral two_stages(%s, 1 + 0 * i)",
        (Q,),
    )
    assert 35 <= logged(products) <= 85
    log(products, share=0)
    kept = logged(products)
    search(products, "two_stages", Q)
    assert logged(products) == kept


def test_a_caller_adds_rows_and_reads_none(products: Connection, other: Connection) -> None:
    for funnel in FUNNELS:
        log(products, funnel, roles=funnel == "base_alone")
        assert search(other, funnel, Q) == search(products, funnel, Q)
        assert logged(products, funnel) == 2
        for call in (
            f"select * from {funnel}_log",
            f"update {funnel}_log set k = 1",
            f"delete from {funnel}_log where k > 0",  # which rows they are, he may not ask
            f"truncate {funnel}_log",
            f"insert into {funnel}_log (query, k, returned, asked_at) values ('{Q}', 1, 1, now() - interval '1 year')",
            f"insert into {funnel}_log (id, query, k, returned) overriding system value values (0, '{Q}', 1, 1)",
            f"insert into {funnel}_log (query, k, returned, role) values ('{Q}', 1, 1, 'app_owner')",
            f"insert into {funnel}_log (query, k, returned) values ('{Q}', 1, 1) returning *",
            f"select nextval('{funnel}_log_id_seq')",
            f"select funnelvec.stop_logging('{funnel}')",
            f"select funnelvec.log_queries('{funnel}')",
            f"select funnelvec.trim_query_log('{funnel}')",
        ):
            assert refused(other, call) == "42501", call
        other.execute(f"delete from {funnel}_log")  # type: ignore[arg-type]  # what has expired: nothing
        assert logged(products, funnel) == 2
    # What he can do, and what it says then.
    other.execute(f"insert into base_alone_log (query, k, returned) values ('{Q}', 1, 1)")
    roles = products.execute("select role from base_alone_log order by id").fetchall()
    assert roles == [(OTHER,), ("app_owner",), (OTHER,)]
    assert (
        refused(other, "insert into base_alone_log (query, k, returned) values ('[1,2]', 1, 1)")
        == "22000"
    )


def test_only_who_may_search_may_log(products: Connection, other: Connection) -> None:
    log(products)
    forged = f"insert into two_stages_log (query, k, returned) values ('{Q}', 1, 1)"
    other.execute(forged)  # type: ignore[arg-type]
    products.execute("revoke execute on function two_stages from public")
    assert refused(other, forged) == "42501"
    products.execute(
        f"grant execute on function two_stages to {OTHER}; revoke all on products from {OTHER}"
    )  # type: ignore[arg-type]
    assert refused(other, forged) == "42501"
    products.execute(f"grant select (id, embedding) on products to {OTHER}")  # type: ignore[arg-type]
    other.execute(forged)  # type: ignore[arg-type]
    assert logged(products) == 2


def test_grants_by_default_don_t_open_it(products: Connection, other: Connection) -> None:
    products.execute(f"alter default privileges grant all on tables to {OTHER}, public")  # type: ignore[arg-type]
    log(products)
    search(products, "two_stages", Q)
    assert refused(other, "select * from two_stages_log") == "42501"
    assert refused(other, "update two_stages_log set k = 1") == "42501"
    # A grant that the owner gives later shows nothing either: that takes a policy.
    products.execute(f"grant all on two_stages_log to {OTHER}")  # type: ignore[arg-type]
    assert other.execute("select * from two_stages_log").fetchall() == []
    assert (
        refused(
            other,
            "insert into two_stages_log (query, k, returned, asked_at)"
            f" values ('{Q}', 1, 1, now() - interval '1 year')",
        )
        == "42501"
    )
    products.execute(f"create policy all_of_it on two_stages_log to {OTHER} using (true)")  # type: ignore[arg-type]
    assert len(other.execute("select * from two_stages_log").fetchall()) == 1
    other.execute("delete from two_stages_log")  # the restrictive policy still holds
    assert logged(products) == 1


def test_where_nothing_may_be_written(products: Connection, other: Connection) -> None:
    for funnel in FUNNELS:
        log(products, funnel)
        for begin in ("begin read only", "begin isolation level serializable"):
            for connection in (products, other):
                connection.execute(begin)  # type: ignore[arg-type]
                assert len(search(connection, funnel, Q)) == 10
                connection.execute("commit")
        products.execute("set funnelvec.logging = off")
        search(products, funnel, Q)
        products.execute("reset funnelvec.logging")
        products.execute("begin")
        search(products, funnel, Q)
        products.execute("rollback")  # what the application takes back, it did not ask
        assert logged(products, funnel) == 0


def test_a_search_never_fails_for_its_log(
    products: Connection, other: Connection, products_database: Database
) -> None:
    for funnel in FUNNELS:
        log(products, funnel)
        truth = search(other, funnel, Q)
        products.execute(f"revoke insert on {funnel}_log from public")  # type: ignore[arg-type]
        assert search(other, funnel, Q) == truth
        products.execute(f"alter table {funnel}_log add check (k < 10) not valid")  # type: ignore[arg-type]
        assert refused(
            products, f"insert into {funnel}_log (query, k, returned) values ('{Q}', 99, 1)"
        )
        assert search(products, funnel, Q, k=20) == search(products, funnel, Q, k=20)
        # Somebody rebuilds the log: a search does not wait for him.
        with psycopg.connect(products_database.owner_url) as holder:
            holder.execute(f"lock table {funnel}_log in access exclusive mode")  # type: ignore[arg-type]
            assert search(products, funnel, Q) == truth
            assert products.execute("show lock_timeout").fetchone() == ("0",)
        products.execute(f"drop table {funnel}_log")  # type: ignore[arg-type]
        assert search(other, funnel, Q) == truth
        (problem,) = products.execute(
            "select object, advice from funnelvec.status() where resolution is null"
        ).fetchall()
        assert problem[0] == f"table public.{funnel}_log"
        products.execute(problem[1].partition(": ")[2])  # type: ignore[arg-type]
        assert search(other, funnel, Q) == truth
        assert products.execute("select * from funnelvec._problems()").fetchall() == []


def test_old_rows_expire(products: Connection, other: Connection) -> None:
    log(products, keep_for="2 hours")
    for _ in range(6):
        search(products, "two_stages", Q)
    products.execute(
        "update two_stages_log set asked_at = asked_at - interval '3 hours' where id % 2 = 0"
    )
    other.execute("delete from two_stages_log")
    assert products.execute("select array_agg(id order by id) from two_stages_log").fetchone() == (
        [1, 3, 5],
    )
    products.execute(
        "update two_stages_log set asked_at = asked_at - interval '3 hours' where id = 1"
    )
    assert products.execute("select funnelvec.trim_query_log()").fetchone() == (1,)
    products.execute("select funnelvec.stop_logging('two_stages')")
    products.execute("update two_stages_log set asked_at = asked_at - interval '3 hours'")
    assert products.execute("select funnelvec.trim_query_log('two_stages')").fetchone() == (2,)


@pytest.mark.parametrize("who", ["owner", "caller"])
def test_the_log_does_not_grow_beyond_its_rows(
    products: Connection, other: Connection, who: str
) -> None:
    """Searches themselves remove what is too much, in about one of 200 that log."""
    log(products, max_rows=5)
    connection = products if who == "owner" else other
    connection.execute("select setseed(0.1)")
    connection.execute(
        "select count(*) from generate_series(1, 1500) as i cross join lateral two_stages(%s, 1 + 0 * i)",
        (Q,),
    )
    assert 5 <= logged(products) < 1500
    products.execute("select funnelvec.trim_query_log()")
    assert products.execute("select min(id), max(id), count(*) from two_stages_log").fetchone() == (
        1496,
        1500,
        5,
    )


def test_measuring_uses_the_log_and_does_not_fill_it(products: Connection) -> None:
    log(products)
    for query in vectors(12, seed=5):
        search(products, "two_stages", text(query))
    products.execute(
        "insert into two_stages_log (query, k, returned) values (array_fill(0, array[32])::vector, 1, 1)"
    )
    row = products.execute(
        "select queries, recall from funnelvec.measure_recall('two_stages', queries_from => 'two_stages_log')"
    ).fetchone()
    assert row is not None and row[0] == 12 and row[1] > 0.8
    assert logged(products) == 13
    search(products, "two_stages", Q)  # and after it searches are logged again
    assert logged(products) == 14
    products.execute("select * from funnelvec.explain('two_stages', %s)", (Q,))
    assert logged(products) == 14


def test_it_survives_replacing_renaming_and_repair(products: Connection, other: Connection) -> None:
    log(products, keep_for="5 days", max_rows=77, roles=True)
    settings = "select logging from funnelvec.funnels where name = 'two_stages'"
    before = products.execute(settings).fetchone()
    products.execute(
        "select funnelvec.create_funnel('two_stages', 'products', 'embedding', '16:f16@50 > 32:f32', replace => true)"
    )
    search(other, "two_stages", Q)
    products.execute("alter table products rename to goods")
    products.execute("alter table goods add column extra integer")
    products.execute("select * from funnelvec.repair()")
    search(other, "two_stages", Q)
    assert logged(products) == 2  # the policies name the table by its new name
    products.execute("drop function two_stages")
    products.execute("select * from funnelvec.repair()")
    search(other, "two_stages", Q)
    # Without the registry, as after a restore of one schema.
    products.execute("delete from funnelvec.funnels where name = 'two_stages'")
    products.execute("select * from funnelvec.repair()")
    search(other, "two_stages", Q)
    assert logged(products) == 4
    assert products.execute(settings).fetchone() == before
    assert products.execute("select * from funnelvec._problems()").fetchall() == []


def test_refusals(products: Connection) -> None:
    for named in (
        {"share": 1.5}, {"share": None}, {"share": "NaN"}, {"keep_for": "0"}, {"keep_for": None},
        {"keep_for": "1000 years"}, {"max_rows": 0}, {"max_rows": None}, {"keep_for": "-1 day"},
    ):  # fmt: skip
        with pytest.raises(psycopg.Error) as caught:
            log(products, **named)
        assert caught.value.sqlstate == "FV004", named
    products.execute("create table two_stages_log (mine text)")
    with pytest.raises(psycopg.Error) as caught:
        log(products)
    assert caught.value.sqlstate == "FV008"
    assert products.execute(
        "select count(*) from funnelvec.funnels where logging is not null"
    ).fetchone() == (0,)
    for wrong in (
        '{"share": 1}',
        '{"share": "x", "table": "t"}',
        "7",
        '{"table": "a", "share": 2, "keep_seconds": 9, "max_rows": 9, "roles": false}',
    ):
        products.execute("update funnelvec.funnels set logging = %s where name = 'signs'", (wrong,))
        with pytest.raises(psycopg.Error) as caught:
            products.execute("select funnelvec.stop_logging('signs')")
        assert caught.value.sqlstate == "FV004"
        assert (
            products.execute("select count(*) from funnelvec.status('products')").fetchone()
            is not None
        )
        products.execute("update funnelvec.funnels set logging = null where name = 'signs'")


@pytest.mark.parametrize("how", ["sync", "async"])
def test_python(owner_url: str, how: str) -> None:
    with awaited.opened(owner_url, how) as engine:
        table = engine.create("products", dims=8, dtype="f16")
        table.add(range(50), vectors(50, dims=8))
        table.add_resolution("4:f16")
        table.create_funnel("products_search", "4:f16@20 > 8:f16")
        with pytest.raises(NotFound):
            table.logged_queries()
        table.log_queries(share=1, keep_for=datetime.timedelta(hours=3), max_rows=10)
        assert table.logged_queries().shape == (0, 8)
        asked = vectors(5, dims=8, seed=2)
        for query in asked:
            table.search(query, k=3)
        found = table.logged_queries(3)
        assert found.dtype == np.float32
        assert (found == asked[:1:-1].astype(np.float16)).all()
        report = table.measure_recall(queries=table.logged_queries(), k=5)
        assert report.queries == 5
        assert len(table.logged_queries()) == 5
        table.stop_logging()
        table.search(asked[0])
        assert len(table.logged_queries()) == 5
        table.stop_logging(forget=True)
        with pytest.raises(NotFound):
            table.logged_queries()
        for wrong in ({"share": 2}, {"share": "x"}, {"keep_for": 30}, {"max_rows": 0}, {"roles": 1},
                      {"keep_for": datetime.timedelta(0)}):  # fmt: skip
            with pytest.raises(InvalidInput):
                table.log_queries(**wrong)  # type: ignore[arg-type]
        engine.create("products_search_log", dims=8)
        with pytest.raises(Conflict):
            table.log_queries()
