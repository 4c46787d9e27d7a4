"""The Python engine on tables of every kind that SQL serves, most of them made by SQL."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli, errors
from tests import awaited
from tests.sql.tables import DIMS, fill, vectors

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine, Table

    Connection = psycopg.Connection[Any]

METRICS = ("cosine", "dot", "euclidean")
Q = vectors(1, seed=3)[0]


@pytest.fixture(params=["sync", "async"])
def engine(request: pytest.FixtureRequest, owner_url: str) -> Iterator[Engine]:
    with awaited.opened(owner_url, request.param) as opened:
        yield opened


def exact(metric: str, rows: Any, query: Any) -> Any:
    """(n,) float64 scores, higher is better."""
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "dot":
        return rows @ query
    if metric == "euclidean":
        return -np.linalg.norm(rows - query, axis=1)
    return rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_every_call_under_every_metric(engine: Engine, metric: Any, dtype: Any) -> None:
    table = engine.create("docs", dims=DIMS, metric=metric, dtype=dtype)
    assert (table.metric, table.code, table.status()) == (metric, dtype, [])
    matrix = vectors(300) * np.linspace(0.2, 3, 300, dtype=np.float32)[:, np.newaxis]
    table.add(range(300), matrix)
    table.add_resolution("16:f16", index=True)
    table.create_funnel("docs_search", f"16:f16@100 > 32:{dtype}")
    if dtype == "f16":
        matrix = matrix.astype(np.float16)
    query = Q.astype(matrix.dtype)
    scores = exact(metric, matrix, query)
    hits = table.search(Q)
    assert [hit.score for hit in hits] == pytest.approx(
        [scores[hit.id] for hit in hits], rel=2e-6, abs=2e-6
    )
    assert len({hit.id for hit in hits} & set(np.argsort(-scores)[:10].tolist())) >= 9
    explained = table.explain(Q)
    assert explained.stages[0].access.startswith("index")
    assert table.measure_recall(sample=10).recall > 0.9
    judged = [(query, hit) for query in vectors(20, seed=8) for hit in table.search(query, k=10)]
    middle = np.median([hit.score for _, hit in judged])
    fitted = table.calibrate(
        fv.Judgments(
            np.array([query for query, _ in judged]),
            [hit.id for _, hit in judged],
            np.array([hit.score > middle for _, hit in judged]),
        )
    )
    assert fitted.metric == metric  # type: ignore[attr-defined]
    assert table.search(Q)[0].relevance is not None
    assert [s.resolution for s in table.status()] == ["16:f16"]


def test_the_metric_is_found_again(engine: Any, owner_url: str) -> None:
    engine.create("docs", dims=4, metric="dot")
    engine.create("notes", dims=4)
    with fv.connect(owner_url) as other:
        docs, notes = other.table("docs"), other.table("notes")
        assert (docs.metric, notes.metric) == ("dot", "cosine")
        docs.create_funnel("docs_search", "4:f32")
        with pytest.raises(errors.Conflict, match="for the metric dot, not cosine"):
            docs.create_funnel("f", "4:f32", metric="cosine")
        with pytest.raises(errors.Conflict, match="for the metric dot, not euclidean"):
            docs.add_resolution("2:f16", metric="euclidean")
        notes.create_funnel("notes_search", "4:f32", metric="euclidean")
        assert notes.metric == "euclidean"
        notes.drop_funnel("notes_search")
        assert notes.metric == "cosine"
        notes.add_resolution("2:f16", metric="dot")
        assert (notes.metric, docs.metric) == ("dot", "dot")


def test_a_table_is_made_whole_or_not_at_all(engine: Any) -> None:
    wrong: list[dict[str, Any]] = [
        {"metric": "l3"},
        {"dtype": "f64"},
        {"id": ["a", "b"], "id_kind": ["text"]},
        {"id": ["embedding", "b"]},
        {"id": []},
    ]
    for arguments in wrong:
        with pytest.raises(errors.InvalidInput):
            engine.create("docs", dims=4, **arguments)
        with pytest.raises(errors.NotFound):
            engine.table("docs")


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_zero_vectors(engine: Engine, metric: Any) -> None:
    table = engine.create("docs", dims=4, metric=metric)
    table.add([1, 2, 3], [[0, 0, 0, 0], [1, 0, 0, 0], [-1, -1, 0, 0]])
    table.create_funnel("docs_search", "4:f32")
    best = {"dot": [2, 1, 3], "euclidean": [2, 1, 3]}[metric]
    assert [hit.id for hit in table.search([1, 0, 0, 0])] == best
    assert table.search([0, 0, 0, 0])[0].score == 0
    assert table.explain([0, 0, 0, 0]).stages[0].rows_out == 3


def test_what_needs_a_direction_is_refused(engine: Engine) -> None:
    table = engine.create("docs", dims=4)
    table.create_funnel("docs_search", "4:f32")
    for call in (table.search, table.explain):
        with pytest.raises(errors.InvalidInput, match="zero"):
            call([0, 0, 0, 0])
    judged = fv.Judgments(np.zeros((1, 4), np.float32), [1], np.array([True]))
    with pytest.raises(errors.InvalidInput, match="zero"):
        table.calibrate(judged)
    with pytest.raises(errors.InvalidInput, match="zero in row 1"):
        table.add([1, 2], [[1, 2, 3, 4], [0, 0, 0, 0]])


def test_what_16_bit_floats_cannot_hold_is_refused(engine: Engine) -> None:
    table = engine.create("docs", dims=4, dtype="f16")
    table.create_funnel("docs_search", "4:f16")
    with pytest.raises(errors.InvalidInput, match="float16 numbers; found inf in row 0"):
        table.add([1], [[65520, 1, 1, 1]])
    with pytest.raises(errors.InvalidInput, match="float16"):
        table.search([1, 1, 1, -70000])
    with pytest.raises(errors.InvalidInput, match="zero"):
        table.add([1], [[1e-9, 0, 0, 0]])
    with pytest.raises(errors.SpecError, match="2:f16"):
        table.add_resolution("2:f32")
    with pytest.raises(errors.SpecError, match="4:f16"):
        table.create_funnel("f", "4:f32")
    table.add([1], [[65519, 0, 0, 0]])
    assert table.search([1, 0, 0, 0])[0].score == pytest.approx(1)


def keyed(connection: Connection, by: str = "") -> None:
    connection.execute(
        f"""
        create table docs (
            n bigint not null, "Day" date not null, tenant text not null, price integer,
            embedding halfvec({DIMS}), primary key (tenant, "Day", n)
        ) {by}
        """  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("partitioned", [False, True])
def test_a_key_of_several_columns(
    engine: Any, owner_url: str, partitioned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with engine.connection() as connection:
        keyed(connection, "partition by list (tenant)" if partitioned else "")
        if partitioned:
            connection.execute("create table docs_a partition of docs for values in ('a', 'B')")
            connection.execute("create table docs_rest partition of docs default")
    table: Table = engine.table("docs")
    assert (table.key, table.code) == (("tenant", "Day", "n"), "f16")
    day = datetime.date(2024, 2, 29)
    keys: list[Any] = [("aBé"[i % 3], day, i) for i in range(300)]
    assert table.add(keys, vectors(300), columns={"price": list(range(300))}) == 300
    with pytest.raises(errors.Conflict, match="already exists"):
        table.add([("new", day, 1), keys[5]], vectors(2))
    assert len(table) == 300
    table.add(
        [("a", day, 1000), ("B", day, 1001), ("B", day, 999)], np.repeat(vectors(1), 3, axis=0)
    )
    table.add_resolution("16:f16", index=True)
    table.create_funnel("docs_search", "16:f16@100 > 32:f16")
    hits = table.search(vectors(1)[0], k=4)
    assert [hit.id for hit in hits] == [
        ("B", day, 999), ("B", day, 1001), ("a", day, 0), ("a", day, 1000)
    ]  # fmt: skip
    assert isinstance(hits[0].id, tuple)
    assert {hit.id[0] for hit in table.search(Q, filter={"tenant": "é"})} == {"é"}  # type: ignore[index]
    picked = [keys[i] for i in range(40)]
    judged = fv.Judgments(
        np.repeat(vectors(300)[:40], 2, axis=0),
        [key for pair in zip(picked, keys[100:140], strict=True) for key in pair],
        np.array([True, False] * 40),
    )
    assert table.calibrate(judged).n_pairs == 80  # type: ignore[attr-defined]
    assert table.search(Q)[0].relevance is not None
    assert table.measure_recall(sample=10).recall > 0.8
    like = json.dumps(["a", "2024-02-29", 0])
    command = ["search", owner_url, "docs", "--like", like, "-k", "3"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tenant", "Day", "n", "score", "relevance"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["B", "2024-02-29", number] for number in ("999", "1001")
    ] + [["a", "2024-02-29", "1000"]]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"] == ["tenant", "Day", "n"]
    assert found["hits"][0]["id"] == ["B", "2024-02-29", 999]
    with pytest.raises(SystemExit):
        cli.main(["search", owner_url, "docs", "--like", '["a"]'])
    assert "tenant, Day, n" in capsys.readouterr().err


def test_bad_keys_of_several_columns(engine: Any) -> None:
    with engine.connection() as connection:
        keyed(connection)
    table = engine.table("docs")
    day = datetime.date(2024, 2, 29)
    wrong: list[tuple[Any, str]] = [
        (1, "tuple of 3 values .text, date, integer."),
        (("a", day), "tuple of 3 values"),
        ("abc", "tuple of 3 values"),
        (("a", "yesterday", 1), "row 0, part 2"),
        (("a", day, None), "part 3: the key is None"),
        (("a", day, float("nan")), "part 3: expected a whole number"),
    ]
    for key, said in wrong:
        with pytest.raises(errors.InvalidInput, match=said):
            table.add([key], vectors(1))
    with pytest.raises(errors.InvalidInput, match="'tenant' is given twice"):
        table.add([("a", day, 1)], vectors(1), columns={"tenant": ["b"]})
    assert len(table) == 0


def test_vector_columns_of_one_table_have_metrics_of_their_own(engine: Any, owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as connection:
        fill(connection, vectors(50))
        connection.execute("alter table products add column title halfvec(8)")
        connection.execute("update products set title = subvector(embedding, 1, 8)::halfvec(8)")
    with pytest.raises(errors.InvalidInput, match="embedding, title"):
        engine.table("products")
    wide = engine.table("products", vector="embedding")
    title = engine.table("products", vector="title")
    title.create_funnel("by_title", "8:f16", metric="euclidean")
    wide.create_funnel("by_text", "32:f32")
    assert (wide.metric, title.metric) == ("cosine", "euclidean")
    assert title.search(vectors(50)[7, :8], k=1, funnel="by_title")[0].id == 7
    assert wide.search(vectors(50)[7], k=1, funnel="by_text")[0].id == 7
