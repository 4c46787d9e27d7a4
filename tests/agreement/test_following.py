"""Feedback and drift: SQL does what Python does, number for number, and every engine the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration.drift import compare_scores, drift_of
from funnelvec.calibration.online import OnlinePlatt
from funnelvec.errors import CalibrationError, CapabilityError, InvalidInput, NotCalibrated
from tests import awaited, databases
from tests.agreement.test_certify import DIMS, judgments, made, rows


@pytest.fixture(scope="module", params=["memory", "sync", "async"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    """On the memory engine, and on Postgres in both forms."""
    if request.param == "memory":
        with fv.connect("memory:") as memory:
            yield made(memory)
        return
    database = request.getfixturevalue("database")
    with awaited.opened(database.owner_url, request.param) as opened:
        try:
            yield made(opened)
        finally:
            with databases.connected(database.owner_url) as owner:
                owner.execute("drop table if exists things cascade")
                owner.execute("select funnelvec.repair()")


@pytest.fixture(scope="module")
def database(pg_server: Any) -> Iterator[databases.Database]:
    found = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, found.name, template=pg_server.template("funnelvec"))
    yield found
    pg_server.done_with.append(found.name)


def near(found: OnlinePlatt, expected: OnlinePlatt) -> None:
    assert found.seen == expected.seen
    assert found.counts == expected.counts
    for name in ("slope", "offset", "h", "means"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-9)


def test_steps_in_sql_are_those_of_python(database: databases.Database) -> None:
    rng = np.random.default_rng(5)
    state = OnlinePlatt.unchanged()
    stream = [(float(p), bool(rng.random() < p / 2)) for p in rng.random(60)]
    # Ends of the scale, and labels so wrong that the line leaves the ball of radius 100.
    stream += (
        [(0.0, True), (1.0, False), (1e-7, False)] + [(0.5, True)] * 5 + [(0.9999, False)] * 60
    )
    with databases.connected(database.owner_url) as owner:
        told = owner.execute("select funnelvec._online_start(1)").fetchone()[0]  # type: ignore[index]
        for base, relevant in stream:
            state = state.update(base, relevant)
            told = owner.execute(
                "select funnelvec._online_step(%s, %s, %s)", (json.dumps(told), base, relevant)
            ).fetchone()[0]  # type: ignore[index]
        near(
            OnlinePlatt(told["slope"], told["offset"], tuple(told["h"]), tuple(told["means"]),
                        tuple(told["counts"]), told["seen"]),
            state,
        )  # fmt: skip
        for base in (0.0, 0.01, 0.3, 0.5, 0.999, 1.0):
            found = owner.execute(
                "select platt, tracked from funnelvec._online_relevance(%s, %s)",
                (json.dumps(told), base),
            ).fetchone()
            assert found == pytest.approx(tuple(state.relevance(base)), abs=1e-9)


@pytest.mark.parametrize("point", [(300.0, 20.0), (-1e4, 3e5), (0.0, 101.0), (99.0, 1.0)])
def test_the_projection_is_that_of_python(
    database: databases.Database, point: tuple[float, float]
) -> None:
    from funnelvec.calibration.online import _projected

    h = (150.0, 30.0, 120.0)
    with databases.connected(database.owner_url) as owner:
        found = owner.execute(
            "select * from funnelvec._online_projected(%s, %s, %s, %s, %s)", (*point, *h)
        ).fetchone()
    assert found == pytest.approx(_projected(*point, h), rel=1e-9)


def test_two_samples_are_compared_as_in_python(database: databases.Database) -> None:
    rng = np.random.default_rng(3)
    with databases.connected(database.owner_url) as owner:
        for first, second in (
            (rng.normal(size=80), rng.normal(size=120)),
            (rng.normal(size=80), rng.normal(0.7, size=120)),
            (rng.integers(0, 5, 60) / 5, rng.integers(0, 6, 70) / 5),
            (np.zeros(20), np.zeros(30)),
            (np.zeros(40), np.ones(60)),
        ):
            found = owner.execute(
                "select distance, p_value from funnelvec._compare_scores(%s, %s)",
                (first.tolist(), second.tolist()),
            ).fetchone()
            assert found == pytest.approx(tuple(compare_scores(first, second)), rel=1e-9, abs=1e-12)


def test_the_test_of_kolmogorov_and_smirnov_is_that_of_the_textbook() -> None:
    """Equal distributions are told apart as often as chance has it, others nearly always."""
    rng = np.random.default_rng(1)
    same = [compare_scores(rng.normal(size=200), rng.normal(size=300)).p_value for _ in range(400)]
    assert 0.02 < np.mean(np.array(same) < 0.05) < 0.09
    other = [drift_of(rng.normal(size=200), rng.normal(0.8, size=300)).stale for _ in range(50)]
    assert all(other)
    # A difference that is certain and small is no reason to call.
    small = drift_of(np.arange(20_000), np.arange(20_000) + 1_500)
    assert small.p_value is not None
    assert small.p_value < 1e-6
    assert small.stale is False


def test_feedback_moves_the_line_and_is_adopted(table: Any) -> None:
    calibration = table.calibrate(judgments(rows()))
    expected = OnlinePlatt.unchanged()
    assert table.feedback_state() == expected
    query = rows()[201]
    hits = table.search(query, k=40)
    for place, hit in enumerate(hits):
        relevant = place % 3 == 0
        base = float(calibration.apply(None, [hit.score])[0])
        expected = expected.update(base, relevant)
        said = {"score": hit.score} if place % 2 else {"query": query, "id": hit.id}
        found = table.feedback(relevant, **said)
        near(found, expected)
    near(table.feedback_state(), expected)
    # A certificate is about the calibration that there was.
    certificate = table.certify(judgments(rows()), max_miss=0.4, k=20)
    assert table.search(query, k=20, cutoff="certified") is not None
    version = table.adopt_feedback()
    assert version >= 2
    after = table.search(query, k=40)
    assert [hit.id for hit in after] == [hit.id for hit in hits]
    for before, hit in zip(hits, after, strict=True):
        held = expected.relevance(before.relevance).platt
        assert hit.relevance == pytest.approx(held, abs=1e-9)
    with pytest.raises(NotCalibrated, match="void"):
        table.search(query, k=certificate.k, cutoff="certified")
    # It begins anew with the calibration that it has become.
    assert table.feedback_state() == OnlinePlatt.unchanged()
    with pytest.raises(CalibrationError, match="0 times"):
        table.adopt_feedback()


def test_feedback_that_cannot_be_used(table: Any) -> None:
    table.calibrate(judgments(rows()))
    query = rows()[0]
    for options in ({}, {"score": 0.5, "query": query, "id": 1}, {"id": 1}, {"query": query}):
        with pytest.raises(InvalidInput, match="which row"):
            table.feedback(True, **options)
    with pytest.raises(InvalidInput, match="no row with the key"):
        table.feedback(True, query=query, id=10**6)
    for relevant in (None, 1, "yes"):
        with pytest.raises(InvalidInput, match="relevant"):
            table.feedback(relevant, score=0.5)
    with pytest.raises(InvalidInput, match="score"):
        table.feedback(True, score=float("nan"))
    assert table.feedback_state().seen == 0
    for _ in range(20):  # the better the score, the less it is liked
        for score, relevant in ((0.9, False), (0.1, True)):
            table.feedback(relevant, score=score)
    with pytest.raises(CalibrationError, match="slope"):
        table.adopt_feedback()
    table.calibrate(judgments(rows()), family="isotonic")
    with pytest.raises((CapabilityError, InvalidInput), match="family"):
        table.adopt_feedback()


def test_drift_is_a_difference_of_best_scores(table: Any) -> None:
    table.calibrate(judgments(rows()))
    rng = np.random.default_rng(8)
    # Judged queries are rows with noise; so are these, and then there are some of pure noise.
    like = rows()[100:200] + rng.normal(scale=0.3, size=(100, DIMS)).astype(np.float32)
    other = rng.normal(size=(100, DIMS)).astype(np.float32)
    found = table.check_drift(like)
    assert (found.reference_queries, found.live_queries) == (60, 100)
    assert found.stale is False
    assert found.advice is None
    gone = table.check_drift(other)
    assert gone.stale
    assert gone.live_median < gone.reference_median
    assert "stale" in gone.advice
    for _ in range(20):
        table.feedback(True, score=0.9)
    table.adopt_feedback()
    assert table.check_drift(like).reference_queries == 60
    few = table.check_drift(other[:10])
    assert few.stale is None
    assert "50 are needed" in few.advice


def test_without_a_calibration_there_is_nothing_to_follow(table: Any) -> None:
    table.create_funnel("other", f"{DIMS}:f32", model="another")
    for call in (
        lambda: table.feedback(True, score=0.5, funnel="other"),
        lambda: table.feedback_state(funnel="other"),
        lambda: table.adopt_feedback(funnel="other"),
        lambda: table.check_drift(rows()[:60], funnel="other"),
    ):
        with pytest.raises(NotCalibrated, match="has no calibration"):
            call()
    table.drop_funnel("other")
