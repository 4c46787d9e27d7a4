"""explain, measure_recall, status, search_sql: they tell the truth about what a search does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.sql.tables import DIMS, ROWS, fill, search, text, vectors

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])


def explain(connection: Connection, funnel: str, **named: Any) -> list[tuple[Any, ...]]:
    return search(connection, "funnelvec.explain", funnel, query=Q, **named)


def test_explain_shows_what_each_stage_let_through(products: Connection) -> None:
    rows = explain(products, "three_stages", k=7)
    assert [row[:5] for row in rows] == [
        (1, "16:f16", 200, ROWS, 200),
        (2, "32:bit", 100, 200, 100),
        (3, "32:f32", None, 100, 7),
    ]
    assert [row[6] for row in rows] == ["index products_embedding_16_f16_idx", "rescore", "rescore"]
    assert all(row[5] >= 0 for row in rows)


def test_explain_says_iterating_and_exact(products: Connection) -> None:
    wide = explain(products, "wide")
    assert wide[0][6] == "index products_embedding_16_f16_idx, iterating"
    narrow = explain(products, "two_stages", filter='{"price": {"$lt": 30}}')
    assert narrow[0][4] == 30
    assert "scan" in narrow[0][6]


def test_explain_leaves_settings_alone(products: Connection) -> None:
    products.execute("begin")
    products.execute("set local hnsw.ef_search = 55")
    explain(products, "wide")
    assert products.execute("show hnsw.ef_search").fetchone() == ("55",)
    assert products.execute("show enable_seqscan").fetchone() == ("on",)
    products.execute("rollback")


def test_search_sql_gives_what_the_function_gives(products: Connection) -> None:
    products.execute("set hnsw.ef_search = 1000")
    products.execute("set hnsw.iterative_scan = relaxed_order")
    for name, named in (
        ("two_stages", {}),
        ("three_stages", {}),
        ("three_stages", {"filter": '{"price": {"$gte": 500}}'}),
    ):
        shown = products.execute(
            "select funnelvec.search_sql(%s, %s)", (name, named.get("filter"))
        ).fetchone()
        assert shown is not None
        products.execute(f"prepare shown(vector, integer) as {shown[0]}")  # type: ignore[arg-type]
        rows = products.execute(f"execute shown('{Q}', 10)").fetchall()  # type: ignore[arg-type]
        products.execute("deallocate shown")
        assert rows == search(products, name, Q, **named)


def test_recall_equals_a_count_by_hand(owner_conn: Connection) -> None:
    matrix = vectors(400, seed=1)
    fill(owner_conn, matrix)
    owner_conn.execute("select funnelvec.add_resolution('products', 'embedding', '4:f16')")
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '4:f16@20 > 32:f32')"
    )
    k = 5
    measured = owner_conn.execute(
        "select * from funnelvec.measure_recall('f', sample => 400, k => %s)", (k,)
    ).fetchall()
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    prefix = matrix[:, :4] / np.linalg.norm(matrix[:, :4], axis=1, keepdims=True)
    kept = 0
    for i in range(400):
        scores = unit @ unit[i]
        scores[i] = -np.inf
        truth = np.argsort(-scores, kind="stable")[:k]
        # The row itself takes one of the 20 places: it is in the table that the funnel searches.
        shortlist = np.argsort(-(prefix @ prefix[i]), kind="stable")[:20]
        kept += len(set(truth) & set(shortlist))
    recall = kept / (400 * k)
    assert 0.2 < recall < 0.98  # a test that can fail
    for row in measured:
        assert abs(row[3] - recall) < 0.003  # float16 reorders a few near ties
        assert row[4] <= row[3] <= row[5]
        assert row[6] == 400


def test_recall_is_repeatable_by_seed(products: Connection) -> None:
    query = "select stage, recall from funnelvec.measure_recall('three_stages', 40, seed => %s)"
    first, again, other = (products.execute(query, (seed,)).fetchall() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_status_counts_rows_that_no_index_can_see(owner_conn: Connection) -> None:
    matrix = vectors(500)
    matrix[:20, :8] = 0  # these have no direction in their first 8 dimensions
    matrix[20:25] = 0
    fill(owner_conn, matrix)
    owner_conn.execute("update products set embedding = null where id between 30 and 39")
    for resolution in ("8:f16", "16:f32", "32:bit"):
        owner_conn.execute(
            "select funnelvec.add_resolution('products', 'embedding', %s, index => true)",
            (resolution,),
        )
    rows = owner_conn.execute(
        "select resolution, rows, filled, coverage, index_name is not null, index_bytes > 0, advice"
        "  from funnelvec.status('products')"
    ).fetchall()
    assert [row[:6] for row in rows] == [
        ("8:f16", 500, 465, 0.93, True, True),
        ("16:f32", 500, 485, 0.97, True, True),
        ("32:bit", 500, 490, 0.98, True, True),
    ]
    assert "35 rows" in rows[0][6]


def test_status_tells_balanced_signs_from_lopsided_ones(owner_conn: Connection) -> None:
    matrix = vectors(800)
    fill(owner_conn, matrix, table=("balanced",))
    fill(owner_conn, np.abs(matrix) + matrix * 0.01, table=("lopsided",))
    for table in ("balanced", "lopsided"):
        owner_conn.execute("select funnelvec.add_resolution(%s, 'embedding', '32:bit')", (table,))
    rows = owner_conn.execute(
        'select "table"::text, bit_balance, advice from funnelvec.status() order by 1'
    ).fetchall()
    assert rows[0][1] > 0.9 and rows[0][2] == ""
    assert rows[1][1] < 0.05 and "lopsided" in rows[1][2]
    shares = (matrix > 0).mean(axis=0)
    assert abs(rows[0][1] - np.mean(1 - np.abs(2 * shares - 1))) < 1e-9


def test_rows_without_a_prefix_are_found_by_the_rest(owner_conn: Connection) -> None:
    """A row whose prefix is zero is the last candidate, not an error and not lost for good."""
    matrix = vectors(50, dims=DIMS)
    matrix[7, :8] = 0
    fill(owner_conn, matrix)
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '8:f16', index => true)"
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '8:f16@100 > 32:f32')"
    )
    query = matrix[7].copy()
    query[:8] = 0.01  # the query does have a direction there
    assert search(owner_conn, "f", text(query))[0][0] == 7


def test_status_flags_a_column_that_is_gone_and_shows_the_others(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(20), table=("one",))
    fill(owner_conn, vectors(20), table=("two",))
    for table in ("one", "two"):
        owner_conn.execute(
            "select funnelvec.add_resolution(%s, 'embedding', '32:f32', index => true)", (table,)
        )
    owner_conn.execute("alter table one rename column embedding to renamed")
    rows = owner_conn.execute(
        'select "table"::text, rows, advice from funnelvec.status() order by 1'
    ).fetchall()
    advice = "column embedding was renamed to renamed: select funnelvec.repair();"
    assert rows == [("one", 0, advice), ("two", 20, "")]


def notes_of(rows: list[tuple[Any, ...]], stage: int = 1) -> list[str]:
    return str(rows[stage - 1][9]).splitlines()


def test_explain_counts_blocks_per_stage(products: Connection) -> None:
    """A stage's blocks are its own, and together they are those of the plan."""
    explain(products, "three_stages")
    rows = explain(products, "three_stages")
    assert all(row[7] >= 0 and row[8] == 0 for row in rows)  # the second run finds all in memory
    assert rows[0][7] > 100  # the index walks, the rest rescores what is carried along
    assert rows[1][7] == 0
    products.execute("set hnsw.ef_search = 200; set enable_seqscan = off")
    statement = products.execute("select funnelvec.search_sql('three_stages')").fetchone()
    assert statement is not None
    products.execute(f"prepare shown(vector, integer) as {statement[0]}")  # type: ignore[arg-type]
    plan = products.execute(
        f"explain (analyze, buffers, format json) execute shown('{Q}', 10)"  # type: ignore[arg-type]
    ).fetchone()
    assert plan is not None
    assert sum(row[7] for row in rows) == plan[0][0]["Plan"]["Shared Hit Blocks"]


