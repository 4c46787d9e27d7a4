"""add_resolution and drop_resolution: what they do to a table, once and again."""

from __future__ import annotations

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
