"""What a search function returns and where it goes on: `returns`, `after`, and many queries in one statement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.tables import fill, search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])

MANY = """
    select q.number, s.id
    from unnest(%s::vector[]) with ordinality as q (query, number)
    cross join lateral two_stages(q.query, k => 5) with ordinality as s
    order by q.number, s.ordinality
"""


def returning(connection: Connection, returns: str, funnel: str = "16:f16@100 > 32:f32") -> None:
    connection.execute(
        "select funnelvec.create_funnel('r', 'products', 'embedding', %s, returns => %s::text[], replace => true)",
        (funnel, returns),
    )


@pytest.mark.parametrize(
    "funnel",
    ["16:f16@100 > 32:f32", "16:f16@200 > 32:bit@100 > 32:f32", "32:f32", "24:f32@50 > 32:f32"],
)
@pytest.mark.parametrize("filter", [None, '{"price": {"$lt": 30}}', '{"price": {"$gte": 1}}'])
def test_columns_come_with_the_key(products: Connection, funnel: str, filter: str | None) -> None:
    returning(products, "{name,price}", funnel)
    products.execute(
        "select funnelvec.create_funnel('bare', 'products', 'embedding', %s)", (funnel,)
    )
    for _ in range(7):  # custom plans first, then the generic one
        rows = search(products, "r", Q, k=20, filter=filter)
        assert [(id, f"n{id}", float(id), score, relevance) for id, score, relevance in search(
            products, "bare", Q, k=20, filter=filter
        )] == rows  # fmt: skip
        assert len(rows) == 20
    cursor = products.execute(f"select * from r('{Q}')")  # type: ignore[arg-type]
    assert cursor.description is not None
    assert [column.name for column in cursor.description] == ["id", "name", "price", "score", "relevance"]  # fmt: skip


def test_names_and_types_are_those_of_the_table(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(50))
    owner_conn.execute(
        """
        create type mood as enum ('ok', 'bad');
        alter table products add "Odd ""name"" %s" varchar(7) default 'x', add moods mood[] default '{ok,bad}',
            add "text" text default 't', add "limit" numeric(9, 3) default 1.5, add meta jsonb default '{"a": 1}'
        """
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('r', 'products', 'embedding', '32:f32', returns => %s)",
        (['Odd "name" %s', "moods", "text", "limit", "meta", "embedding"],),
    )
    row = owner_conn.execute(
        f'select "Odd ""name"" %s", moods::text, text, "limit", meta, embedding = \'{Q}\' from r(\'{Q}\', 1)'  # type: ignore[arg-type]
    ).fetchone()
    assert row is not None and row[:5] == ("x", "{ok,bad}", "t", row[3], {"a": 1})
    assert str(row[3]) == "1.500"
    shape = owner_conn.execute("select pg_get_function_result('r'::regproc)").fetchone()
    assert shape is not None and "moods mood[]" in shape[0] and '"limit" numeric' in shape[0]


@pytest.mark.parametrize(
    ("returns", "state"),
    [
        ("{id}", "FV008"), ("{score}", "FV008"), ("{relevance}", "FV008"), ("{query}", "FV008"), ("{k}", "FV008"),
        ("{after}", "FV008"), ("{_fv_x}", "FV008"), ("{price,price}", "FV008"), ("{no}", "FV005"), ("{xmin}", "FV005"),
        ("{NULL}", "FV004"), ("{{price},{name}}", "FV004"),
    ],
)  # fmt: skip
def test_refused(products: Connection, returns: str, state: str) -> None:
    products.execute("alter table products add score int, add relevance int, add query int, add k int, add _fv_x int, add after int")  # fmt: skip
    with pytest.raises(psycopg.Error) as caught:
        returning(products, returns)
    assert caught.value.sqlstate == state
    kept = products.execute("select count(*) from funnelvec.funnels where name = 'r'").fetchone()
    assert kept == (0,)


def test_replacing_changes_what_is_returned_and_keeps_grants(products: Connection) -> None:
    returning(products, "{price}")
    products.execute(
        "revoke execute on function r from public; grant execute on function r to app_other"
    )
    grants = products.execute("select proacl::text from pg_proc where proname = 'r'").fetchone()
    for returns, width in (("{price,name}", 5), ("{}", 3), ("{embedding}", 4)):
        returning(products, returns)
        assert {len(row) for row in search(products, "r", Q)} == {width}
        assert (
            products.execute("select proacl::text from pg_proc where proname = 'r'").fetchone()
            == grants
        )


def test_a_renamed_column_is_named_by_status_and_never_swapped(products: Connection) -> None:
    returning(products, "{name,price}")
    products.execute("alter table products rename name to title")
    advice = products.execute(
        "select advice from funnelvec.status() where advice like %s", ("%returns the column%",)
    ).fetchall()
    assert len(advice) == 1 and "'name'" in advice[0][0]
    with pytest.raises(psycopg.errors.UndefinedColumn):
        search(products, "r", Q)
    returning(products, "{title,price}")
    assert search(products, "r", Q)[0][1].startswith("n")
    products.execute("alter table products alter price type numeric")
    products.execute("select * from funnelvec.repair()")
    assert str(search(products, "r", Q)[0][2]).isdigit()


def test_a_lost_registry_and_a_restore_keep_it(
    products: Connection, products_database: Database, pg_server: Server, new_database: Any
) -> None:
    returning(products, "{name,price}")
    before = search(products, "r", Q)
    products.execute("delete from funnelvec.funnels")
    products.execute("select * from funnelvec.repair()")
    kept = products.execute("select returns from funnelvec.funnels where name = 'r'").fetchone()
    assert kept == (["name", "price"],)
    assert products.execute("select * from funnelvec._problems()").fetchall() == []
    dump = pg_server.run("pg_dump", "--no-owner", products_database.owner_url)
    restored = new_database("vector")
    script = dump.replace("CREATE EXTENSION IF NOT EXISTS vector", "-- present: vector")
    script = "\n".join(
        line for line in script.splitlines() if not line.startswith("COMMENT ON EXTENSION vector")
    )
    pg_server.run("psql", "-q", "-v", "ON_ERROR_STOP=1", restored.owner_url, stdin=script)
    with psycopg.connect(restored.owner_url, autocommit=True) as fresh:
        assert search(fresh, "r", Q) == before
        assert (
            fresh.execute("select returns from funnelvec.funnels where name = 'r'").fetchone()
            == kept
        )


def test_what_is_returned_respects_row_level_security(products: Connection) -> None:
    returning(products, "{name}")
    products.execute("alter table products enable row level security")
    products.execute("alter table products force row level security")
    products.execute("create policy p on products using (id < 30)")
    rows = search(products, "r", Q, k=100)
    assert len(rows) == 30 and all(row[1] == f"n{row[0]}" for row in rows)


@pytest.mark.parametrize("name", ["two_stages", "three_stages", "signs", "wide", "base_alone"])
@pytest.mark.parametrize("filter", [None, '{"price": {"$lt": 70}}'])
def test_pages(products: Connection, name: str, filter: str | None) -> None:
    most = 90 if name != "base_alone" else 2000
    whole = search(products, name, Q, k=most, filter=filter)
    found: list[tuple[Any, ...]] = []
    after = None
    while page := search(
        products, name, Q, k=20 if most == 90 else 600, filter=filter, after=after
    ):
        found += page
        after = json.dumps({"score": page[-1][1], "key": [page[-1][0]]})
    assert found[: len(whole)] == whole
    assert len({row[0] for row in found}) == len(found)
    most = {"two_stages": 100, "three_stages": 100, "signs": 300, "wide": 1500, "base_alone": 2000}[
        name
    ]
    assert len(found) == min(most, 70 if filter else 2000)


def test_pages_with_a_relevance_cutoff(products: Connection) -> None:
    products.execute(
        """
        create table judgments as
        select q.embedding as query, h.id, h.score > 0.6 as relevant
        from (select * from products where id < 10) as q cross join lateral two_stages(q.embedding, 20) as h;
        select funnelvec.calibrate('two_stages', 'judgments')
        """
    )
    query = text(vectors(2000)[5])
    whole = search(products, "two_stages", query, k=100, min_relevance=0.2)
    assert 2 < len(whole) < 100
    first = search(products, "two_stages", query, k=2, min_relevance=0.2)
    after = json.dumps({"score": first[-1][1], "key": [first[-1][0]]})
    assert (
        first + search(products, "two_stages", query, k=100, min_relevance=0.2, after=after)
        == whole
    )


def test_the_place_of_a_row_that_is_gone_is_a_place_all_the_same(products: Connection) -> None:
    whole = search(products, "two_stages", Q, k=60)
    place = json.dumps({"score": whole[19][1], "key": [whole[19][0]]})
    products.execute("delete from products where id = %s", (whole[19][0],))
    assert search(products, "two_stages", Q, k=20, after=place) == whole[20:40]
    # A row that comes in before the place shows on no further page, and moves none.
    products.execute("insert into products select 5000, embedding, 1, 'new' from products where id = %s", (whole[0][0],))  # fmt: skip
    assert search(products, "two_stages", Q, k=20, after=place) == whole[20:40]


@pytest.mark.parametrize(
    "after",
    [
        "1", "[]", "{}", '{"score": 1}', '{"score": null, "key": [1]}', '{"score": 1, "key": []}',
        '{"score": 1, "key": [1, 2]}', '{"score": 1, "key": ["x"]}', '{"score": "NaN", "key": [1]}',
        '{"score": 1, "key": [null]}', '{"score": 1, "key": [{}]}', '{"score": true, "key": [1]}',
        '{"score": 1e999, "key": [1]}', '{"score": 1, "key": [1e30]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["two_stages", "base_alone"])
def test_no_place_is_refused_with_the_form(products: Connection, name: str, after: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        search(products, name, Q, after=after)
    assert caught.value.sqlstate == "FV004"


def test_keys_of_types_that_json_writes_as_text(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(40).repeat(3, axis=0))
    owner_conn.execute(
        """
        alter table products drop constraint products_pkey;
        alter table products add a uuid not null default gen_random_uuid(), add b char(5) not null default 'x',
            add c timestamptz not null default clock_timestamp(), add d numeric not null default random(),
            add e bytea not null default '\\x00ff', add f double precision not null default random();
        alter table products add primary key (d, a, b, c, e, f, id);
        select funnelvec.create_funnel('r', 'products', 'embedding', '32:f32')
        """
    )
    whole = search(owner_conn, "r", Q, k=120)
    page = "select r.*, jsonb_build_object('score', score, 'key', jsonb_build_array(d, a, b, c, e, f, id)) from r(%s, 7, after => %s) as r"
    found: list[tuple[Any, ...]] = []
    after = None
    while rows := owner_conn.execute(page, (Q, after)).fetchall():
        found += [row[:-1] for row in rows]
        after = json.dumps(rows[-1][-1])
    assert found == whole


def test_many_queries_in_one_statement(products: Connection) -> None:
    queries = [text(row) for row in vectors(30, seed=11)]
    rows = products.execute(MANY, (queries,)).fetchall()
    for number, query in enumerate(queries, 1):
        wanted = [row[0] for row in search(products, "two_stages", query, k=5)]
        assert [id for n, id in rows if n == number] == wanted
