"""A certificate of one engine is that of the other, and the search it is for gives the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration import Certificate, guarantees
from funnelvec.engines.base import Engine
from funnelvec.errors import CalibrationError, InvalidInput, NotCalibrated
from tests import awaited, databases
from tests.agreement import edge

DIMS, ROWS, QUERIES = 16, 400, 60


def judgments(rows: np.ndarray[Any, Any], *, queries: int = QUERIES) -> fv.Judgments:
    """Forty judged rows for each query; the nearer the likelier, none at all for every sixth."""
    rng = np.random.default_rng(7)
    asked = rows[:queries] + rng.normal(scale=0.3, size=(queries, DIMS)).astype(np.float32)
    vectors, ids, labels = [], [], []
    for number, query in enumerate(asked):
        scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        for row in np.argsort(-scores)[:40]:
            vectors.append(query)
            ids.append(int(row))
            labels.append(number % 6 > 0 and rng.random() < scores[row] ** 2)
    return fv.Judgments(np.stack(vectors), ids, np.array(labels))


def rows() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(ROWS, DIMS)).astype(np.float32)


def made(engine: Engine) -> Any:
    table = engine.create("things", dims=DIMS)
    table.add(range(ROWS), rows())
    table.add_resolution("8:f16")
    table.create_funnel("things_search", f"8:f16@120 > {DIMS}:f32")
    table.calibrate(judgments(rows()))
    return table


@pytest.fixture(params=["memory", "sync", "async", "local", "edge"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    """On the memory engine, on Postgres in both forms, and on Qdrant's local mode and Edge."""
    if request.param in ("memory", "local"):
        url = "memory:" if request.param == "memory" else "qdrant-local::memory:"
        with fv.connect(url) as opened:
            yield made(opened)
        return
    if request.param == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as opened:
            yield made(opened)
        return
    server = request.getfixturevalue("pg_server")
    database = databases.Database(server, databases.new_name(server))
    with databases.connected(server.url()) as admin:
        databases.create_database(admin, database.name, template=server.template("funnelvec"))
    with awaited.opened(database.owner_url, request.param) as opened:
        yield made(opened)
    server.done_with.append(database.name)


def test_engines_certify_the_same(table: Any) -> None:
    with fv.connect("memory:") as exact:
        oracle = made(exact)
        for level, k in ((0.2, 50), (0.4, 20)):
            ours = table.certify(judgments(rows()), max_miss=level, k=k)
            expected = oracle.certify(judgments(rows()), max_miss=level, k=k)
            assert ours.cutoff == pytest.approx(expected.cutoff, abs=1e-6)
            assert ours.relevance == pytest.approx(expected.relevance, abs=1e-6)
            for name in ("level", "k", "queries", "funnel"):
                assert getattr(ours, name) == getattr(expected, name), name
            # Intervals are drawn from losses in the order of the queries, which engines choose.
            for name in ("missed", "without_relevant"):
                assert getattr(ours, name) == pytest.approx(getattr(expected, name), abs=1e-9), name
            assert ours.low <= ours.missed <= ours.high
            for query in rows()[200:210]:
                hits = table.search(query, k=k, cutoff="certified")
                assert [hit.id for hit in hits] == [
                    hit.id for hit in oracle.search(query, k=k, cutoff="certified")
                ]
                everything = table.search(query, k=k)
                assert hits == [hit for hit in everything if hit.score >= ours.cutoff]
            many = table.search_many(rows()[200:210], k=k, cutoff="certified")
            assert many == [table.search(q, k=k, cutoff="certified") for q in rows()[200:210]]


def test_some_rows_are_cut_off(table: Any) -> None:
    certificate = table.certify(judgments(rows()), max_miss=0.4, k=50)
    sizes = [len(table.search(query, k=50, cutoff="certified")) for query in rows()[200:260]]
    assert min(sizes) < 50
    assert certificate.k == 50
    assert isinstance(certificate, Certificate)


def test_a_certificate_is_read_back_as_it_was_written(table: Any) -> None:
    certificate = table.certify(judgments(rows()), max_miss=0.3)
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert certificate.k == 100
    assert certificate.without_relevant == pytest.approx(1 / 6, abs=0.02)
    for text in ("", "[]", "{}", '{"format": "certificate", "version": 3}', "5"):
        with pytest.raises(CalibrationError):
            Certificate.from_json(text)


def test_it_is_void_after_another_calibration_and_with_another_funnel(table: Any) -> None:
    query = rows()[3]
    with pytest.raises(NotCalibrated, match="has no certificate"):
        table.search(query, k=100, cutoff="certified")
    table.certify(judgments(rows()), max_miss=0.3)
    assert table.search(query, k=100, cutoff="certified")
    table.calibrate(judgments(rows()))
    with pytest.raises(NotCalibrated, match="void"):
        table.search(query, k=100, cutoff="certified")
    table.certify(judgments(rows()), max_miss=0.3)
    table.create_funnel("things_search", f"8:f16@200 > {DIMS}:f32", replace=True)
    with pytest.raises(NotCalibrated, match="has no certificate"):
        table.search(query, k=100, cutoff="certified")


def test_what_it_is_not_about_is_refused(table: Any) -> None:
    table.certify(judgments(rows()), max_miss=0.3, k=40)
    for options, said in (
        ({"k": 39}, "40"),
        ({"k": 40, "filter": {"id": {"$gt": 3}}}, "filter"),
        ({"k": 40, "min_relevance": 0.5}, "not both"),
    ):
        with pytest.raises(InvalidInput, match=said):
            table.search(rows()[0], cutoff="certified", **options)
    with pytest.raises(InvalidInput, match="certified"):
        table.search(rows()[0], cutoff="best")


def test_too_little_is_said_with_what_is_needed(table: Any) -> None:
    with pytest.raises(CalibrationError, match=f"at least {guarantees.queries_needed(0.01)}"):
        table.certify(judgments(rows()), max_miss=0.01)
    nothing = judgments(rows())
    nothing = fv.Judgments(nothing.queries, nothing.ids, np.zeros(len(nothing), bool))
    with pytest.raises(CalibrationError, match="nothing to promise"):
        table.certify(nothing, max_miss=0.3)
    for wrong in (0, 1, -0.1, float("nan"), "a", True):
        with pytest.raises(InvalidInput, match="max_miss"):
            table.certify(judgments(rows()), max_miss=wrong)
    with pytest.raises(InvalidInput, match="k"):
        table.certify(judgments(rows()), max_miss=0.3, k=121)
