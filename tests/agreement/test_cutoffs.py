"""Promises of precision, the best F1 and what came closest: every engine says the same."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration.precision import queries_for_precision
from funnelvec.errors import CalibrationError, InvalidInput, NotCalibrated
from tests import awaited, databases
from tests.agreement import edge
from tests.agreement.test_certify import DIMS, QUERIES, made, rows

#: Most of what is near is relevant here, so that precision can be promised.
K = 20


def judgments(seed: int = 7) -> fv.Judgments:
    """The 25 nearest rows of each query; above a cosine of about 0.6 nearly all are relevant."""
    rng = np.random.default_rng(seed)
    matrix = rows()
    asked = matrix[:QUERIES] + rng.normal(scale=0.3, size=(QUERIES, DIMS)).astype(np.float32)
    queries, ids, labels = [], [], []
    for query in asked:
        scores = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
        for row in np.argsort(-scores)[:25]:
            queries.append(query)
            ids.append(int(row))
            labels.append(rng.random() < 1 / (1 + np.exp(-30 * (scores[row] - 0.55))))
    return fv.Judgments(np.stack(queries), ids, np.array(labels))


@pytest.fixture(scope="module", params=["memory", "sync", "async", "local", "edge"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    """On memory, on Postgres in both forms, on Qdrant's local mode and Edge, calibrated alike."""
    with contextlib.ExitStack() as stack:
        if request.param in ("memory", "local", "edge"):
            url = {"memory": "memory:", "local": "qdrant-local::memory:"}.get(request.param)
            url = url or f"edge:{stack.enter_context(edge.folder())}"
            table = made(stack.enter_context(fv.connect(url)))
            table.calibrate(judgments())
            yield table
            return
    server = request.getfixturevalue("pg_server")
    database = databases.Database(server, databases.new_name(server))
    with databases.connected(server.url()) as admin:
        databases.create_database(admin, database.name, template=server.template("funnelvec"))
    with awaited.opened(database.owner_url, request.param) as opened:
        table = made(opened)
        table.calibrate(judgments())
        yield table
    server.done_with.append(database.name)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    with fv.connect("memory:") as memory:
        table = made(memory)
        table.calibrate(judgments())
        yield table


@pytest.mark.parametrize(
    ("min_precision", "confidence", "unjudged"),
    [(0.8, 0.9, "irrelevant"), (0.6, 0.95, "ignored"), (0.7, 0.5, "irrelevant")],
)
def test_engines_promise_the_same_precision(
    table: Any, oracle: Any, min_precision: float, confidence: float, unjudged: Any
) -> None:
    options: Any = {
        "min_precision": min_precision, "confidence": confidence, "k": K, "unjudged": unjudged,
    }  # fmt: skip
    ours = table.certify(judgments(8), **options)
    expected = oracle.certify(judgments(8), **options)
    assert ours.relevance == expected.relevance
    for name in ("cutoff", "observed", "without_relevant", "answered"):
        assert getattr(ours, name) == pytest.approx(getattr(expected, name), abs=1e-6), name
    for name in ("kind", "level", "confidence", "k", "queries", "funnel", "approximate"):
        assert getattr(ours, name) == getattr(expected, name), name
    assert ours.observed <= 1 - min_precision
    assert ours.low <= ours.observed <= ours.high
    assert fv.Certificate.from_json(ours.to_json()) == ours
    assert "at least" in str(ours)
    for query in rows()[200:206]:
        hits = table.search(query, k=K, cutoff="precise")
        assert hits == [hit for hit in table.search(query, k=K) if hit.score >= ours.cutoff]
        assert [hit.id for hit in hits] == [
            hit.id for hit in oracle.search(query, k=K, cutoff="precise")
        ]


def test_what_the_judgments_of_the_fit_promise_is_called_approximate(table: Any) -> None:
    own = table.certify(judgments(), min_precision=0.7, k=K)
    assert own.approximate
    assert "approximate" in str(own)
    assert not table.certify(judgments(8), min_precision=0.7, k=K).approximate
    assert not table.certify(judgments(), max_miss=0.3, k=K).approximate


def test_both_certificates_stand_beside_each_other(table: Any) -> None:
    precise = table.certify(judgments(8), min_precision=0.7, k=K)
    certified = table.certify(judgments(8), max_miss=0.2, k=K)
    query = rows()[201]
    everything = table.search(query, k=K)
    for name, certificate in (("precise", precise), ("certified", certified)):
        assert table.search(query, k=K, cutoff=name) == [
            hit for hit in everything if hit.score >= certificate.cutoff
        ]
    # More rows lose no more, and may show more in vain.
    table.search(query, k=K + 1, cutoff="certified")
    for options in ({"k": K + 1}, {"k": K - 1}, {"k": K, "after": everything[3]}):
        with pytest.raises(InvalidInput, match="certificate"):
            table.search(query, cutoff="precise", **options)


