"""status() names what is out of step, repair() mends it, and nothing else of anybody's is touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from funnelvec.install.apply import install
from tests import databases
from tests.databases import OTHER
from tests.sql.tables import fill, search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])


def faults(connection: Connection) -> dict[str, str]:
    return dict(
        connection.execute(
            "select object, advice from funnelvec.status() where advice <> ''"
        ).fetchall()
    )


def repair(connection: Connection) -> list[tuple[str, str]]:
    """Repair, after a dry run that has to say the same and to change nothing; then all is well."""
    before = snapshot(connection)
    planned = connection.execute("select * from funnelvec.repair(dry_run => true)").fetchall()
    assert snapshot(connection) == before
    done = connection.execute("select * from funnelvec.repair()").fetchall()
    assert done == planned
    assert connection.execute("select * from funnelvec.repair()").fetchall() == []
    assert faults(connection) == {}
    return done


def snapshot(connection: Connection) -> list[Any]:
    return [
        connection.execute(query).fetchall()
        for query in (
            "select * from funnelvec.resolutions order by 1, 2, 3",
            "select * from funnelvec.funnels order by 1, 2",
            "select * from funnelvec.calibrations order by 1, 2, 3, 4, 5, 6",
            "select oid, proname, pronamespace, proacl::text, xmin::text from pg_proc"
            "  where prolang <> 12 and pronamespace <> 'funnelvec'::regnamespace order by 1",
            "select attrelid, attname from pg_attribute where attnum > 0 order by 1, 2",
        )
    ]


def access(connection: Connection, name: str = "f") -> Any:
    row = connection.execute("select proacl::text from pg_proc where proname = %s", (name,))
    return row.fetchone()


@pytest.fixture(scope="module")
def shop_template(pg_server: Server) -> Iterator[Database]:
    with databases.copied(pg_server, pg_server.template("funnelvec")) as made:
        with databases.connected(made.owner_url) as owner:
            build(owner)
        yield made


@pytest.fixture
def shop_database(pg_server: Server, shop_template: Database) -> Iterator[Database]:
    with databases.copied(pg_server, shop_template.name) as database:
        yield database


@pytest.fixture
def shop(shop_database: Database) -> Iterator[Connection]:
    """The owner of a copy of what `build` makes."""
    with databases.connected(shop_database.owner_url) as connection:
        yield connection


def build(owner_conn: Connection) -> None:
    """`products` with three resolutions and the calibrated funnel `f`, which OTHER alone may run."""
    fill(owner_conn, vectors(300))
    for resolution in ("16:f16", "24:f32", "32:bit"):
        owner_conn.execute(
            "select funnelvec.add_resolution('products', 'embedding', %s, index => true)",
            (resolution,),
        )
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding',"
        "  '16:f16@200 > 32:bit@100 > 32:f32', model => 'm')"
    )
    owner_conn.execute(
        f"""
        create table judgments as
        select q.embedding as query, h.id, h.score > 0.6 as relevant
        from (select * from products where id < 10) as q cross join lateral f(q.embedding, 20) as h;
        select funnelvec.calibrate('f', 'judgments');
        revoke execute on function f from public;
        grant execute on function f to {OTHER} with grant option
        """  # type: ignore[arg-type]
    )


def test_nothing_to_repair(shop: Connection) -> None:
    assert faults(shop) == {}
    assert repair(shop) == []


@pytest.mark.parametrize(
    ("change", "actions"),
    [
        (
            "alter table products rename to goods",
            {"function public.f": "rewrite: it was stale"},
        ),
        (
            "alter table products rename embedding to vec",
            {
                "column public.products.vec": "follow the rename of embedding",
                "function public.f": "rewrite: it was stale",
            },
        ),
        (
            "alter table products rename embedding_32_bit to signs",
            {
                "column public.products.signs": "follow the rename of what holds 32:bit",
                "function public.f": "rewrite: it was stale",
            },
        ),
        (
            'alter table products rename embedding to "V ""x"; '
            "alter table products rename embedding_16_f16 to a",
            {
                'column public.products."V ""x"': "follow the rename of embedding",
                "column public.products.a": "follow the rename of what holds 16:f16",
                "function public.f": "rewrite: it was stale",
            },
        ),
        (
            "alter table products rename id to nr",
            {"function public.f": "rewrite: it was stale"},
        ),
        (
            "drop index products_embedding_16_f16_idx",
            {"function public.f": "rewrite: it was stale"},
        ),
        (
            "drop function f",
            {"function public.f": "write: it was missing"},
        ),
        (
            "alter function f security definer",
            {"function public.f": "rewrite: it was stale"},
        ),
        (
            "alter function f reset search_path",
            {"function public.f": "rewrite: it was stale"},
        ),
        (
            "create schema archive; alter table products set schema archive",
            {
                "function public.f(public.vector,integer,double precision,jsonb,jsonb,text)": (
                    "move to schema archive, where its table is"
                ),
                "function archive.f": "rewrite: it was stale",
            },
        ),
    ],
)
def test_changes_are_followed(shop: Connection, change: str, actions: dict[str, str]) -> None:
    grants = access(shop)
    found = search(shop, "f", Q, min_relevance=0.1)
    shop.execute(change)  # type: ignore[arg-type]
    advice = faults(shop)
    assert advice and all("select funnelvec.repair();" in each for each in advice.values())
    assert dict(repair(shop)) == actions
    shop.execute("set search_path = public, archive")
    # Without its index the first stage is exact, so it may find more, never other scores.
    again = search(shop, "f", Q, min_relevance=0.1)
    assert len({row[0] for row in found} & {row[0] for row in again}) >= len(found) - 1
    if "drop index" not in change:
        assert again == found
    assert change == "drop function f" or access(shop) == grants


def test_two_columns_that_swap_their_names(shop: Connection) -> None:
    """The usual way to a new model; codes and calibration stay with the vectors they came from."""
    shop.execute("alter table products add column fresh vector(32)")
    shop.execute("update products set fresh = embedding + embedding")
    shop.execute("select funnelvec.add_resolution('products', 'fresh', '8:f16')")
    shop.execute("select funnelvec.create_funnel('g', 'products', 'fresh', '8:f16@50 > 32:f32')")
    found = search(shop, "f", Q)
    shop.execute(
        """
        alter table products rename embedding to old;
        alter table products rename fresh to embedding;
        alter table products rename old to fresh
        """
    )
    assert len(faults(shop)) == 6
    assert len(repair(shop)) == 4
    assert search(shop, "f", Q) == found
    kept = shop.execute("select name, column_name from funnelvec.funnels order by 1").fetchall()
    assert kept == [("f", "fresh"), ("g", "embedding")]
    assert shop.execute("select distinct column_name from funnelvec.calibrations").fetchall() == [
        ("fresh",)
    ]


def test_a_base_column_is_followed_by_its_index(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(100))
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '32:f32', index => true)"
    )
    owner_conn.execute("select funnelvec.create_funnel('f', 'products', 'embedding', '32:f32')")
    found = search(owner_conn, "f", Q)
    owner_conn.execute("alter table products rename embedding to vec")
    repair(owner_conn)
    assert search(owner_conn, "f", Q) == found


def test_a_rename_that_nothing_proves_is_not_guessed(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(100))
    owner_conn.execute("select funnelvec.create_funnel('f', 'products', 'embedding', '32:f32')")
    owner_conn.execute("alter table products rename embedding to vec")
    advice = faults(owner_conn)["function public.f"]
    assert advice.startswith("can't be written: table public.products has no column 'embedding'")
    what, action = owner_conn.execute("select * from funnelvec.repair()").fetchall()[0]
    assert what == "function public.f" and action.startswith("not repaired: table")
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'vec', '32:f32', replace => true)"
    )
    assert faults(owner_conn) == {}


def test_dropped_tables_and_columns(shop: Connection) -> None:
    fill(shop, vectors(50), table=("other",))
    shop.execute("select funnelvec.add_resolution('other', 'embedding', '16:f16')")
    shop.execute("select funnelvec.create_funnel('g', 'other', 'embedding', '16:f16@9 > 32:f32')")
    shop.execute("drop table products")
    assert len(faults(shop)) == 2
    assert [action for _, action in repair(shop)] == [
        "remove the rows of the dropped table",
        "drop: its table is gone",
    ]
    left = shop.execute("select count(*) from funnelvec.calibrations").fetchone()
    assert left == (0,)
    shop.execute("alter table other drop column embedding_16_f16")
    assert len(faults(shop)) == 2
    done = dict(shop.execute("select * from funnelvec.repair()").fetchall())
    assert done["resolution 16:f16 of public.other.embedding"].startswith("remove the row: column")
    # A funnel that lost a stage says what it needs, and is whole again once it has it.
    assert "needs resolution 16:f16" in faults(shop)["function public.g"]
    shop.execute("select funnelvec.add_resolution('other', 'embedding', '16:f16')")
    assert faults(shop) == {}


def test_a_code_that_is_no_longer_computed_is_no_code(shop: Connection) -> None:
    shop.execute("alter table products alter column embedding_24_f32 drop expression")
    assert "is gone, or is not what holds 24:f32" in str(faults(shop))
    repair(shop)
    assert shop.execute("select embedding_24_f32 from products limit 1").fetchone() is not None


def test_the_registry_is_read_back_from_functions_and_columns(shop: Connection) -> None:
    kept = (
        "select table_name, column_name, resolution, metric, code_column, index_name"
        "  from funnelvec.resolutions order by 3",
        "select table_name, name, column_name, funnel, metric, approximate, model, calibration"
        "  from funnelvec.funnels",
        "select * from funnelvec.calibrations",
    )
    before = [shop.execute(query).fetchall() for query in kept]
    found = search(shop, "f", Q, min_relevance=0.3)
    for registry in ("resolutions", "funnels", "calibrations"):
        shop.execute(f"delete from funnelvec.{registry}")  # type: ignore[arg-type]
    assert search(shop, "f", Q, min_relevance=0.3) == found
    assert len(faults(shop)) == 4
    assert [action for _, action in repair(shop)] == [
        "take over",
        "take over as 24:f32 of embedding",
    ]
    assert [shop.execute(query).fetchall() for query in kept] == before


def test_a_function_without_its_line_is_left_to_the_user(shop: Connection) -> None:
    shop.execute("delete from funnelvec.funnels")
    for body in ("{}", "{]", '{"table": 1}', '{"table": "products", "funnel": "32:f32"}'):
        shop.execute(
            f"""
            create or replace function f(query vector, k integer default 10,
                min_relevance double precision default null, filter jsonb default null, after jsonb default null,
                cutoff text default null)
            returns table (id bigint, score double precision, relevance double precision)
            language plpgsql as $$-- Generated by funnelvec.create_funnel; do not edit.