def test_explain_has_no_notes_where_all_is_well(products: Connection) -> None:
    for funnel in ("two_stages", "three_stages", "signs"):
        explain(products, funnel)  # the first run of all may have to read
        assert [row[9] for row in explain(products, funnel)] == [""] * (2 + (funnel[:5] == "three"))


def test_explain_notes_a_first_stage_without_an_index(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(60))
    owner_conn.execute("select funnelvec.add_resolution('products', 'embedding', '8:f16')")
    owner_conn.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '8:f16@20 > 32:f32')"
    )
    (note,) = notes_of(explain(owner_conn, "f"))
    assert note.startswith("no index")
    owner_conn.execute(note.partition(": ")[2])  # the way out is a statement that works  # type: ignore[arg-type]
    rows = explain(owner_conn, "f")
    assert rows[0][6].startswith("index ") and notes_of(rows) == []


def test_explain_notes_which_try_answered_and_why(products: Connection) -> None:
    narrow = notes_of(explain(products, "two_stages", filter='{"price": {"$lt": 30}}'))
    assert narrow[0] == "30 rows match, fewer than the 100 that the stage keeps"
    # Dead rows take places in what the index returns, until they are vacuumed.
    products.execute(
        "delete from products where id in (select id from products order by embedding <=> %s limit 95)",
        (Q,),
    )
    products.execute("select pg_stat_force_next_flush()")
    rows = explain(products, "two_stages")
    assert rows[0][4] == 100 and rows[0][6].endswith(", iterating")
    (note,) = notes_of(rows)
    assert note.endswith("vacuum public.products;") or note.endswith("vacuum products;")
    products.execute("vacuum products")
    assert notes_of(explain(products, "two_stages")) == []