def test_too_little_for_a_precision_is_said_with_what_is_possible(table: Any) -> None:
    needed = queries_for_precision(0.99, 0.95)
    with pytest.raises(CalibrationError, match=f"at least {needed} judged queries"):
        table.certify(judgments(), min_precision=0.99, k=K)
    nothing = judgments()
    half = np.random.default_rng(3).random(len(nothing)) < 0.6
    half = fv.Judgments(nothing.queries, nothing.ids, nothing.labels & half)
    with pytest.raises(CalibrationError, match=r"ask for min_precision ?=>? ?0\.\d+") as caught:
        table.certify(half, min_precision=0.9, k=K)
    (can,) = re.findall(r"ask for min_precision ?=>? ?(0\.\d+)", str(caught.value))
    assert table.certify(half, min_precision=float(can), k=K).level == float(can)
    nothing = fv.Judgments(nothing.queries, nothing.ids, np.zeros(len(nothing), bool))
    with pytest.raises(CalibrationError, match="carry none"):
        table.certify(nothing, min_precision=0.5, k=K)
    for options, said in (
        ({"max_miss": 0.1, "min_precision": 0.5}, "max_miss"),
        ({"min_precision": 1.0}, "min_precision"),
        ({"min_precision": 0.5, "confidence": 0}, "confidence"),
        ({"min_precision": 0.5, "unjudged": "guess"}, "unjudged"),
    ):
        with pytest.raises(InvalidInput, match=said):
            table.certify(judgments(), **options)


def by_hand(hits: list[fv.Hit]) -> int:
    """How many of these rows promise the best F1."""
    p = np.array([hit.relevance for hit in hits])
    return int(np.argmax(np.cumsum(p) / (np.arange(len(p)) + 1 + p.sum()))) + 1


def test_the_best_f1_is_that_of_the_rows_of_the_last_stage(table: Any, oracle: Any) -> None:
    sizes = set()
    for query in rows()[200:212]:
        everything = table.search(query, k=120)
        best = table.search(query, k=120, cutoff="best_f1")
        assert best == everything[: by_hand(everything)]
        assert [hit.id for hit in best] == [
            hit.id for hit in oracle.search(query, k=120, cutoff="best_f1")
        ]
        # A page of it ends at the same row.
        assert table.search(query, k=2, cutoff="best_f1") == best[:2]
        assert table.search(query, k=120, cutoff="best_f1", after=best[0]) == best[1:]
        sizes.add(len(best))
    assert len(sizes) > 3
    found = table.search_many(rows()[200:203], k=120, cutoff="best_f1")
    assert found == [table.search(query, k=120, cutoff="best_f1") for query in rows()[200:203]]
    narrow = table.search(rows()[200], k=120, cutoff="best_f1", filter={"id": {"$lt": 50}})
    assert all(hit.id < 50 for hit in narrow)


def test_the_best_f1_of_a_single_stage_and_without_a_calibration(table: Any) -> None:
    table.create_funnel("flat", f"{DIMS}:f32")
    hits = table.search(rows()[200], k=15, funnel="flat")
    best = table.search(rows()[200], k=15, funnel="flat", cutoff="best_f1")
    assert best == hits[: by_hand(hits)]
    with pytest.raises(InvalidInput, match="first page"):
        table.search(rows()[200], k=15, funnel="flat", cutoff="best_f1", after=hits[0])
    table.create_funnel("new", f"8:f16@120 > {DIMS}:f32", model="another")
    with pytest.raises(NotCalibrated, match="calibrat"):
        table.search(rows()[200], funnel="new", cutoff="best_f1")
    for name in ("flat", "new"):
        table.drop_funnel(name)


def test_an_empty_answer_says_what_came_closest(table: Any) -> None:
    query = rows()[201]
    (best, *_) = table.search(query, k=1)
    assert table.search(query, k=5).nearest is None
    empty = table.search(query, k=5, min_relevance=1)
    assert empty == []
    assert empty.nearest == best
    # What a filter leaves out did not come close.
    other = table.search(query, k=5, min_relevance=1, filter={"id": {"$ne": best.id}})
    assert other.nearest is not None
    assert other.nearest.id != best.id
    assert table.search(query, min_relevance=1, filter={"id": -1}).nearest is None
    assert table.search(query, min_relevance=1, after=best).nearest is None
    answers = table.search_many(rows()[200:204], k=5, min_relevance=1)
    assert [answer.nearest for answer in answers] == [
        table.search(query, k=1)[0] for query in rows()[200:204]
    ]


def test_explain_says_how_close_the_best_came(table: Any) -> None:
    query = rows()[201]
    (best, *_) = table.search(query, k=1)
    notes = " ".join(table.explain(query, k=5, min_relevance=1).notes)
    assert f"the best has the score {best.score:.6f}, relevance {best.relevance:.4f}" in notes
    assert "the best" not in " ".join(table.explain(query, k=5, min_relevance=0.01).notes)
    found = table.explain(query, k=120, cutoff="best_f1")
    assert found.stages[-1].rows_out == len(table.search(query, k=120, cutoff="best_f1"))
    with pytest.raises(InvalidInput, match="cutoff"):
        table.explain(query, min_relevance=0.5, cutoff="best_f1")
