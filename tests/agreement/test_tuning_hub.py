"""Tuning where a calibration is in force: in the order of its scores, and so that it stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.tuning.candidates import Template
from funnelvec.tuning.simulate import simulate
from funnelvec.tuning.world import Axes, World
from tests.agreement import edge
from tests.agreement.test_hub import DIMS, ROWS, judgments, made, rows

QUERIES = rows()[:60] + np.random.default_rng(8).normal(scale=0.3, size=(60, DIMS))


@pytest.fixture(params=["memory", "postgres", "edge"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A table whose scores are less a share of the hubs of their rows."""
    with edge.folder() as folder:
        url = {"memory": "memory:", "edge": f"edge:{folder}"}.get(request.param)
        with fv.connect(url or request.getfixturevalue("owner_url")) as engine:
            table = made(engine)
            table.add_hub()
            assert table.calibrate(judgments()).alpha > 0.2
            yield table


def test_the_sample_brings_the_hubs(table: Any) -> None:
    drawn = table.sample(ROWS)
    oracle = made(fv.connect("memory:"))
    oracle.add_hub()
    known = oracle.sample(ROWS)
    hubs = dict(zip(known.ids, known.hubs, strict=True))
    np.testing.assert_allclose(drawn.hubs, [hubs[id] for id in drawn.ids], atol=1e-5)
    table.drop_hub()
    assert table.sample(20).hubs is None


def test_recall_is_that_of_the_corrected_order(table: Any) -> None:
    # Where the sample is a part of the table, the table is asked what is exact, corrected too.
    report = table.tune(0.9, queries=QUERIES, sample=240)
    stages = Funnel.parse(report.funnel).stages
    assert report.met and len(stages) > 1  # a funnel of one stage has no list to correct
    assert "times its hub off the score" in str(report) and "240 of 360" in " ".join(report.notes)
    # What was stated of the checking queries is what the table itself measures.
    measured = table.measure_recall(queries=QUERIES)
    assert measured.recall == pytest.approx(report.recall, abs=0.05)


def test_rows_are_left_out_of_the_corrected_order_too() -> None:
    table = made(fv.connect("memory:"))
    table.add_hub()
    table.calibrate(judgments())
    report = table.tune(0.8, queries="rows", sample=240)
    assert report.recall == pytest.approx(table.measure_recall(sample=100).recall, abs=0.08)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_the_simulation_takes_hubs_off_as_the_engine_does(metric: Any) -> None:
    table: Any = fv.connect("memory:").create("docs", dims=DIMS, metric=metric)
    table.add(range(ROWS), rows())
    table.add_resolution("8:f16")
    table.create_funnel("docs_search", "8:f16@60 > 16:f32")
    table.add_hub()
    # Under the other metrics these judgments have no use for hubs.
    alpha = table.calibrate(judgments()).alpha if metric == "cosine" else 40.0
    base, first = Resolution(DIMS, "f32"), Resolution(8, "f16")
    drawn = table.sample(ROWS)
    world = World(
        drawn.vectors, QUERIES.astype(np.float32), np.full(60, -1), base=base, metric=metric, k=10,
        axes=Axes(drawn.vectors, metric=metric, kept={}), less=alpha * drawn.hubs.astype(float),
    )  # fmt: skip
    simulated = simulate(world, Template((first, base)))
    if metric == "cosine":
        measured = table.measure_recall(queries=QUERIES)
        assert simulated.at((60,)) == pytest.approx(measured.recall, abs=1e-6)
    store = table._store
    for i, query in enumerate(QUERIES.astype(np.float32)[:20]):
        plain = store.scores(base, query, np.arange(ROWS))
        scores = store.correct(plain, np.arange(ROWS), alpha)
        best = {store.keys[row] for row in np.argsort(-scores)[:10]}
        assert {drawn.ids[row] for row in world.truth[i]} == best
        assert world.worst[i] == pytest.approx(np.sort(scores)[-10], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("table", ["memory", "postgres"], indirect=True)
def test_lists_are_as_long_as_the_calibration_looks_at(table: Any) -> None:
    table.drop_hub()
    fitted = table.calibrate(judgments(), family="adapter")
    assert fitted.depth == 120
    report = table.tune(0.5, queries=QUERIES)
    assert Funnel.parse(report.funnel).narrowest_keep >= 120
    assert "at least 120 rows" in str(report)
    assert table.search(QUERIES[0])[0].relevance is not None
