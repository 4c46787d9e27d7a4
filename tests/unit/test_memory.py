"""The memory engine beyond searching (tests/agreement runs its searches)."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.engines.base import Engine, Table
from funnelvec.engines.memory import MemoryEngine, MemoryTable
from funnelvec.errors import Conflict, NotFound

DIMS = 16


def vectors(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, DIMS)).astype(np.float32)


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def table(engine: MemoryEngine) -> MemoryTable:
    table = engine.create("docs", dims=DIMS, columns={"year": "integer", "lang": "text"})
    table.add(range(100), vectors(100), columns={"year": list(range(1900, 2000))})
    table.add_resolution("8:f16")
    table.create_funnel("docs_search", "8:f16@20 > 16:f32")
    return table


def judgments(table: MemoryTable, pairs: int = 40) -> fv.Judgments:
    queries = np.repeat(vectors(100)[: pairs // 2], 2, axis=0) + np.float32(0.1)
    ids = [row if relevant else 99 - row for row in range(pairs // 2) for relevant in (1, 0)]
    return fv.Judgments(queries, ids, np.array([True, False] * (pairs // 2)))


def test_it_keeps_the_contract(engine: MemoryEngine, table: MemoryTable) -> None:
    assert isinstance(engine, Engine)
    assert isinstance(table, Table)
    assert engine.capabilities.codes == ("f32", "f16", "bit", "bit2", "bit3", "bit4", "int8")
    assert engine.capabilities.metrics == ("cosine", "dot", "euclidean")
    assert (table.metric, table.code) == ("cosine", "f32")
    assert (table.name, table.vector, table.dims, table.key) == ("docs", "embedding", DIMS, "id")
    assert len(table) == 100
    assert engine.table("docs", vector="embedding") is engine.table("docs")


def test_a_row_finds_itself(table: MemoryTable) -> None:
    for row in (0, 57, 99):
        best = table.search(vectors(100)[row], k=3)[0]
        assert (best.id, best.relevance) == (row, None)
        assert best.score == pytest.approx(1.0, abs=1e-12)


def test_codes_follow_later_rows(table: MemoryTable) -> None:
    table.add_resolution("16:bit")
    table.create_funnel("signs", "16:bit@5 > 16:f32")
    added = -vectors(1, seed=9)
    assert table.add([1000], added) == 1
    assert table.search(added[0], k=1, funnel="signs")[0].id == 1000
    assert {status.filled for status in table.status()} == {101}


def test_the_vectors_given_are_copied(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=DIMS)
    x = vectors(3)
    table.add([1, 2, 3], x)
    table.create_funnel("t_search", "16:f32")
    x[:] = 0
    assert table.search(vectors(3)[1], k=1)[0].score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("text", ["b", "A", "é", "a"]),
        ("uuid", [uuid.UUID(int=n) for n in (7, 2**127, 1, 5)]),
        ("date", [datetime.date(2024, 1, day) for day in (4, 2, 9, 1)]),
        ("number", [0.5, -1.5, 1e300, 0.0]),
        ("boolean", [True, False]),
    ],
)
def test_keys_of_every_kind_break_ties(engine: MemoryEngine, kind: Any, keys: list[Any]) -> None:
    table = engine.create("t", dims=DIMS, id_kind=kind)
    table.add(keys, np.repeat(vectors(1), len(keys), axis=0))
    table.create_funnel("t_search", "16:f32")
    assert [hit.id for hit in table.search(vectors(1)[0])] == sorted(keys)


def test_keys_of_several_columns(engine: MemoryEngine) -> None:
    table = engine.create(
        "t", dims=DIMS, id=["tenant", "n"], id_kind=["text", "integer"], columns={"year": "integer"}
    )
    assert table.key == ("tenant", "n")
    keys = [("b", 1), ("a", 10), ("B", 5), ("a", 9)]
    table.add(keys, np.repeat(vectors(1), 4, axis=0), columns={"year": [1, 2, 3, 4]})
    table.add([["c", np.int64(3)]], vectors(1, seed=4))  # type: ignore[list-item]
    table.create_funnel("t_search", "16:f32")
    assert [hit.id for hit in table.search(vectors(1)[0], k=4)] == sorted(keys)
    assert [hit.id for hit in table.search(vectors(1)[0], filter={"tenant": "c"})] == [("c", 3)]
    with pytest.raises(Conflict, match=r"the key \('a', 9\)"):
        table.add([("d", 1), ("a", 9)], vectors(2))
    assert len(table) == 5
    assert engine.create("one", dims=DIMS, id=["n"]).key == "n"
    assert engine.create("same", dims=DIMS, id=["a", "b"], id_kind="uuid").key == ("a", "b")


def test_a_column_of_16_bit_floats(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=DIMS, dtype="f16")
    assert table.code == "f16"
    table.add(range(50), vectors(50))
    table.add_resolution("8:f16")
    table.create_funnel("t_search", "8:f16@20 > 16:f16")
    rounded = vectors(50).astype(np.float16).astype(np.float64)
    query = rounded[3]
    expected = rounded @ query / np.linalg.norm(rounded, axis=1) / np.linalg.norm(query)
    for hit in table.search(vectors(50)[3]):
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-12)  # type: ignore[index]


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_zero_vectors_have_a_score_under_other_metrics(engine: MemoryEngine, metric: Any) -> None:
    table = engine.create("t", dims=DIMS, metric=metric)
    x = vectors(20)
    x[3] = 0
    table.add(range(20), x)
    table.add_resolution("8:f16")
    table.create_funnel("t_search", "8:f16@20 > 16:f32")
    assert {hit.id for hit in table.search(x[0], k=20)} == set(range(20))
    hits = table.search(np.zeros(DIMS), k=20)
    assert len(hits) == 20
    assert hits[0].score == 0
    assert hits[0].id == (0 if metric == "dot" else 3)
    report = table.measure_recall(k=5, sample=50)
    assert (report.queries, report.recall) == (20, 1.0)
    judged = fv.Judgments(np.repeat(x[:12], 2, axis=0), list(range(12)) * 2, [True, False] * 12)  # type: ignore[arg-type]
    with pytest.raises(fv.errors.CalibrationError):  # a zero query is no obstacle, equal scores are
        table.calibrate(judged)


def test_one_metric_per_column(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=DIMS)
    table.create_funnel("t_search", "16:f32", metric="dot")
    assert table.metric == "dot"
    for refused in (
        lambda: table.add_resolution("8:f16", metric="cosine"),
        lambda: table.add_resolution("16:f32", metric="euclidean"),
        lambda: table.create_funnel("f", "16:f32", metric="cosine"),
    ):
        with pytest.raises(Conflict, match="for the metric dot, not"):
            refused()
    table.add_resolution("8:f16")
    table.drop_funnel("t_search")
    assert table.metric == "dot"
    table.drop_resolution("8:f16")
    assert table.metric == "cosine"
    table.add_resolution("8:f16", metric="euclidean")
    assert table.metric == "euclidean"
    made = engine.create("u", dims=DIMS, metric="dot")
    with pytest.raises(Conflict, match="for the metric dot, not cosine"):
        made.create_funnel("u_search", "16:f32", metric="cosine")


def test_a_calibration_knows_its_metric(engine: MemoryEngine) -> None:
    table = engine.create("docs", dims=DIMS, metric="dot")
    table.add(range(100), vectors(100))
    table.create_funnel("docs_search", "16:f32")
    assert table.calibrate(judgments(table)).metric == "dot"


def test_explain(table: MemoryTable) -> None:
    table.calibrate(judgments(table))
    explanation = table.explain(
        vectors(1)[0], k=3, filter={"year": {"$gte": 1950}}, min_relevance=0.0
    )
    first, last = explanation.stages
    assert (first.rows_in, first.rows_out, first.access) == (50, 20, "scan")
    assert (last.rows_in, last.rows_out, last.access) == (20, 3, "rescore")
    assert explanation.funnel == "8:f16@20 > 16:f32"
    lines = str(explanation).splitlines()
    assert lines[0].startswith("funnel 8:f16@20 > 16:f32")
    assert lines[1].split() == [
        "stage",
        "resolution",
        "keep",
        "rows",
        "in",
        "rows",
        "out",
        "ms",
        "access",
    ]
    assert lines[-1].startswith("note: min_relevance 0 is a score of at least -inf")


def test_rows_with_a_zero_prefix(engine: MemoryEngine) -> None:
    """They rank last where only the prefix counts, and are no answer of a last stage."""
    table = engine.create("t", dims=DIMS)
    x = vectors(6)
    x[2, :8] = 0
    table.add(range(6), x)
    for resolution in ("4:f16", "8:f16", "12:f32"):
        table.add_resolution(resolution)
    table.create_funnel("first", "8:f16@6 > 16:f32")
    table.create_funnel("narrow", "8:f16@5 > 16:f32")
    table.create_funnel("middle", "12:f32@6 > 8:f16@6 > 16:f32")
    table.create_funnel("last", "12:f32@6 > 8:f16", approximate=True)
    query = vectors(1, seed=3)[0]
    assert {hit.id for hit in table.search(query, k=6, funnel="first")} == set(range(6))
    assert {hit.id for hit in table.search(query, k=5, funnel="narrow")} == {0, 1, 3, 4, 5}
    assert {hit.id for hit in table.search(query, k=6, funnel="middle")} == set(range(6))
    assert {hit.id for hit in table.search(query, k=6, funnel="last")} == {0, 1, 3, 4, 5}
    zero_prefix = np.where(np.arange(DIMS) < 8, 0, query)
    with pytest.raises(fv.errors.InvalidInput, match="first 8 numbers of the query"):
        table.search(zero_prefix, k=6, funnel="first")
    assert table.measure_recall(funnel="first", k=2).queries == 5


def test_adding_a_resolution_again_changes_nothing(table: MemoryTable) -> None:
    before = table.status()
    for status in before:
        table.add_resolution(status.resolution)
    table.add_resolution("16:f32")  # the column itself
    assert table.status() == before


def test_measure_recall(table: MemoryTable) -> None:
    table.create_funnel("exact", "16:f32")
    table.create_funnel("whole", "8:f16@100 > 16:f32")
    for funnel in ("exact", "whole"):
        assert table.measure_recall(sample=30, k=5, funnel=funnel).recall == 1.0
    report = table.measure_recall(sample=1000, k=5)
    assert (report.k, report.queries) == (5, 100)
    first, last = report.stages
    assert 0 < last.recall <= first.recall < 1
    again = table.measure_recall(sample=1000, k=5)
    assert again.stages == report.stages


def test_recall_counts_what_it_says(table: MemoryTable) -> None:
    """The same figures by brute force: cosine by hand, the row itself left out."""
    x = vectors(100).astype(np.float64)
    full = x / np.linalg.norm(x, axis=1, keepdims=True)
    half = x[:, :8] / np.linalg.norm(x[:, :8], axis=1, keepdims=True)
    shares = []
    for row in range(100):
        truth = [r for r in np.argsort(-(full @ full[row])) if r != row][:5]
        kept = np.argsort(-(half @ half[row]))[:20]
        shares.append(np.isin(truth, kept).mean())
    assert table.measure_recall(sample=100, k=5).recall == pytest.approx(np.mean(shares))


def test_calibrated_search(table: MemoryTable) -> None:
    calibration = table.calibrate(judgments(table))
    assert (calibration.n_pairs, calibration.n_relevant, calibration.n_queries) == (40, 20, 20)
    assert (calibration.last_stage, calibration.vector) == ("16:f32", "embedding")
    query = vectors(1)[0]
    hits = table.search(query, k=20)
    expected = calibration.apply(query, [hit.score for hit in hits])
    assert [hit.relevance for hit in hits] == pytest.approx(expected.tolist())
    threshold = (hits[4].relevance + hits[5].relevance) / 2  # type: ignore[operator]
    assert table.search(query, k=20, min_relevance=threshold) == hits[:5]
    assert table.search(query, k=20, min_relevance=0) == hits
    assert table.search(query, k=20, min_relevance=1) == []


def test_a_calibration_belongs_to_model_and_last_stage(table: MemoryTable) -> None:
    table.calibrate(judgments(table))
    table.create_funnel("docs_search", "8:f16@50 > 16:f32", replace=True)
    table.create_funnel("other_model", "16:f32", model="other")
    table.create_funnel("other_end", "8:f16", approximate=True)
    query = vectors(1)[0]
    assert table.search(query, k=1)[0].relevance is not None
    for funnel in ("other_model", "other_end"):
        assert table.search(query, k=1, funnel=funnel)[0].relevance is None


def test_windows_are_noted_and_change_no_answer(engine: MemoryEngine) -> None:
    table = engine.create("docs", dims=DIMS, columns={"price": "number"})
    table.add(range(100), vectors(100), columns={"price": [float(i) for i in range(100)]})
    table.add_resolution("8:f16", index=True)
    table.create_funnel("docs_search", "8:f16@50 > 16:f32")
    query, filter = vectors(1)[0], {"price": {"$gte": 20, "$lt": 60}}
    before = table.search(query, filter=filter)
    table.add_window("8:f16", "price", levels=2)
    table.add_window("8:f16", "price")
    assert table.search(query, filter=filter) == before
    table.drop_window("8:f16", "price")
    with pytest.raises(NotFound, match="has no windows"):
        table.drop_window("8:f16", "price")
    table.add_window("8:f16", "price")
    table.drop_funnel("docs_search")
    table.drop_resolution("8:f16")
    table.add_resolution("8:f16")
    with pytest.raises(NotFound, match="has no windows"):
        table.drop_window("8:f16", "price")


def test_dropping(table: MemoryTable) -> None:
    with pytest.raises(Conflict, match="docs_search"):
        table.drop_resolution("8:f16")
    table.drop_funnel("docs_search")
    table.drop_resolution("8:f16")
    assert table.status() == []
    with pytest.raises(NotFound):
        table.search(vectors(1)[0])


def test_status(engine: MemoryEngine, table: MemoryTable) -> None:
    table.add_resolution("16:bit")
    half, signs = table.status()
    assert (half.resolution, half.column, half.bit_balance) == ("8:f16", "embedding_8_f16", None)
    assert signs.bit_balance == pytest.approx(
        np.mean([2 * min(p, 1 - p) for p in (vectors(100) > 0).mean(axis=0)])
    )
    empty = engine.create("empty", dims=DIMS)
    empty.add_resolution("16:bit")
    assert (empty.status()[0].coverage, empty.status()[0].bit_balance) == (1.0, None)


def test_an_empty_table_answers_with_nothing(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=DIMS)
    table.create_funnel("t_search", "16:f32")
    assert table.search(vectors(1)[0]) == []
    assert table.add([], []) == 0
    assert table.add([], np.empty((0, DIMS))) == 0


def test_progress_is_told(table: MemoryTable) -> None:
    seen: list[tuple[int, int]] = []
    table.add([500, 501], vectors(2), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2, 2)


def test_closing_forgets() -> None:
    with fv.connect("memory:") as engine:
        engine.create("t", dims=2)
    with pytest.raises(NotFound):
        engine.table("t")


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")}, [float("inf")], {1: 2}, {None: 1}, {"a": {"b": object()}}, "a\0", {"a\0": 1}, ["\ud800"],
        {"a": b"x"}, 1j,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_json_is_refused(value: object) -> None:
    with fv.connect("memory:") as engine:
        table = engine.create("t", dims=2, columns={"meta": "json"})
        with pytest.raises(fv.errors.InvalidInput, match="meta"):
            table.add([1], [[1, 2]], columns={"meta": [value]})
        assert len(table) == 0


def test_json_and_arrays_are_kept_apart_from_what_was_given() -> None:
    given = {"a": [1, None, {"b": True}]}
    with fv.connect("memory:") as engine:
        table = engine.create("t", dims=2, columns={"meta": "json", "tags": "text[]"})
        table.add([1], [[1, 2]], columns={"meta": [given], "tags": [("x", None)]})
        given["a"].clear()
        table.create_funnel("t_search", "2:f32", returns=["meta", "tags"])
        (hit,) = table.search([1, 2], filter={"meta.a": 1, "tags": "x"})
        assert hit.columns == {"meta": {"a": [1, None, {"b": True}]}, "tags": ["x", None]}
