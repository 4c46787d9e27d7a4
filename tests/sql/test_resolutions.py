"""add_resolution and drop_resolution: what they do to a table, once and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.tables import fill, search, text, vectors

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])
COLUMNS = """
    select a.attname, format_type(a.atttypid, a.atttypmod), a.attstorage::text, a.attgenerated::text
    from pg_attribute as a
    where a.attrelid = 'products'::regclass and a.attnum > 4 and not a.attisdropped order by a.attnum
"""
INDEXES = "select indexrelid::regclass::text from pg_index where indrelid = 'products'::regclass order by 1"


@pytest.fixture
def table(owner_conn: Connection) -> Connection:
    fill(owner_conn, vectors(200))
    return owner_conn


def add(connection: Connection, resolution: str, **named: Any) -> str:
    options = "".join(f", {name} => {value}" for name, value in named.items())
    row = connection.execute(
        f"select funnelvec.add_resolution('products', 'embedding', %s{options})",  # type: ignore[arg-type]
        (resolution,),
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_codes_are_generated_columns_in_the_row(table: Connection) -> None:
    assert add(table, "16:f16") == "embedding_16_f16"
    assert add(table, "24:f32") == "embedding_24_f32"
    assert add(table, "32:bit") == "embedding_32_bit"
    assert table.execute(COLUMNS).fetchall() == [
        ("embedding_16_f16", "halfvec(16)", "m", "s"),
        ("embedding_24_f32", "vector(24)", "m", "s"),
        ("embedding_32_bit", "bit(32)", "m", "s"),
    ]


def test_adding_again_changes_nothing_but_may_add_the_index(table: Connection) -> None:
    add(table, "16:f16")
    before = table.execute(COLUMNS).fetchall()
    add(table, "16:f16")
    assert table.execute(COLUMNS).fetchall() == before
    assert table.execute(INDEXES).fetchall() == [("products_pkey",)]
    for _ in range(2):
        add(table, "16:f16", index="true")
    assert table.execute(INDEXES).fetchall() == [
        ("products_embedding_16_f16_idx",),
        ("products_pkey",),
    ]


def test_an_index_that_comes_later_is_used_by_funnels_that_exist(table: Connection) -> None:
    add(table, "16:f16")
    table.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '16:f16@100 > 32:f32')"
    )
    assert search(table, "funnelvec.explain", "f", query=Q)[0][6] == "scan"
    add(table, "16:f16", index="true")
    assert search(table, "funnelvec.explain", "f", query=Q)[0][6].startswith("index")
    assert "hnsw.ef_search" in str(
        table.execute("select prosrc from pg_proc where proname = 'f'").fetchone()
    )


def test_dropping_leaves_the_table_as_it_was(table: Connection) -> None:
    before = (table.execute(COLUMNS).fetchall(), table.execute(INDEXES).fetchall())
    for resolution in ("16:f16", "32:f32"):
        add(table, resolution, index="true")
    for resolution in ("16:f16", "32:f32"):
        table.execute(
            "select funnelvec.drop_resolution('products', 'embedding', %s)", (resolution,)
        )
    assert (table.execute(COLUMNS).fetchall(), table.execute(INDEXES).fetchall()) == before
    assert table.execute("select count(*) from products where embedding is null").fetchone() == (0,)


def test_an_index_of_the_users_own_over_the_base_column_stays(table: Connection) -> None:
    table.execute("create index own on products using hnsw (embedding vector_cosine_ops)")
    add(table, "32:f32", index="true")
    table.execute("select funnelvec.create_funnel('f', 'products', 'embedding', '32:f32')")
    assert search(table, "funnelvec.explain", "f", query=Q)[0][6] == "index own"
    table.execute("select funnelvec.drop_resolution('products', 'embedding', '32:f32')")
    assert ("own",) in table.execute(INDEXES).fetchall()


def test_codes_follow_the_rows(table: Connection) -> None:
    add(table, "16:f16")
    table.execute("update products set embedding = %s where id = 1", (Q,))
    same = table.execute(
        "select embedding_16_f16 = l2_normalize(subvector(%s::vector, 1, 16))::halfvec(16)"
        "  from products where id = 1",
        (Q,),
    ).fetchone()
    assert same == (True,)


def test_a_component_beyond_float16_does_not_break_the_insert(table: Connection) -> None:
    add(table, "16:f16", index="true")
    large = text(vectors(1)[0] * 1e6)
    table.execute("insert into products (id, embedding) values (1000, %s)", (large,))
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        table.execute("select %s::vector(32)::halfvec(32)", (large,))  # as it would without


def test_a_large_table_is_not_rewritten_by_surprise(table: Connection) -> None:
    table.execute("insert into products (id) select i from generate_series(1000, 101500) as i")
    table.execute("analyze products")
    with pytest.raises(psycopg.Error, match="nobody can read or write") as caught:
        add(table, "16:f16")
    assert caught.value.sqlstate == "FV008"
    assert "allow_rewrite => true" in (caught.value.diag.message_hint or "")
    add(table, "16:f16", allow_rewrite="true")


def test_columns_are_taken_over_after_the_registry_was_lost(table: Connection) -> None:
    for resolution in ("16:f16", "24:f32", "32:bit"):
        add(table, resolution)
    before = table.execute(
        "select attnum, attname from pg_attribute where attrelid = 'products'::regclass order by 1"
    ).fetchall()
    table.execute("delete from funnelvec.resolutions")
    for resolution in ("16:f16", "24:f32", "32:bit"):
        add(table, resolution)
    after = table.execute(
        "select attnum, attname from pg_attribute where attrelid = 'products'::regclass order by 1"
    ).fetchall()
    assert after == before


def test_a_generated_column_that_means_something_else_is_not_taken_over(table: Connection) -> None:
    table.execute(
        "alter table products add column embedding_16_f16 halfvec(16)"
        " generated always as (subvector(embedding, 2, 16)::halfvec(16)) stored"
    )
    with pytest.raises(psycopg.Error, match="did not make it"):
        add(table, "16:f16")


def test_a_name_that_would_be_cut_is_refused(owner_conn: Connection) -> None:
    name = "e" * 57
    fill(owner_conn, vectors(3), vector=name)
    with pytest.raises(psycopg.Error, match="64 bytes"):
        owner_conn.execute("select funnelvec.add_resolution('products', %s, '16:f16')", (name,))
    owner_conn.execute(f"alter table products rename column {name} to {name[:-1]}")  # type: ignore[arg-type]
    owner_conn.execute("select funnelvec.add_resolution('products', %s, '16:f16')", (name[:-1],))


def add_all(connection: Connection, funnel: str, **named: Any) -> list[str]:
    options = "".join(f", {name} => {value}" for name, value in named.items())
    row = connection.execute(
        f"select funnelvec.add_resolutions('products', 'embedding', %s{options})",  # type: ignore[arg-type]
        (funnel,),
    ).fetchone()
    assert row is not None
    return list(row[0])


def rewrites(connection: Connection) -> Any:
    row = connection.execute(
        "select relfilenode from pg_class where oid = 'products'::regclass"
    ).fetchone()
    assert row is not None
    return row[0]


def files_made(connection: Connection, make: Callable[[], object]) -> int:
    """How many numbers of files were taken meanwhile, in one transaction: each rewrite takes some."""
    first, last = "begin; create table first ()", "create table last (); commit"
    connection.execute(first)
    make()
    connection.execute(last)
    row = connection.execute(
        "select l.relfilenode::int8 - f.relfilenode::int8 from pg_class as f, pg_class as l"
        " where f.oid = 'first'::regclass and l.oid = 'last'::regclass"
    ).fetchone()
    connection.execute("drop table first, last")
    assert row is not None
    return int(row[0])


def test_all_that_a_funnel_needs_comes_in_one_rewrite(table: Connection) -> None:
    named: list[str] = []
    at_once = files_made(
        table,
        lambda: named.extend(
            add_all(table, "16:f16@40 > 32:bit~random@20 > 32:f32", index="false")
        ),
    )
    assert named == ["embedding_16_f16", "embedding_32_bit_random"]
    assert table.execute(COLUMNS).fetchall() == [
        ("embedding_32_bit_random", "bit(32)", "m", "s"),
        ("embedding_16_f16", "halfvec(16)", "m", "s"),
    ]
    for resolution in ("16:f16", "32:bit~random"):
        table.execute(
            "select funnelvec.drop_resolution('products', 'embedding', %s)", (resolution,)
        )
    one_by_one = files_made(table, lambda: (add(table, "32:bit~random"), add(table, "16:f16")))
    assert 0 < at_once < one_by_one


def test_all_that_a_funnel_needs_can_be_searched_at_once(table: Connection) -> None:
    funnel = "16:f16@60 > 24:f32@30 > 32:f32"
    add_all(table, funnel)
    assert table.execute(INDEXES).fetchall() == [
        ("products_embedding_16_f16_idx",),
        ("products_pkey",),
    ]
    table.execute(
        "select funnelvec.create_funnel('wide_search', 'products', 'embedding', %s)", (funnel,)
    )
    assert len(search(table, "wide_search", Q, k=5)) == 5
    before = rewrites(table)
    assert add_all(table, funnel) == ["embedding_16_f16", "embedding_24_f32"]
    assert add_all(table, "32:f32") == ["embedding"]  # the column itself, which gets an index
    assert rewrites(table) == before


def test_all_or_nothing(table: Connection) -> None:
    before = table.execute(COLUMNS).fetchall()
    for funnel, code in (
        ("16:f16@60 > 8:f16~pca@30 > 32:f32", "FV005"),
        ("16:f16@60 > 64:f16@30 > 32:f32", "FV001"),
        ("16:f16", "FV001"),
        ("16:f16 > 32:f32", "FV001"),
    ):
        with pytest.raises(psycopg.Error) as error:
            add_all(table, funnel, index="null") if funnel != "16:f16" else add_all(table, "16:f99")
        assert error.value.sqlstate == code, funnel
        assert table.execute(COLUMNS).fetchall() == before


def test_all_of_them_in_side_tables(table: Connection) -> None:
    named = add_all(table, "16:f16@60 > 24:f32@30 > 32:f32", storage="'side'")
    assert named == ["public.products_embedding_16_f16", "public.products_embedding_24_f32"]
    assert table.execute(COLUMNS).fetchall() == []
