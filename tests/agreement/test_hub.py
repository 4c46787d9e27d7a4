"""The hub column through the whole chain: the same hubs, scores, relevances on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration import read_calibration
from funnelvec.engines.base import Engine
from funnelvec.errors import Conflict, NotFound
from tests import awaited, databases
from tests.agreement import edge

DIMS, ROWS, QUERIES = 16, 360, 40
FUNNEL = f"8:f16@120 > {DIMS}:f32"


def rows() -> np.ndarray[Any, Any]:
    """Rows around thirty centres; every third of them leans towards the middle of all: a hub."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(30, DIMS)) + 0.6
    noise = rng.normal(size=(ROWS, DIMS)) * 0.5
    found = centres[np.arange(ROWS) % 30] + noise
    found[::3] += 1.5 * centres.mean(axis=0)
    return found.astype(np.float32)


def judgments(seed: int = 6) -> fv.Judgments:
    """Queries near the centres; hubs answer none of them, however high they score."""
    rng = np.random.default_rng(seed)
    data = rows()
    vectors, ids, labels = [], [], []
    for number in range(QUERIES):
        query = data[number] + rng.normal(scale=0.3, size=DIMS).astype(np.float32)
        scores = data @ query / np.linalg.norm(data, axis=1) / np.linalg.norm(query)
        for row in np.argsort(-scores)[:40]:
            vectors.append(query)
            ids.append(int(row))
            labels.append(bool(row % 30 == number % 30 and row % 3) ^ bool(rng.random() < 0.03))
    return fv.Judgments(np.stack(vectors), ids, np.array(labels))


def made(engine: Engine, name: str = "things") -> Any:
    table = engine.create(name, dims=DIMS, columns={"price": "number"})
    table.add(range(ROWS), rows(), columns={"price": [float(row % 50) for row in range(ROWS)]})
    table.add_resolution("8:f16")
    table.create_funnel(f"{name}_search", FUNNEL)
    return table


@pytest.fixture(scope="module")
def url(pg_server: databases.Server) -> Iterator[str]:
    """Of a database for all of these tests."""
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=pg_server.template("funnelvec"))
    yield database.owner_url
    pg_server.done_with.append(database.name)


