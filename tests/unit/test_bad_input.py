"""Every bad input is refused, before any write, with an error that names the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.engines.memory import MemoryEngine, MemoryTable
from funnelvec.errors import (
    CalibrationError,
    Conflict,
    FilterError,
    FunnelvecError,
    InvalidInput,
    NotCalibrated,
    NotFound,
    SpecError,
)

DIMS = 8
ONE = np.eye(DIMS, dtype=np.float32)
INJECTION = "x'); drop table docs; --"


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def table(engine: MemoryEngine) -> MemoryTable:
    table = engine.create("docs", dims=DIMS, columns={"year": "integer", "lang": "text"})
    table.add(range(DIMS), ONE, columns={"year": list(range(DIMS))})
    table.add_resolution("4:bit")
    table.create_funnel("docs_search", "4:bit@5 > 8:f32")
    return table


def state(table: MemoryTable) -> object:
    hits = table.search(np.ones(DIMS), k=5)
    return len(table), hits, table.status()


REFUSED_SEARCHES: list[tuple[dict[str, Any], type[FunnelvecError], str]] = [
    ({"query": np.ones(7)}, InvalidInput, "7 dimensions, the column has 8"),
    ({"query": np.ones((1, 8))}, InvalidInput, r"\(1, 8\)"),
    ({"query": 5.0}, InvalidInput, "shape"),
    ({"query": np.zeros(8)}, InvalidInput, "must not be zero"),
    ({"query": [1e-50] * 8}, InvalidInput, "must not be zero"),
    ({"query": [1.0] * 7 + [math.nan]}, InvalidInput, "nan at position 7"),
    ({"query": [math.inf] + [1.0] * 7}, InvalidInput, "inf at position 0"),
    ({"query": [1e39] + [1.0] * 7}, InvalidInput, "inf at position 0"),
    ({"query": ["1"] * 8}, InvalidInput, "real numbers"),
    ({"query": [None] * 8}, InvalidInput, "real numbers"),
    ({"query": [True] * 8}, InvalidInput, "real numbers"),
    ({"query": [1j] * 8}, InvalidInput, "real numbers"),
    ({"query": [[1.0], [1.0, 2.0]]}, InvalidInput, "cannot be read"),
    ({"query": INJECTION}, InvalidInput, "real numbers"),
    ({"k": 0}, InvalidInput, "k must be .* not 0"),
    ({"k": -1}, InvalidInput, "-1"),
    ({"k": True}, InvalidInput, "True"),
    ({"k": 2.0}, InvalidInput, "2.0"),
    ({"k": "5"}, InvalidInput, "'5'"),
    ({"k": 6}, InvalidInput, "k = 6 is more than the 5 rows"),
    ({"min_relevance": -0.1}, InvalidInput, "-0.1"),
    ({"min_relevance": 1.1}, InvalidInput, "1.1"),
    ({"min_relevance": math.nan}, InvalidInput, "nan"),
    ({"min_relevance": True}, InvalidInput, "True"),
    ({"min_relevance": "0.5"}, InvalidInput, "'0.5'"),
    ({"min_relevance": 0.5}, NotCalibrated, r"calibrate\(judgments, funnel='docs_search'\)"),
    ({"filter": {"year": {"$lt": "x"}}}, FilterError, "integer"),
    ({"filter": {"colour": "red"}}, FilterError, "unknown field 'colour'.*id, lang, year"),
    ({"filter": {"embedding": 1}}, FilterError, "unknown field 'embedding'"),
    ({"filter": {INJECTION: 1}}, FilterError, "drop table"),
    ({"filter": {"year": {INJECTION: 1}}}, FilterError, "drop table"),
    ({"filter": "year = 5"}, FilterError, "mapping"),
    ({"funnel": "nothing"}, NotFound, r"no funnel 'nothing' \(funnels: docs_search\)"),
    ({"funnel": INJECTION}, NotFound, "drop table"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED_SEARCHES)
@pytest.mark.parametrize("call", ["search", "explain"])
def test_searches(
    table: MemoryTable, call: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"query": np.ones(DIMS), "k": 5, **arguments}
    with pytest.raises(error, match=message):
        getattr(table, call)(given.pop("query"), **given)


REFUSED_ROWS: list[tuple[dict[str, Any], type[FunnelvecError], str]] = [
    ({"vectors": np.ones((2, 7))}, InvalidInput, r"\(n, 8\) of the column, not \(2, 7\)"),
    ({"vectors": np.ones(8)}, InvalidInput, r"not \(8,\)"),
    ({"vectors": np.ones((3, 8))}, InvalidInput, "2 ids but 3 vectors"),
    ({"vectors": [[1.0] * 8, [0.0] * 8]}, InvalidInput, "zero in row 1"),
    ({"vectors": [[1.0] * 8, [math.nan] * 8]}, InvalidInput, "nan in row 1, position 0"),
    ({"vectors": [[1.0] * 8, [1e39] * 8]}, InvalidInput, "inf in row 1, position 0"),
    ({"vectors": [["a"] * 8] * 2}, InvalidInput, "real numbers"),
    ({"vectors": [[1.0] * 8, [1.0] * 7]}, InvalidInput, "cannot be read"),
    ({"ids": [100, None]}, InvalidInput, "row 1: the key is None"),
    ({"ids": [100, 100]}, InvalidInput, "100 occurs more than once"),
    ({"ids": [100, "101"]}, InvalidInput, "'101'"),
    ({"ids": [100, True]}, InvalidInput, "True"),
    ({"ids": [100, 2**63]}, InvalidInput, "9223372036854775808"),
    ({"ids": "ab"}, InvalidInput, "sequence"),
    ({"ids": [100, 3]}, Conflict, "key 3"),
    ({"columns": {"colour": [1, 2]}}, NotFound, "'colour' does not exist; .* lang, year"),
    ({"columns": {"embedding": [1, 2]}}, InvalidInput, "'embedding' is given twice"),
    ({"columns": {"year": [1]}}, InvalidInput, "'year': expected a sequence of 2"),
    ({"columns": {"year": [1, "2"]}}, InvalidInput, "'year', row 1: .*'2'"),
    ({"columns": {"lang": "de"}}, InvalidInput, "'lang': expected a sequence of 2"),
    ({"columns": {"lang": ["a", "b\0"]}}, InvalidInput, "'lang', row 1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED_ROWS)
def test_rows_all_or_nothing(
    table: MemoryTable, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = state(table)
    good = {"ids": [100, 101], "vectors": np.ones((2, DIMS)), "columns": {"year": [1, 2]}}
    given = {**good, **arguments}
    with pytest.raises(error, match=message):
        table.add(given.pop("ids"), given.pop("vectors"), **given)
    assert state(table) == before


Action = Callable[[MemoryEngine, MemoryTable], object]
REFUSED_DEFINITIONS: list[tuple[Action, type[FunnelvecError], str]] = [
    (lambda e, t: t.add_resolution("9:f16"), SpecError, "wider than the column, which has 8"),
    (lambda e, t: t.add_resolution("4:int4"), SpecError, "int4"),
    (lambda e, t: t.add_resolution("2:f16", index=True, m=1), InvalidInput, "m must be from 2"),
    (lambda e, t: t.add_resolution("2:f16", m=20, ef_construction=39), InvalidInput, "from 40"),
    (lambda e, t: t.add_resolution(INJECTION), SpecError, "drop table"),
    (lambda e, t: t.add_resolution("4:f16~pca"), fv.errors.NotFound, "rotation"),
    (lambda e, t: t.add_resolution("8:f16~random0"), fv.errors.CapabilityError, "rotation"),
    (lambda e, t: t.add_resolution("4:f16", metric="l3"), InvalidInput, "'l3'; known are cosine"),  # type: ignore[arg-type]
    (lambda e, t: t.add_resolution("4:f16", metric="dot"), Conflict, "cosine, not dot"),
    (lambda e, t: t.create_funnel("f", "8:f32", metric="dot"), Conflict, "cosine, not dot"),
    (lambda e, t: halves(e).add_resolution("4:f32"), SpecError, "write 4:f16"),
    (lambda e, t: halves(e).create_funnel("f", "8:f32"), SpecError, "write 8:f16"),
    (lambda e, t: halves(e).add([1], [[65520.0] * 8]), InvalidInput, "float16 .* inf in row 0"),
    (lambda e, t: halves(e).add([1], [[1e-9] * 8]), InvalidInput, "zero in row 0"),
    (
        lambda e, t: pairs(e).add([1], np.ones((1, 8))),
        InvalidInput,
        "2 values .integer, text., not 1",
    ),
    (lambda e, t: pairs(e).add(["ab"], np.ones((1, 8))), InvalidInput, "not 'ab'"),
    (lambda e, t: pairs(e).add([(1,)], np.ones((1, 8))), InvalidInput, r"not \(1,\)"),
    (lambda e, t: pairs(e).add([(1, 2)], np.ones((1, 8))), InvalidInput, "row 0, part 2: .* not 2"),
    (
        lambda e, t: pairs(e).add([(None, "a")], np.ones((1, 8))),
        InvalidInput,
        "part 1: the key is None",
    ),  # type: ignore[list-item]
    (lambda e, t: pairs(e).add([(1, "a")] * 2, np.ones((2, 8))), InvalidInput, "more than once"),
    (lambda e, t: t.add([(1,)], np.ones((1, 8))), InvalidInput, r"\(1,\)"),
    (lambda e, t: t.drop_resolution("4:f16"), NotFound, "no resolution 4:f16 .it has 8:f32, 4:bit"),
    (lambda e, t: t.drop_resolution("8:f32"), Conflict, "stays"),
    (lambda e, t: t.add_window("4:f16", "year"), NotFound, "no resolution 4:f16"),
    (lambda e, t: t.add_hub(sample=19), InvalidInput, "sample must be 20 to 20000"),
    (lambda e, t: t.add_hub(sample="50"), InvalidInput, "sample"),  # type: ignore[arg-type]
    (lambda e, t: t.add_hub(allow_rewrite="no"), InvalidInput, "allow_rewrite"),  # type: ignore[arg-type]
    (lambda e, t: t.drop_hub(), NotFound, "no hub column"),
    (lambda e, t: t.add_window("4:bit", "nothing"), NotFound, "no column 'nothing'"),
    (lambda e, t: t.add_window("4:bit", "lang"), fv.errors.CapabilityError, "numbers, dates"),
    (lambda e, t: t.add_window("4:bit", ""), InvalidInput, "column of the windows"),
    (lambda e, t: t.add_window("4:bit", "year", levels=0), InvalidInput, "levels must be 1 to 6"),
    (lambda e, t: t.add_window("4:bit", "year", levels=True), InvalidInput, "levels"),
    (lambda e, t: t.add_window("4:bit", "year", levels="2"), InvalidInput, "levels"),  # type: ignore[arg-type]
    (lambda e, t: t.add_window("4:bit", "year", concurrently="no"), InvalidInput, "concurrently"),  # type: ignore[arg-type]
    (lambda e, t: t.drop_window("4:bit", "price"), NotFound, "has no windows by 'price'"),
    (lambda e, t: t.drop_resolution("4:bit"), Conflict, "used by docs_search"),
    (lambda e, t: t.create_funnel("f", "4:bit@5 > 4:f16@9 > 8:f32"), SpecError, "more rows"),
    (lambda e, t: t.create_funnel("f", "9:bit@5 > 8:f32"), SpecError, "wider"),
    (lambda e, t: t.create_funnel("f", "4:bit"), SpecError, "approximate=True"),
    (lambda e, t: t.create_funnel("f", "4:f16@5 > 8:f32"), NotFound, r"add_resolution\('4:f16'\)"),
    (lambda e, t: t.create_funnel("f", INJECTION), SpecError, "drop table"),
    (lambda e, t: t.create_funnel("", "8:f32"), InvalidInput, "1 to 63 bytes"),
    (lambda e, t: t.create_funnel("é" * 32, "8:f32"), InvalidInput, "1 to 63 bytes"),
    (lambda e, t: t.create_funnel("docs_search", "8:f32"), Conflict, "replace=True"),
    (lambda e, t: t.drop_funnel("nothing"), NotFound, "nothing"),
    (lambda e, t: e.table("nothing"), NotFound, r"'nothing' does not exist \(tables: docs\)"),
    (lambda e, t: e.table("docs", vector="v"), NotFound, "'v'"),
    (lambda e, t: e.create("docs", dims=4), Conflict, "exists already"),
    (lambda e, t: e.create("t", dims=0), InvalidInput, "not 0"),
    (lambda e, t: e.create("t", dims=16_001), InvalidInput, "16001"),
    (lambda e, t: e.create("", dims=4), InvalidInput, "1 to 63 bytes"),
    (lambda e, t: e.create("t\0", dims=4), InvalidInput, "NUL"),
    (lambda e, t: e.create("t", dims=4, vector="id"), InvalidInput, "'id'"),
    (lambda e, t: e.create("t", dims=4, columns={"id": "text"}), InvalidInput, "'id'"),
    (lambda e, t: e.create("t", dims=4, columns={"a": "jsonb"}), InvalidInput, "'jsonb'"),  # type: ignore[dict-item]
    (lambda e, t: e.create("t", dims=4, columns={"a": "json[]"}), InvalidInput, "'json"),  # type: ignore[dict-item]
    (lambda e, t: e.create("t", dims=4, id_kind="json"), InvalidInput, "kind json"),
    (lambda e, t: e.create("t", dims=4, id_kind="text[]"), InvalidInput, "no order"),
    (lambda e, t: e.create("t", dims=4, id_kind="serial"), InvalidInput, "'serial'"),  # type: ignore[arg-type]
    (lambda e, t: e.create("t", dims=4, dtype="f64"), InvalidInput, "'f64'.*f32, f16"),  # type: ignore[arg-type]
    (lambda e, t: e.create("t", dims=4, metric="l3"), InvalidInput, "'l3'"),  # type: ignore[arg-type]
    (lambda e, t: e.create("t", dims=4, id=[]), InvalidInput, "id must be"),
    (lambda e, t: e.create("t", dims=4, id=["a", "a"]), InvalidInput, "'a' is given to 2"),
    (lambda e, t: e.create("t", dims=4, id=["a", 5]), InvalidInput, "5"),  # type: ignore[list-item]
    (lambda e, t: e.create("t", dims=4, id=None), InvalidInput, "None"),  # type: ignore[arg-type]
    (lambda e, t: e.create("t", dims=4, id_kind=3), InvalidInput, "id_kind must be"),  # type: ignore[arg-type]
    (
        lambda e, t: e.create("t", dims=4, id=["a", "b"], id_kind=["text"]),
        InvalidInput,
        "1 kinds for the 2 columns",
    ),
    (lambda e, t: t.calibrate(judged(zero=True)), InvalidInput, "judgments.* zero in row 3"),
    (lambda e, t: t.measure_recall(sample=0), InvalidInput, "sample"),
    (lambda e, t: t.measure_recall(k=5), InvalidInput, "k = 5 needs 6 rows"),
    (lambda e, t: t.measure_recall(k=0), InvalidInput, "k must be"),
    (lambda e, t: t.measure_recall(k=2, seed=-1), InvalidInput, "seed"),
    (lambda e, t: t.measure_recall(k=2, funnel="nothing"), NotFound, "nothing"),
    (lambda e, t: t.calibrate(judged(ids=[77])), CalibrationError, "none of the 40 judged rows"),
    (lambda e, t: t.calibrate(judged(ids=["a"])), InvalidInput, "'a'"),
    (lambda e, t: t.calibrate(judged(dims=7)), InvalidInput, "7 dimensions, the column has 8"),
    (lambda e, t: t.calibrate(judged(pairs=6)), CalibrationError, "at least 10 relevant"),
    (lambda e, t: t.calibrate(judged(), funnel="nothing"), NotFound, "nothing"),
]


def halves(engine: MemoryEngine) -> MemoryTable:
    return engine.create("halves", dims=DIMS, dtype="f16")


def pairs(engine: MemoryEngine) -> MemoryTable:
    return engine.create("pairs", dims=DIMS, id=["a", "b"], id_kind=["integer", "text"])


def judged(
    *, pairs: int = 40, dims: int = DIMS, ids: list[Any] | None = None, zero: bool = False
) -> fv.Judgments:
    ids = [row % DIMS for row in range(pairs)] if ids is None else ids * pairs
    queries = np.ones((pairs, dims)) + np.arange(pairs)[:, np.newaxis] % 7
    queries[3] *= not zero
    return fv.Judgments(queries.astype(np.float32), ids, np.arange(pairs) % 2 == 0)


@pytest.mark.parametrize(("action", "error", "message"), REFUSED_DEFINITIONS)
def test_definitions(
    engine: MemoryEngine, table: MemoryTable, action: Action, error: type[Exception], message: str
) -> None:
    before = state(table)
    with pytest.raises(error, match=message):
        action(engine, table)
    assert state(table) == before


def test_an_empty_table_cannot_be_measured(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=2)
    table.create_funnel("t_search", "2:f32")
    for rows in range(2):
        with pytest.raises(InvalidInput, match=f"the table has {rows}"):
            table.measure_recall()
        table.add([rows], [[1.0, 2.0]])


def test_a_taken_column_name(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=8, columns={"embedding_4_f16": "text"})
    with pytest.raises(Conflict, match="'embedding_4_f16', which is taken"):
        table.add_resolution("4:f16")


def test_a_funnel_name_of_another_table(engine: MemoryEngine, table: MemoryTable) -> None:
    other = engine.create("t", dims=8)
    with pytest.raises(Conflict, match="on table 'docs'; choose another name"):
        other.create_funnel("docs_search", "8:f32", replace=True)


def test_equal_scores_cannot_be_calibrated(engine: MemoryEngine) -> None:
    table = engine.create("t", dims=2)
    table.add(range(40), np.ones((40, 2)))
    table.create_funnel("t_search", "2:f32")
    queries = np.repeat([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0], [4.0, 0.0]], 8, axis=0)
    with pytest.raises(CalibrationError, match="all 40 judged pairs have the score"):
        table.calibrate(fv.Judgments(queries, range(40), np.arange(40) % 2 == 0))
