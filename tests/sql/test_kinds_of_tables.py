"""Metrics, halfvec columns, keys of several columns, partitions, several vectors, other schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from funnelvec.install.apply import install
from tests.sql.tables import DIMS, fill, search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Server

    Connection = psycopg.Connection[Any]

METRICS = ("cosine", "dot", "euclidean")
Q = vectors(1, seed=3)[0]


def exact_scores(metric: str, matrix: Any, query: Any) -> Any:
    """(n,) float64 scores, higher is better, from float64 arithmetic."""
    rows, wanted = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "dot":
        return rows @ wanted
    if metric == "euclidean":
        return -np.linalg.norm(rows - wanted, axis=1)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted)
    return (rows @ wanted) / lengths


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("base", ["vector", "halfvec"])
@pytest.mark.parametrize("index", [False, True])
def test_scores_and_order(owner_conn: Connection, metric: str, base: str, index: bool) -> None:
    query = Q
    matrix = vectors(600) * np.linspace(0.2, 3, 600, dtype=np.float32)[:, None]
    fill(owner_conn, matrix)
    if base == "halfvec":
        # The query has the type of the column, so it is rounded like the rows.
        matrix = matrix.astype(np.float16).astype(np.float32)
        query = Q.astype(np.float16).astype(np.float32)
        owner_conn.execute("alter table products alter column embedding type halfvec(32)")
    code = "f32" if base == "vector" else "f16"
    for resolution in ("16:f16", "32:bit"):
        owner_conn.execute(
            "select funnelvec.add_resolution('products', 'embedding', %s, index => %s, metric => %s)",
            (resolution, index, metric),
        )
    for name, funnel in (
        ("two", f"16:f16@300 > 32:{code}"),
        ("three", f"16:f16@400 > 32:bit@300 > 32:{code}"),
        ("one", f"32:{code}"),
    ):
        owner_conn.execute(
            "select funnelvec.create_funnel(%s, 'products', 'embedding', %s, metric => %s)",
            (name, funnel, metric),
        )
        rows = search(owner_conn, name, text(Q), k=10)
        scores = exact_scores(metric, matrix, query)
        assert [row[1] for row in rows] == pytest.approx(
            [scores[row[0]] for row in rows], rel=2e-6, abs=2e-6
        )
        assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
        best = set(np.argsort(-scores)[:10].tolist())
        # Signs know nothing of lengths, which decide under the inner product.
        wanted = 10 if name == "one" else 9 if name == "two" else 3
        assert len({row[0] for row in rows} & best) >= wanted
        if index and name != "one":
            access = search(owner_conn, "funnelvec.explain", name, query=text(Q))[0][6]
            assert access == "index products_embedding_16_f16_idx"


@pytest.mark.parametrize("metric", METRICS)
def test_recall_calibration_and_status_under_every_metric(
    owner_conn: Connection, metric: str
) -> None:
    fill(owner_conn, vectors(400))
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true, metric => %s)",
        (metric,),
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '16:f16@100 > 32:f32')"
    )
    kept = owner_conn.execute("select metric from funnelvec.funnels").fetchone()
    assert kept == (metric,)  # a column has one metric: that of its resolutions
    recall = owner_conn.execute("select recall from funnelvec.measure_recall('f', 20)").fetchall()
    assert all(0.8 <= share <= 1 for (share,) in recall)
    owner_conn.execute(
        """
        create table judgments as
        select q.embedding as query, h.id, h.rank <= 8 as relevant
        from (select * from products where id < 10) as q
        cross join lateral (
            select s.*, row_number() over () as rank from f(q.embedding, 20) as s) as h
        """
    )
    owner_conn.execute("select * from funnelvec.calibrate('f', 'judgments')")
    rows = search(owner_conn, "f", text(Q), k=50)
    relevances = [row[2] for row in rows]
    assert relevances == sorted(relevances, reverse=True)
    middle = (relevances[4] + relevances[5]) / 2
    assert search(owner_conn, "f", text(Q), k=50, min_relevance=middle) == rows[:5]
    status = owner_conn.execute(
        "select coverage from funnelvec.status() where coverage is not null"
    ).fetchall()
    assert status == [(1.0,)]


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_zero_vectors_count_where_the_metric_knows_them(
    owner_conn: Connection, metric: str
) -> None:
    matrix = vectors(50)
    matrix[7] = 0
    fill(owner_conn, matrix)
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '32:f32', metric => %s)",
        (metric,),
    )
    assert 7 in {row[0] for row in search(owner_conn, "f", text(Q), k=50)}
    rows = search(owner_conn, "f", text(Q * 0), k=50)
    assert len(rows) == 50


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_a_long_vector_saturates_and_does_not_break_the_insert(
    owner_conn: Connection, metric: str
) -> None:
    fill(owner_conn, vectors(50))
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '32:f16', metric => %s)",
        (metric,),
    )
    long = vectors(1, seed=5)[0] * np.float32(1e7)
    owner_conn.execute("insert into products (id, embedding) values (1000, %s)", (text(long),))
    row = owner_conn.execute(
        "select embedding_32_f16::vector::float4[]::float8[] from products where id = 1000"
    ).fetchone()
    assert row is not None
    stored = np.array(row[0])
    assert np.linalg.norm(stored) == pytest.approx(65504, rel=1e-3)
    cosine = stored @ long / np.linalg.norm(stored) / np.linalg.norm(long)
    assert cosine == pytest.approx(1, abs=1e-5)
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '32:f16@20 > 32:f32')"
    )
    assert search(owner_conn, "f", text(long), k=1)[0][0] == 1000


def test_a_key_of_several_columns(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(300))
    owner_conn.execute(
        """
        alter table products drop constraint products_pkey;
        alter table products add column tenant text not null default 'B';
        update products set tenant = 'a' where id % 2 = 0;
        alter table products add primary key (tenant, id);
        """
    )
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true)"
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '16:f16@100 > 32:f32')"
    )
    cursor = owner_conn.execute("select * from f(%s, 300 / 3)", (text(Q),))
    assert cursor.description is not None
    assert [column.name for column in cursor.description] == ["tenant", "id", "score", "relevance"]
    rows = cursor.fetchall()
    assert all(row[0] == ("a" if row[1] % 2 == 0 else "B") for row in rows)
    filtered = search(owner_conn, "f", text(Q), k=5, filter='{"tenant": "a"}')
    assert [row[0] for row in filtered] == ["a"] * 5
    owner_conn.execute("update products set embedding = %s where id < 4", (text(Q),))
    tied = search(owner_conn, "f", text(Q), k=4)
    assert [(row[0], row[1]) for row in tied] == [("B", 1), ("B", 3), ("a", 0), ("a", 2)]
    recall = owner_conn.execute("select recall from funnelvec.measure_recall('f', 20)").fetchall()
    assert recall[-1][0] > 0.9
    owner_conn.execute(
        """
        create table judgments as
        select q.embedding as query, h.tenant, h.id, h.score > 0.6 as relevant
        from (select * from products where id between 10 and 30) as q
        cross join lateral f(q.embedding, 20) as h
        """
    )
    fitted = owner_conn.execute("select pairs, missing from funnelvec.calibrate('f', 'judgments')")
    assert fitted.fetchone() == (420, 0)
    assert search(owner_conn, "f", text(Q))[0][3] is not None


def test_a_unique_index_serves_as_the_key(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(60))
    owner_conn.execute(
        """
        alter table products drop constraint products_pkey;
        create unique index by_name on products (name);
        """
    )
    create = "select funnelvec.create_funnel('f', 'products', 'embedding', '32:f32')"
    with pytest.raises(psycopg.Error, match="no key"):
        owner_conn.execute(create)  # names may be null
    owner_conn.execute("alter table products alter column name set not null")
    owner_conn.execute("create unique index covering on products (id) include (price, embedding)")
    owner_conn.execute("alter table products alter column id set not null")
    owner_conn.execute(create)
    cursor = owner_conn.execute("select * from f(%s)", (text(Q),))
    assert cursor.description is not None
    assert [column.name for column in cursor.description] == ["name", "score", "relevance"]


PARTITIONED = {
    "range": ("range (id)", ["from (0) to (150)", "from (150) to (10000)"]),
    "list": ("list (part)", ["in ('a')", "in ('b', 'c')"]),
    "hash": ("hash (id)", ["with (modulus 2, remainder 0)", "with (modulus 2, remainder 1)"]),
}


@pytest.mark.parametrize("kind", PARTITIONED)
def test_partitioned_tables(owner_conn: Connection, kind: str) -> None:
    by, bounds = PARTITIONED[kind]
    owner_conn.execute(
        f"""
        create table products (
            id bigint, part text not null, embedding vector({DIMS}), price double precision,
            primary key (id, part)
        ) partition by {by}
        """  # type: ignore[arg-type]
    )
    for i, bound in enumerate(bounds):
        owner_conn.execute(
            f"create table products_{i} partition of products for values {bound}"  # type: ignore[arg-type]
        )
    matrix = vectors(600)
    with owner_conn.cursor() as cursor, cursor.copy("copy products from stdin") as copy:
        for i, row in enumerate(matrix):
            copy.write_row((i, "abc"[i % 3], text(row), float(i)))
    for resolution in ("16:f16", "32:bit"):
        owner_conn.execute(
            "select funnelvec.add_resolution('products', 'embedding', %s, index => true)",
            (resolution,),
        )
    owner_conn.execute("analyze products")
    owner_conn.execute(
        "select funnelvec.create_funnel("
        "  'f', 'products', 'embedding', '16:f16@200 > 32:bit@150 > 32:f32')"
    )
    rows = search(owner_conn, "f", text(Q), k=10)
    truth = np.argsort(-exact_scores("cosine", matrix, Q))[:10].tolist()
    assert len({row[0] for row in rows} & set(truth)) >= 8
    filtered = search(owner_conn, "f", text(Q), k=20, filter='{"part": "b", "price": {"$lt": 60}}')
    assert len(filtered) == 20 and {row[1] for row in filtered} == {"b"}
    stages = search(owner_conn, "funnelvec.explain", "f", query=text(Q))
    assert [row[3:5] for row in stages] == [(600, 200), (200, 150), (150, 10)]
    assert stages[0][6].startswith("index")
    status = owner_conn.execute("select rows, coverage, index_bytes > 0 from funnelvec.status()")
    assert status.fetchall() == [(600, 1.0, True)] * 2
    recall = owner_conn.execute("select recall from funnelvec.measure_recall('f', 10)").fetchall()
    assert recall[0][0] > 0.9
    owner_conn.execute("select funnelvec.drop_funnel('f')")
    for resolution in ("16:f16", "32:bit"):
        owner_conn.execute(
            "select funnelvec.drop_resolution('products', 'embedding', %s)", (resolution,)
        )


def test_unlogged_tables(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(100))
    owner_conn.execute("alter table products set unlogged")
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true)"
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '16:f16@50 > 32:f32')"
    )
    assert len(search(owner_conn, "f", text(Q))) == 10


def test_several_vector_columns_of_one_table(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(200))
    owner_conn.execute("alter table products add column title vector(8)")
    owner_conn.execute("update products set title = subvector(embedding, 1, 8)::vector(8)")
    for column, dims, metric in (("embedding", 32, "cosine"), ("title", 8, "dot")):
        owner_conn.execute(
            "select funnelvec.add_resolution('products', %s, '4:f16', index => true, metric => %s)",
            (column, metric),
        )
        owner_conn.execute(
            "select funnelvec.create_funnel(%s, 'products', %s, %s)",
            (f"by_{column}", column, f"4:f16@100 > {dims}:f32"),
        )
    assert len(search(owner_conn, "by_embedding", text(Q))) == 10
    assert len(search(owner_conn, "by_title", text(Q[:8]))) == 10
    owner_conn.execute("select funnelvec.drop_funnel('by_title')")
    owner_conn.execute("select funnelvec.drop_resolution('products', 'title', '4:f16')")
    assert len(search(owner_conn, "by_embedding", text(Q))) == 10


def test_pgvector_in_a_schema_off_the_search_path(pg_server: Server, new_database: Any) -> None:
    database = new_database("empty")
    with psycopg.connect(database.superuser_url, autocommit=True) as admin:
        admin.execute('create schema "Odd schema"')
        admin.execute('create extension vector schema "Odd schema"')
        admin.execute('grant usage on schema "Odd schema" to public')
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        install(owner, mode=pg_server.install_mode)
        owner.execute('set search_path = public, "Odd schema"')
        fill(owner, vectors(300))
        owner.execute("reset search_path")
        for resolution in ("16:f16", "32:bit"):
            owner.execute(
                "select funnelvec.add_resolution('products', 'embedding', %s, index => true)",
                (resolution,),
            )
        owner.execute(
            "select funnelvec.create_funnel("
            "  'f', 'products', 'embedding', '16:f16@100 > 32:bit@80 > 32:f32')"
        )
        assert len(search(owner, "f", text(Q), filter='{"price": {"$gt": 5}}')) == 10
        explained = search(owner, "funnelvec.explain", "f", query=text(Q))
        assert explained[0][6] == "index products_embedding_16_f16_idx"
        assert len(owner.execute("select * from funnelvec.measure_recall('f', 5)").fetchall()) == 3
        assert len(owner.execute("select * from funnelvec.status()").fetchall()) == 2
