"""Bad input is refused before any write, with the value and the way out in the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from tests.sql.tables import DIMS, fill, text, vectors

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

Q = text(vectors(1)[0])
SHORT = "[1,2,3]"
ZERO = text(vectors(1)[0] * 0)
HEADLESS = text(np.where(np.arange(DIMS) < 16, 0, vectors(1)[0]))

REFUSED = [
    # call, SQLSTATE, what the message says, what the hint says
    ("add_resolution('products', 'embedding', '64:f16')", "FV001", "64:f16", "32:f16"),
    ("add_resolution('products', 'embedding', '16:int4')", "FV001", "int4", "f32"),
    ("add_resolution('products', 'embedding', '016:f16')", "FV001", "016:f16", "dims:code"),
    ("add_resolution('products', 'embedding', '-1:f16')", "FV001", "-1:f16", "dims:code"),
    ("add_resolution('products', 'embedding', '16001:f16')", "FV001", "16001:f16", "16000"),
    (
        "add_resolution('products', 'embedding', '16:f16~pca')",
        "FV005",
        "rotation pca",
        "fit_rotation('pca')",
    ),
    ("add_resolution('products', 'embedding', '16:f16~random0')", "FV009", "random0", "16:f16"),
    ("add_resolution('products', 'embedding', '')", "FV001", "not a resolution", "dims:code"),
    ("add_resolution('products', 'embedding', null)", "FV001", "null", "dims:code"),
    ("add_resolution('products', 'embeding', '16:f16')", "FV005", "embeding", "embedding"),
    ("add_resolution('products', 'price', '16:f16')", "FV009", "double precision", "embeddings"),
    ("add_resolution('products', 'embedding', '8:f16', m => 1)", "FV004", "1", "16"),
    ("add_resolution('products', 'embedding', '8:f16', ef_construction => 2)", "FV004", "2", "64"),
    ("add_resolution('nowhere', 'embedding', '16:f16')", "42P01", "nowhere", None),
    ("add_resolution('a_view', 'embedding', '16:f16')", "FV009", "view", "table"),
    ("add_resolution('no_width', 'embedding', '16:f16')", "FV009", "dimensions", "vector(N)"),
    ("add_resolution('taken', 'embedding', '8:f16')", "FV008", "embedding_8_f16", "Rename"),
    ("drop_resolution('products', 'embedding', '12:f16')", "FV005", "12:f16", "16:f16"),
    ("drop_resolution('products', 'embedding', '16:f16')", "FV008", "two_stages", "drop_funnel"),
    ("create_funnel('f', 'products', 'embedding', '')", "FV001", "empty", "128:f16@200"),
    ("create_funnel('f', 'products', 'embedding', null)", "FV001", "empty", "128:f16@200"),
    (
        "create_funnel('f', 'products', 'embedding', '16:f16@9 > 32:bit@10 > 32:f32')",
        "FV001",
        "more than the 9",
        "never grow",
    ),
    (
        "create_funnel('f', 'products', 'embedding', '16:f16@100 > 32:bit')",
        "FV001",
        "32:bit",
        "approximate => true",
    ),
    ("create_funnel('f', 'products', 'embedding', '16:f16 > 32:f32')", "FV001", "keeps", "@200"),
    ("create_funnel('f', 'products', 'embedding', '32:f32@5')", "FV001", "last stage", "32:f32"),
    ("create_funnel('f', 'products', 'embedding', '16:f16@0 > 32:f32')", "FV001", "@0", "keep"),
    (
        "create_funnel('f', 'products', 'embedding', '32:f32@9 > 32:f32')",
        "FV001",
        "same resolution",
        "Leave",
    ),
    (
        "create_funnel('f', 'products', 'embedding', '9:f16@9 > 32:f32')",
        "FV005",
        "9:f16",
        "add_resolution",
    ),
    (
        "create_funnel('f', 'products', 'embedding', '99:f16@9 > 32:f32')",
        "FV001",
        "99:f16",
        "32 dims",
    ),
    (
        "create_funnel('two_stages', 'products', 'embedding', '32:f32')",
        "FV008",
        "two_stages",
        "replace => true",
    ),
    ("create_funnel('mine', 'products', 'embedding', '32:f32')", "FV008", "mine", "another name"),
    (
        "create_funnel('two_stages', 'no_key', 'embedding', '32:f32')",
        "FV005",
        "no_key",
        "primary key",
    ),
    ("create_funnel('f', 'no_key', 'embedding', '32:f32')", "FV005", "no_key", "primary key"),
    (
        "create_funnel('f', 'products', 'embedding', '32:f32', metric => 'dot')",
        "FV008",
        "cosine",
        "Drop",
    ),
    (
        "create_funnel('f', 'no_key', 'embedding', '32:f32', metric => 'l3')",
        "FV004",
        "l3",
        "euclidean",
    ),
    ("drop_resolution('products', null, '12:f16')", "FV005", "column NULL", "none"),
    (
        f"create_funnel('f', 'products', 'embedding', '{'16:f16@9 > 32:bit@9 > ' * 8}32:f32')",
        "FV001",
        "17 stages",
        "Two or three",
    ),
    ("add_resolution('halves', 'embedding', '16:f32')", "FV001", "16:f32", "16:f16"),
    ("create_funnel('f', 'halves', 'embedding', '32:f32')", "FV001", "32:f32", "32:f16"),
    (
        "create_funnel('f', 'halves', 'embedding', '16:f32@9 > 32:f16')",
        "FV001",
        "stage 1 (16:f32) would hold more digits",
        "16:f16",
    ),
    ("add_resolution('parts_1', 'embedding', '16:f16')", "FV009", "partition", "parts"),
    ("create_funnel('f', 'odd_key', 'embedding', '32:f32')", "FV008", "score", "rename"),
    ("create_funnel('', 'products', 'embedding', '32:f32')", "FV004", "name", "function"),
    (
        f"create_funnel('{'n' * 64}', 'products', 'embedding', '32:f32')",
        "FV004",
        "64",
        "function",
    ),
    ("drop_funnel('none')", "FV005", "none", "two_stages"),
    ("search_sql('none')", "FV005", "none", "two_stages"),
    ("search_sql(null)", "FV005", "null", "two_stages"),
    (f"explain('two_stages', '{SHORT}')", "FV002", "32", "model"),
    (f"explain('two_stages', '{HEADLESS}')", "FV002", "at some stage", "model"),
    (f"explain('two_stages', '{Q}', 0)", "FV004", "0", "1 to 100"),
    (f"explain('two_stages', '{Q}', 101)", "FV004", "101", "1 to 100"),
    (f"explain('two_stages', '{Q}', min_relevance => 0.5)", "FV006", "two_stages", "calibrate"),
    ("measure_recall('two_stages', 0)", "FV004", "0", "1 to"),
    ("measure_recall('two_stages', 5, 100)", "FV004", "100", "1 to 99"),
    ("measure_recall('empty_search')", "FV004", "two rows", "Load"),
    ("relevance('two_stages', 0.5)", "FV006", "two_stages", "calibrate"),
    ("cutoff('two_stages', 0.5)", "FV006", "two_stages", "calibrate"),
    ("cutoff('two_stages', 1.5)", "FV004", "1.5", "0.7"),
    ("calibrate('two_stages', 'taken')", "FV005", "query", "relevant boolean"),
    ("calibrate('two_stages', 'no_judgments')", "FV007", "too few", "10 relevant"),
    ("calibrate('two_stages', 'zero_judgments')", "FV007", "zero", "query"),
    ("calibrate('two_stages', 'upside_down')", "FV007", "slope", "relevant"),
    ("calibrate('two_stages', 'all_equal')", "FV007", "same score", "differ"),
]

REFUSED_SEARCHES = [
    (f"'{SHORT}'", "FV002", "3 dimensions", "model"),
    ("null", "FV002", "null", "model"),
    (f"'{ZERO}'", "FV002", "zero", "model"),
    (f"'{Q}', 0", "FV004", "0", "1 to 100"),
    (f"'{Q}', null", "FV004", "null", "1 to 100"),
    (f"'{Q}', -5", "FV004", "-5", "1 to 100"),
    (f"'{Q}', 101", "FV004", "101", "larger keeps"),
    (f"'{Q}', min_relevance => 0.5", "FV006", "no calibration", "calibrate"),
    (f"""'{Q}', filter => '[]'""", "FV003", "[]", "price"),
    (f"""'{Q}', filter => '"x"'""", "FV003", "x", "price"),
    (f"""'{Q}', filter => '{{"nope": 1}}'""", "FV003", "nope", "price"),
    (f"""'{Q}', filter => '{{"$nor": []}}'""", "FV003", "$nor", "$and"),
    (f"""'{Q}', filter => '{{"$and": []}}'""", "FV003", "needs a list", "price"),
    (f"""'{Q}', filter => '{{"price": {{"$regex": "a"}}}}'""", "FV003", "$regex", "$exists"),
    (f"""'{Q}', filter => '{{"price": "5"}}'""", "FV003", '"5"', "number"),
    (f"""'{Q}', filter => '{{"name": 5}}'""", "FV003", "5", "string"),
    (f"""'{Q}', filter => '{{"price": null}}'""", "FV003", "null", "$exists"),
    (f"""'{Q}', filter => '{{"price": {{}}}}'""", "FV003", "price", "$eq"),
    (f"""'{Q}', filter => '{{"price": {{"$in": []}}}}'""", "FV003", "needs a list", "price"),
    (f"""'{Q}', filter => '{{"price": {{"$exists": 1}}}}'""", "FV003", "1", "true"),
    (f"""'{Q}', filter => '{{"$or": [{{}}]}}'""", "FV003", "empty", "Leave it out"),
    (f"""'{Q}', filter => '{{"price": {{"$not": 5}}}}'""", "FV003", "$not", "$ne"),
    (f"'{HEADLESS}'", "FV002", "stage 1 (16:f16)", "without that stage"),
    (f"""'{Q}', filter => '{{"embedding": "x"}}'""", "FV003", "vector", "numbers"),
    (
        f"""'{Q}', filter => '{"{" * 1}"$not": {'{"$not": ' * 40}{{"price": 1}}{"}" * 41}'""",
        "FV003",
        "32 levels",
        None,
    ),
]


@pytest.fixture
def shop(products: Connection) -> Connection:
    products.execute(
        """
        create view a_view as select * from products;
        create table no_width (id bigint primary key, embedding vector);
        create table taken (id bigint primary key, embedding vector(32), embedding_8_f16 text);
        create table no_key (id bigint, embedding vector(32));
        create table halves (id bigint primary key, embedding halfvec(32));
        create table parts (id bigint primary key, embedding vector(32)) partition by range (id);
        create table parts_1 partition of parts for values from (0) to (10);
        create table odd_key (score bigint primary key, embedding vector(32));
        create table empty (id bigint primary key, embedding vector(32));
        select funnelvec.create_funnel('empty_search', 'empty', 'embedding', '32:f32');
        create function mine() returns integer language sql as 'select 1';
        create table no_judgments (query vector(32), id bigint, relevant boolean);
        create table zero_judgments as
            select array_fill(0, array[32])::vector as query, id, true as relevant from products;
        create table upside_down as
            select q.embedding as query, d.id, d.id <> q.id as relevant
            from products as q, products as d
            where q.id < 20 and (d.id = q.id or d.id between 1000 and 1010);
        create table all_equal as
            select d.embedding as query, d.id, d.id % 2 = 0 as relevant from products as d where d.id < 60;
        """
    )
    return products


def snapshot(connection: Connection) -> list[Any]:
    """Everything that a refused call might have left behind."""
    return [
        connection.execute(query).fetchall()
        for query in (
            "select table_name, resolution, index_name from funnelvec.resolutions order by 1, 2",
            "select name, funnel, calibration from funnelvec.funnels order by 1",
            "select count(*) from funnelvec.calibrations",
            "select attrelid::regclass::text, attname from pg_attribute where attnum > 0 order by 1, 2",
            "select oid, prosrc from pg_proc where pronamespace = 'public'::regnamespace order by 1",
        )
    ]


def refuse(connection: Connection, call: str, state: str, message: str, hint: str | None) -> None:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(f"select * from {call}")  # type: ignore[arg-type]
    diagnostic = caught.value.diag
    said = (diagnostic.sqlstate, diagnostic.message_primary or "", diagnostic.message_hint or "")
    assert said[0] == state and message in said[1] and (hint or "") in said[2], (call, said)


def test_functions_refuse(shop: Connection) -> None:
    before = snapshot(shop)
    for call, *expected in REFUSED:
        refuse(shop, f"funnelvec.{call}", *expected)
        assert snapshot(shop) == before, call


def test_searches_refuse(shop: Connection) -> None:
    for arguments, *expected in REFUSED_SEARCHES:
        refuse(shop, f"two_stages({arguments})", *expected)


def test_a_search_through_the_scan_refuses_the_same(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(50))
    owner_conn.execute("select funnelvec.add_resolution('products', 'embedding', '16:f16')")
    owner_conn.execute(
        "select funnelvec.create_funnel('two_stages', 'products', 'embedding', '16:f16@100 > 32:f32')"
    )
    for arguments, *expected in REFUSED_SEARCHES:
        refuse(owner_conn, f"two_stages({arguments})", *expected)


HOSTILE = [
    "'; drop table products; --",
    '"; drop table products; --',
    "products; select 1",
    "x' || (select 1) || '",
    "$body$; drop table products; $body$",
    "{query}",
    "%s%I%L",
    "a\nb",
    "\\'; drop table products; --",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_only_text(products: Connection, hostile: str) -> None:
    """Whatever stands in a text argument, it is refused or it is a name; it never runs."""
    calls = [
        "select funnelvec.add_resolution(%s, 'embedding', '16:f16')",
        "select funnelvec.add_resolution('products', %s, '16:f16')",
        "select funnelvec.add_resolution('products', 'embedding', %s)",
        "select funnelvec.drop_resolution('products', 'embedding', %s)",
        "select funnelvec.create_funnel('f', 'products', %s, '32:f32')",
        "select funnelvec.create_funnel('f', 'products', 'embedding', %s)",
        "select funnelvec.drop_funnel(%s)",
        "select funnelvec.search_sql(%s)",
        f"select * from funnelvec.explain(%s, '{Q}')",
        "select * from funnelvec.measure_recall(%s)",
        "select * from funnelvec.calibrate(%s, 'products')",
        "select * from funnelvec.calibrate('two_stages', %s)",
        "select funnelvec.relevance(%s, 0.5)",
        "select * from funnelvec.status(%s)",
        f"select * from two_stages('{Q}', filter => jsonb_build_object(%s::text, 1))",
    ]
    for call in calls:
        with pytest.raises(psycopg.Error):
            products.execute(call, (hostile,))  # type: ignore[arg-type]
    filter_value = (
        f"select * from two_stages('{Q}', filter => jsonb_build_object('name', %s::text))"
    )
    assert products.execute(filter_value, (hostile,)).fetchall() == []  # type: ignore[arg-type]
    assert products.execute("select count(*) from products").fetchone() == (2000,)


@pytest.mark.parametrize("hostile", [*HOSTILE, "Mixed Case", "select", "ünïcødé", 'quo"te'])
def test_hostile_names_work(owner_conn: Connection, hostile: str) -> None:
    """A table, column, key and funnel may be called anything that Postgres allows."""
    fill(owner_conn, vectors(300), table=(hostile,), key=hostile + " key", vector=hostile + " vec")
    table = owner_conn.execute("select quote_ident(%s)", (hostile,)).fetchone()
    assert table is not None
    for resolution in ("16:f16", "32:bit"):
        owner_conn.execute(
            "select funnelvec.add_resolution(%s, %s, %s, index => true)",
            (table[0], hostile + " vec", resolution),
        )
    owner_conn.execute(
        "select funnelvec.create_funnel(%s, %s, %s, '16:f16@200 > 32:bit@100 > 32:f32', model => %s)",
        (hostile + " f", table[0], hostile + " vec", hostile),
    )
    quoted = owner_conn.execute("select quote_ident(%s)", (hostile + " f",)).fetchone()
    assert quoted is not None
    function = quoted[0]
    called = function.replace("%", "%%")  # psycopg's own escape
    found = owner_conn.execute(
        f"select * from {called}(%s)",  # type: ignore[arg-type]
        (Q,),
    )
    assert found.description is not None
    assert [column.name for column in found.description] == [hostile + " key", "score", "relevance"]
    assert len(found.fetchall()) == 10
    # A field that begins with a dollar would be an operator; all others can be asked for.
    field = "price" if hostile.startswith("$") else hostile + " key"
    filtered = owner_conn.execute(
        f"select * from {called}(%s, filter => jsonb_build_object(%s::text, 7))",  # type: ignore[arg-type]
        (Q, field),
    ).fetchall()
    assert [row[0] for row in filtered] == [7]
    explained = owner_conn.execute(
        "select stage, rows_out from funnelvec.explain(%s, %s)", (function, Q)
    ).fetchall()
    assert explained == [(1, 200), (2, 100), (3, 10)]
    owner_conn.execute("select * from funnelvec.measure_recall(%s, 5)", (function,))
    owner_conn.execute("select funnelvec.drop_funnel(%s)", (function,))
    owner_conn.execute(
        "select funnelvec.drop_resolution(%s, %s, '16:f16')", (table[0], hostile + " vec")
    )