def test_explain_notes_codes_that_are_out_of_line(owner_conn: Connection) -> None:
    matrix = vectors(300, dims=600)
    fill(owner_conn, matrix)
    for resolution in ("32:f16", "500:f32"):
        owner_conn.execute(
            "select funnelvec.add_resolution('products', 'embedding', %s, index => %s)",
            (resolution, resolution == "32:f16"),
        )
    owner_conn.execute(
        "select funnelvec.create_funnel("
        "  'f', 'products', 'embedding', '32:f16@50 > 500:f32@20 > 600:f32')"
    )
    q = text(matrix[0])
    owner_conn.execute("analyze products")
    rows = search(owner_conn, "funnelvec.explain", "f", query=q)
    assert not any("out of line" in row[9] for row in rows)  # the long column should be there
    owner_conn.execute("alter table products alter embedding_500_f32 set storage external")
    owner_conn.execute("update products set embedding = embedding")
    owner_conn.execute("vacuum full analyze products")
    rows = search(owner_conn, "funnelvec.explain", "f", query=q)
    assert "out of line" not in rows[0][9] + rows[2][9]
    (note,) = notes_of(rows, stage=2)
    assert note.startswith("100 % of the codes in embedding_500_f32 lie out of line")
    assert "alter table products alter column embedding_500_f32 set storage main;" in note.replace(
        "public.", ""
    )


def test_explain_notes_statistics_that_are_missing(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(10_000, dims=2))
    owner_conn.execute("select funnelvec.create_funnel('f', 'products', 'embedding', '2:f32')")
    q = text(vectors(1, dims=2)[0])
    missing = notes_of(search(owner_conn, "funnelvec.explain", "f", query=q))[-1]
    assert missing.startswith("the planner has no statistics")
    owner_conn.execute(missing.partition(": ")[2])  # type: ignore[arg-type]
    found = notes_of(search(owner_conn, "funnelvec.explain", "f", query=q))
    assert not any("statistics" in note for note in found)