@pytest.fixture(scope="module", params=["postgres", "edge"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """The same table in memory and on another engine."""
    where = "url" if request.param == "postgres" else "edge_url"
    with (
        fv.connect("memory:") as memory,
        fv.connect(request.getfixturevalue(where)) as other,
    ):
        yield made(memory), made(other)


@pytest.fixture(scope="module")
def edge_url() -> Iterator[str]:
    with edge.folder() as folder:
        yield f"edge:{folder}"


def is_qdrant(table: Any) -> bool:
    return ".qdrant." in type(table).__module__


def queries() -> np.ndarray[Any, Any]:
    return rows()[200:204] + 0.1


def agree(oracle: Any, table: Any, near: float = 1e-6, **asked: Any) -> list[Any]:
    """Search both; ids, scores and relevances have to be the same."""
    answers = []
    for query in queries():
        ours, theirs = table.search(query, **asked), oracle.search(query, **asked)
        # 32-bit scores leave the order of rows open whose scores are the same up to that.
        scored = {hit.id: hit.score for hit in theirs}
        assert {hit.id for hit in ours} == scored.keys()
        assert all(
            mine.id == other.id or abs(scored[mine.id] - other.score) <= 1e-6
            for mine, other in zip(ours, theirs, strict=True)
        )
        for name, atol in (("score", 1e-6), ("relevance", near)):
            np.testing.assert_allclose(
                [getattr(hit, name) for hit in ours],
                [getattr(hit, name) for hit in theirs],
                atol=atol,
            )
        scores = [hit.score for hit in ours]
        assert scores == sorted(scores, reverse=True)
        answers.append(ours)
    return answers


def test_the_chain(pair: tuple[Any, Any]) -> None:
    oracle, table = pair
    before = oracle.calibrate(judgments())
    assert before == table.calibrate(judgments()).__class__.from_json(before.to_json())
    plain = agree(oracle, table, k=60)
    for each in pair:
        assert each.add_hub() == "embedding_hub"
        with pytest.raises(Conflict, match="has a hub column already"):
            each.add_hub()
    # Nothing changes before somebody calibrates.
    assert agree(oracle, table, k=60) == plain


@pytest.mark.parametrize("family", ["platt", "beta", "isotonic", "adapter", "auto"])
def test_families_over_the_corrected_score(pair: tuple[Any, Any], family: Any) -> None:
    oracle, table = pair
    expected, found = (each.calibrate(judgments(), family=family) for each in pair)
    assert found.kind == expected.kind
    assert found.alpha == pytest.approx(expected.alpha, abs=1e-5)
    assert found.alpha > 0.2
    assert read_calibration(found.to_json()) == found
    near = 1e-5 if family == "platt" else 1e-4
    answers = agree(oracle, table, near, k=60)
    assert answers != agree(oracle, table, near, k=60, filter={"price": {"$lt": 20}})
    for query, hits in zip(queries(), answers, strict=True):
        levels = sorted({hit.relevance for hit in hits})
        half = (levels[len(levels) // 2 - 1] + levels[len(levels) // 2]) / 2
        kept = table.search(query, k=60, min_relevance=half)
        assert list(kept) == [hit for hit in hits if hit.relevance >= half]
        assert 0 < len(kept) < len(hits)
        best = table.search(query, k=60, cutoff="best_f1")
        assert list(best) == hits[: len(best)]


def test_rows_that_are_written_later(pair: tuple[Any, Any]) -> None:
    for each in pair:
        each.calibrate(judgments())
        each.add([1000, 1001], rows()[:2] + 0.01, columns={"price": [1.0, 2.0]})
        each.upsert([1001, 1002], rows()[[5, 7]] + 0.02, columns={"price": [None, 3.0]})
    answers = agree(*pair, 1e-5, k=100)
    assert {1000, 1001, 1002} & {hit.id for hits in answers for hit in hits}
    first, second = (each.search(rows()[0], k=3) for each in pair)
    assert [hit.id for hit in first] == [hit.id for hit in second]


def test_what_is_measured_is_the_corrected_order(pair: tuple[Any, Any]) -> None:
    """Recall is against the exact order by the corrected score, which the shortlist bounds."""
    for each in pair:
        each.create_funnel("wide", f"8:f16@350 > {DIMS}:f32")
        each.calibrate(judgments())
    found = [each.measure_recall(queries=queries(), k=20, funnel="wide") for each in pair]
    assert found[0].stages[-1].recall == pytest.approx(found[1].stages[-1].recall, abs=1e-9)
    assert found[0].stages[-1].recall > 0.9
    # Had it been against the raw order, the hubs that fell would count as lost.
    oracle = pair[0]
    oracle.create_funnel("alone", f"{DIMS}:f32")
    assert oracle.search(queries()[0], funnel="alone")[0].relevance is not None
    for query in queries():
        raw = {hit.id for hit in oracle.search(query, k=20, funnel="alone")}
        assert raw != {hit.id for hit in oracle.search(query, k=20, funnel="wide")}


def test_certificates_and_feedback_go_by_the_corrected_score(pair: tuple[Any, Any]) -> None:
    for each in pair:
        each.calibrate(judgments())
    certified = [each.certify(judgments(7), max_miss=0.2, k=60) for each in pair]
    assert certified[0].cutoff == pytest.approx(certified[1].cutoff, abs=1e-6)
    agree(*pair, 1e-5, k=60, cutoff="certified")
    # The strength of the hub was fitted to the judgments of the calibration.
    assert not any(each.approximate for each in certified)
    assert all(each.certify(judgments(), max_miss=0.2, k=60).approximate for each in pair)
    query = queries()[0]
    hit = pair[1].search(query, k=5)[4]
    if is_qdrant(pair[1]):
        return  # it keeps no feedback
    by_score, by_key = (
        each.feedback(True, query=query, **named)
        for each, named in zip(pair, ({"score": hit.score}, {"id": hit.id}), strict=True)
    )
    assert by_score.slope == pytest.approx(by_key.slope, abs=1e-6)
    assert by_score.means == pytest.approx(by_key.means, abs=1e-6)


def test_without_the_hub_column_all_is_as_before(pair: tuple[Any, Any]) -> None:
    for each in pair:
        each.drop_hub()
        with pytest.raises(NotFound, match="has no hub column"):
            each.drop_hub()
    plain = agree(*pair, k=60)
    assert all(hit.relevance is not None for hits in plain for hit in hits)
    for each in pair:
        assert each.calibrate(judgments()).alpha == 0.0


def test_local_mode_too() -> None:
    with fv.connect("memory:") as memory, fv.connect("qdrant-local::memory:") as local:
        pair = made(memory), made(local)
        plain = [each.calibrate(judgments()) for each in pair][1]
        for each in pair:
            each.add_hub()
            assert each.calibrate(judgments()).alpha > 0.2
            each.upsert([5, 1000], rows()[[7, 8]] + 0.02)
        (hits, *_) = agree(*pair, 1e-5, k=60)
        level = float(np.median([hit.relevance for hit in hits]))
        asked = {"k": 60, "min_relevance": level, "filter": {"price": {"$lt": 20}}}
        kept = agree(*pair, 1e-5, **asked)
        assert 0 < len(kept[0]) < 60
        pair[1].drop_hub()
        assert local.table("things").calibrate(judgments()).alpha == 0 == plain.alpha


def test_a_hub_that_is_no_help_is_left_alone() -> None:
    """Labels that have nothing to do with hubs: the plain score stays."""
    with fv.connect("memory:") as engine:
        table = made(engine)
        given = judgments()
        rng = np.random.default_rng(0)
        scores = np.array(
            [table_score(q, rows()[i]) for q, i in zip(given.queries, given.ids, strict=True)]
        )  # type: ignore[index]
        labels = scores + rng.normal(scale=0.05, size=len(scores)) > np.quantile(scores, 0.7)
        random = fv.Judgments(given.queries, given.ids, labels)
        plain = table.calibrate(random)
        table.add_hub()
        assert table.calibrate(random) == plain


def table_score(query: np.ndarray[Any, Any], row: np.ndarray[Any, Any]) -> float:
    return float(query @ row / np.linalg.norm(query) / np.linalg.norm(row))


@pytest.mark.parametrize("where", ["url", "edge_url"])
@pytest.mark.parametrize("form", ["sync", "async"])
def test_both_forms_of_the_engine(form: str, where: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(where)
    # A folder of Edge's has one owner at a time.
    with awaited.opened(url + form if where == "edge_url" else url, form) as engine:
        table = made(engine, f"other_{form}")
        assert table.add_hub(sample=100, concurrently=True) == "embedding_hub"
        assert table.calibrate(judgments()).alpha == 0
        assert table.backfill(batch=100) == ROWS
        assert table.backfill() == 0
        assert table.calibrate(judgments()).alpha > 0
        table.drop_hub()
