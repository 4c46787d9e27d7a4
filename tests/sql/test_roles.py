"""Who may see and change what: ownership of the user's table decides, row-level security holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from funnelvec.install.apply import install
from tests.databases import OTHER
from tests.sql.tables import fill, search, text, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])


@pytest.fixture
def other(products_database: Database) -> Iterator[Connection]:
    with psycopg.connect(products_database.other_url, autocommit=True) as connection:
        yield connection


def refused(connection: Connection, call: str) -> str:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(call)  # type: ignore[arg-type]
    return caught.value.sqlstate or ""


def test_a_stranger_sees_and_changes_nothing(products: Connection, other: Connection) -> None:
    for registry in ("resolutions", "funnels", "calibrations", "loads", "windows"):
        assert other.execute(f"select * from funnelvec.{registry}").fetchall() == []  # type: ignore[arg-type]
        other.execute(f"delete from funnelvec.{registry}")  # type: ignore[arg-type]
    other.execute("update funnelvec.funnels set funnel = 'x'")
    assert other.execute("select * from funnelvec.status()").fetchall() == []
    for call in (
        "select funnelvec.search_sql('two_stages')",
        f"select * from funnelvec.explain('two_stages', '{Q}')",
        "select funnelvec.drop_funnel('two_stages')",
    ):
        assert refused(other, call) == "FV005"
    for call in (
        "select funnelvec.add_resolution('products', 'embedding', '8:f16')",
        "select funnelvec.drop_resolution('products', 'embedding', '16:f16')",
        "select funnelvec.create_funnel('f', 'products', 'embedding', '32:f32')",
        "insert into funnelvec.resolutions values ('products', 'embedding', '8:f16', 'name')",
        "insert into funnelvec.funnels values ('products', 'f', 'embedding', '32:f32', 'cosine', false, '')",
        f"select * from two_stages('{Q}')",
    ):
        assert refused(other, call) == "42501", call
    counts = products.execute(
        "select (select count(*) from funnelvec.resolutions), (select count(*) from funnelvec.funnels)"
    ).fetchone()
    assert counts == (4, 6)


def test_a_reader_searches_and_looks_but_does_not_change(
    products: Connection, other: Connection
) -> None:
    products.execute(f"grant select on products to {OTHER}")  # type: ignore[arg-type]
    assert search(other, "two_stages", Q) == search(products, "two_stages", Q)
    assert search(other, "three_stages", Q, filter='{"price": {"$lt": 9}}') == search(
        products, "three_stages", Q, filter='{"price": {"$lt": 9}}'
    )
    assert (
        len(other.execute(f"select * from funnelvec.explain('two_stages', '{Q}')").fetchall()) == 2
    )  # type: ignore[arg-type]
    assert (
        len(other.execute("select * from funnelvec.measure_recall('two_stages', 5)").fetchall())
        == 2
    )
    assert len(other.execute("select * from funnelvec.status()").fetchall()) == 4
    for call in (
        "select funnelvec.drop_funnel('two_stages')",
        "select funnelvec.drop_resolution('products', 'embedding', '16:f16')",
        "select * from funnelvec.calibrate('two_stages', 'products')",
    ):
        assert refused(other, call) == "42501", call
    # Row-level security makes these do nothing.
    other.execute("update funnelvec.funnels set funnel = 'x'")
    other.execute("delete from funnelvec.funnels")
    kept = products.execute("select count(*) from funnelvec.funnels where funnel <> 'x'").fetchone()
    assert kept == (6,)


@pytest.mark.parametrize("function", ["two_stages", "three_stages", "base_alone"])
def test_row_level_security_of_the_table_holds(
    products: Connection, other: Connection, function: str
) -> None:
    products.execute(
        f"""
        alter table products enable row level security;
        create policy few on products for select to {OTHER} using (id % 50 = 0);
        grant select on products to {OTHER};
        """  # type: ignore[arg-type]
    )
    rows = search(other, function, Q, k=30)
    assert len(rows) == 30  # 40 rows are visible; the shortlist is refilled from among them
    assert all(row[0] % 50 == 0 for row in rows)
    truth = other.execute(
        "select id from products order by (embedding <=> %s) + 0 limit 30", (Q,)
    ).fetchall()
    assert [row[0] for row in rows] == [row[0] for row in truth]
    stages = other.execute(
        "select stage, rows_out from funnelvec.explain(%s, %s) order by stage", (function, Q)
    ).fetchall()
    assert all(rows_out <= 40 for _, rows_out in stages)
    recall = other.execute(
        "select recall from funnelvec.measure_recall(%s, 5)", (function,)
    ).fetchall()
    assert recall[-1][0] == 1.0


def test_objects_planted_in_public_do_not_run(
    products: Connection, other: Connection, products_database: Database
) -> None:
    """Functions and operators of a stranger, better matches than the built-in ones, are not found."""
    with psycopg.connect(products_database.superuser_url, autocommit=True) as admin:
        admin.execute("grant create on schema public to public")
    other.execute(
        """
        create function public.format(text, text) returns text language plpgsql as
            $$ begin raise exception 'planted'; end $$;
        create function public.set_config(text, text, boolean) returns text language plpgsql as
            $$ begin raise exception 'planted'; end $$;
        create function public.minus(integer, double precision) returns double precision language plpgsql as
            $$ begin raise exception 'planted'; end $$;
        create operator public.- (leftarg = integer, rightarg = double precision, function = minus);
        """
    )
    with pytest.raises(psycopg.Error, match="planted"):
        products.execute("select 1 - 0.5::float8")  # the trap itself works
    assert len(search(products, "two_stages", Q)) == 10
    assert len(search(products, "three_stages", Q, filter='{"name": "n5"}')) == 1
    products.execute(f"select * from funnelvec.explain('two_stages', '{Q}')")  # type: ignore[arg-type]
    products.execute("select * from funnelvec.measure_recall('two_stages', 3)")
    products.execute("select funnelvec.create_funnel('again', 'products', 'embedding', '32:f32')")
    products.execute("select funnelvec.add_resolution('products', 'embedding', '4:bit')")
    products.execute("select * from funnelvec.status()")


def test_an_ordinary_owner_under_an_administrators_install(
    pg_server: Server, new_database: Any
) -> None:
    """The administrator installs; a role that owns nothing but its table does all the rest."""
    database = new_database("vector")
    with psycopg.connect(database.superuser_url, autocommit=True) as admin:
        install(admin, mode=pg_server.install_mode)
        admin.execute(f"create schema shop authorization {OTHER}")  # type: ignore[arg-type]
    with psycopg.connect(database.other_url, autocommit=True) as owner:
        fill(owner, vectors(300), table=("shop", "products"))
        for resolution in ("16:f16", "32:bit"):
            owner.execute(
                "select funnelvec.add_resolution('shop.products', 'embedding', %s, index => true)",
                (resolution,),
            )
        owner.execute(
            "select funnelvec.create_funnel("
            "  'products_search', 'shop.products', 'embedding', '16:f16@100 > 32:f32')"
        )
        owner.execute(
            """
            create table shop.judgments as
            select q.embedding as query, h.id, h.score > 0.6 as relevant
            from (select * from shop.products where id < 10) as q
            cross join lateral shop.products_search(q.embedding, 20) as h
            """
        )
        owner.execute("select * from funnelvec.calibrate('products_search', 'shop.judgments')")
        assert search(owner, "shop.products_search", Q)[0][2] is not None
        owner.execute("select * from funnelvec.measure_recall('products_search', 5)")
        kinds = owner.execute("select storage from funnelvec.status() order by 1").fetchall()
        assert kinds == [("calibration",), ("column",), ("column",)]
        owner.execute("select funnelvec.drop_funnel('products_search')")
        owner.execute("select funnelvec.drop_resolution('shop.products', 'embedding', '16:f16')")
        left = owner.execute("select resolution from funnelvec.resolutions").fetchall()
        assert left == [("32:bit",)]