-- {body}
begin end$$
            """  # type: ignore[arg-type]
        )
        advice = "".join(faults(shop).values())
        done = "".join(action for _, action in shop.execute("select * from funnelvec.repair()"))
        assert "drop function public.f(" in advice or "not repaired" in done
        assert shop.execute("select count(*) from funnelvec.funnels").fetchone() == (0,)


def test_a_generated_column_of_the_users_own_is_not_taken_over(shop: Connection) -> None:
    shop.execute(
        "alter table products add column mine vector(8)"
        " generated always as (subvector(embedding, 1, 8)::vector(8)) stored"
    )
    assert faults(shop) == {}
    assert repair(shop) == []


def test_one_that_cannot_be_repaired_does_not_stop_the_others(shop: Connection) -> None:
    shop.execute("select funnelvec.create_funnel('g', 'products', 'embedding', '32:f32')")
    shop.execute(f"create view v as select * from f('{Q}')")  # type: ignore[arg-type]
    shop.execute("alter table products rename id to nr")
    done = dict(shop.execute("select * from funnelvec.repair()").fetchall())
    assert done["function public.g"] == "rewrite: it was stale"
    assert done["function public.f"].startswith("not repaired: cannot drop function")
    shop.execute("drop view v")
    repair(shop)


def test_only_what_the_caller_owns(shop: Connection, shop_database: Database) -> None:
    shop.execute(f"grant select on products to {OTHER}")  # type: ignore[arg-type]
    shop.execute("alter table products rename to goods")
    before = snapshot(shop)
    with psycopg.connect(shop_database.other_url, autocommit=True) as other:
        assert list(faults(other)) == ["function public.f"]  # a reader sees it, and can't change it
        assert other.execute("select * from funnelvec.repair()").fetchall() == []
    assert snapshot(shop) == before
    repair(shop)


def test_an_administrator_repairs_for_the_owner(shop: Connection, shop_database: Database) -> None:
    shop.execute("drop function f")
    with psycopg.connect(shop_database.superuser_url, autocommit=True) as admin:
        admin.execute("select * from funnelvec.repair()")
    owner = "select proowner::regrole::text = current_user from pg_proc where proname = 'f'"
    assert shop.execute(owner).fetchone() == (True,)
    shop.execute("select * from funnelvec.calibrate('f', 'judgments')")


def test_a_function_that_changed_hands_is_named(shop: Connection, shop_database: Database) -> None:
    with psycopg.connect(shop_database.superuser_url, autocommit=True) as admin:
        admin.execute(f"alter function f owner to {OTHER}")  # type: ignore[arg-type]
    assert "belongs to app_other" in faults(shop)["function public.f"]
    done = dict(shop.execute("select * from funnelvec.repair()").fetchall())
    assert done == {"function public.f": "not repaired: must be owner of function f"}


def test_after_funnelvec_was_removed_and_installed_again(
    shop: Connection, pg_server: Server
) -> None:
    found = search(shop, "f", Q, min_relevance=0.2)
    shop.execute(
        "drop extension if exists funnelvec cascade; drop schema if exists funnelvec cascade"
    )
    install(shop, mode=pg_server.install_mode)
    repair(shop)
    assert search(shop, "f", Q, min_relevance=0.2) == found
    shop.execute("select funnelvec.drop_funnel('f')")
    for resolution in ("16:f16", "24:f32", "32:bit"):
        shop.execute("select funnelvec.drop_resolution('products', 'embedding', %s)", (resolution,))
