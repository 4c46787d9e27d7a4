"""The head that says when a table has no answer, on every kind of engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration.metrics import auc
from funnelvec.errors import CalibrationError, InvalidInput
from tests import databases
from tests.agreement import edge

DIMS, ROWS, QUERIES = 16, 600, 120


def rows() -> np.ndarray[Any, Any]:
    """Sixty clusters of ten rows, in half of the dimensions."""
    rng = np.random.default_rng(2)
    centres = np.zeros((60, DIMS))
    centres[:, : DIMS // 2] = rng.normal(size=(60, DIMS // 2))
    found = centres[np.arange(ROWS) % 60] + rng.normal(scale=0.15, size=(ROWS, DIMS))
    return found.astype(np.float32)


def asked(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Queries at a row, and others between the clusters and beside them."""
    rng = np.random.default_rng(seed)
    answerable = np.arange(QUERIES) % 2 == 0
    near = rows()[rng.integers(0, ROWS, QUERIES)]
    mixed = (near + rows()[rng.integers(0, ROWS, QUERIES)]) / 2
    queries = np.where(answerable[:, None], near, mixed)
    return (queries + rng.normal(scale=0.15, size=queries.shape)).astype(np.float32), answerable


def judgments(table: Any, seed: int) -> fv.Judgments:
    queries, answerable = asked(seed)
    place = {query.tobytes(): number for number, query in enumerate(queries)}
    return fv.Judgments.from_judge(
        table, queries,
        lambda query, hit: bool(answerable[place[query.tobytes()]]) and hit.score > 0.9, k=3,
    )  # fmt: skip


@pytest.fixture(params=["memory", "postgres", "edge"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "memory":
        with fv.connect("memory:") as engine:
            yield made(engine)
    elif request.param == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as engine:
            yield made(engine)
    else:
        server = request.getfixturevalue("pg_server")
        database = databases.Database(server, databases.new_name(server))
        with databases.connected(server.url()) as admin:
            databases.create_database(admin, database.name, template=server.template("funnelvec"))
        with fv.connect(database.owner_url) as engine:
            yield made(engine)
        server.done_with.append(database.name)


def made(engine: Any) -> Any:
    table = engine.create("things", dims=DIMS)
    table.add(range(ROWS), rows())
    table.create_funnel("things_search", f"{DIMS}:f32")
    return table


def test_a_head_knows_which_queries_have_no_answer(table: Any) -> None:
    head = fv.Abstention.fit(table, judgments(table, 1), depth=30)
    queries, answerable = asked(2)
    answers = table.search_many(queries, k=30)
    chances = np.array([head.probability(q, a) for q, a in zip(queries, answers, strict=True)])
    best = np.array([answer[0].score for answer in answers])
    # Not only by the best score: how it stands out from the others tells more.
    assert auc(chances, answerable) > max(0.93, auc(best, answerable))
    shown = [head.search(table, query, k=3) for query in queries]
    for answer, full, chance in zip(shown, answers, chances, strict=True):
        assert answer == (full[:3] if chance >= 0.5 else [])
        assert (answer.nearest == full[0]) == (chance < 0.5)
    assert 0.3 < np.mean([len(answer) > 0 for answer in shown]) < 0.7
    read = fv.Abstention.from_json(head.to_json())
    assert read == head
    assert read.probability(queries[0], answers[0]) == chances[0]


def test_what_a_head_cannot_be_fitted_to(table: Any) -> None:
    few = judgments(table, 1)
    nothing = fv.Judgments(few.queries, few.ids, np.zeros(len(few), bool))
    with pytest.raises(CalibrationError, match="10 queries with an answer"):
        fv.Abstention.fit(table, nothing, depth=30)
    with pytest.raises(InvalidInput, match="depth"):
        fv.Abstention.fit(table, few, depth=19)
    head = fv.Abstention.fit(table, few, depth=30)
    with pytest.raises(InvalidInput, match="at least 20"):
        head.probability(rows()[0], table.search(rows()[0], k=5))
    for text in ("", "[]", "{}", '{"format": "abstention", "version": 2}'):
        with pytest.raises(CalibrationError):
            fv.Abstention.from_json(text)
