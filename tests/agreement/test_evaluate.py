"""Every engine answers judged queries alike, so its figures are those of the memory engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.calibration.logistic import sigmoid
from funnelvec.engines.base import Engine
from tests.agreement import edge

DIMS, ROWS, QUERIES, JUDGED = 8, 150, 25, 20


def judgments() -> tuple[Any, fv.Judgments]:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(ROWS, DIMS)).astype(np.float32)
    asked = rows[:QUERIES] + 0.3 * rng.normal(size=(QUERIES, DIMS)).astype(np.float32)
    ids, labels = [], []
    for query in asked:
        scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-scores)[:JUDGED]
        ids += nearest.tolist()
        labels += (rng.random(JUDGED) < sigmoid(12 * (scores[nearest] - 0.6))).tolist()
    return rows, fv.Judgments(np.repeat(asked, JUDGED, axis=0), ids, labels)


def made(engine: Engine) -> Any:
    rows, judged = judgments()
    table = engine.create("evaluated", dims=DIMS)
    table.add(range(ROWS), rows)
    table.add_resolution("4:f16")
    table.create_funnel("evaluated_search", f"4:f16@60 > {DIMS}:f32")
    table.calibrate(judged)
    return table


@pytest.fixture(params=["local", "edge"])
def qdrant(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "local":
        with fv.connect("qdrant-local::memory:") as local:
            yield local
        return
    with edge.folder() as folder, fv.connect(f"edge:{folder}") as opened:
        yield opened


def compare(table: Any) -> None:
    with fv.connect("memory:") as memory:
        oracle = made(memory)
        for options in ({"k": 30, "min_relevance": 0.5}, {"unjudged": "ignored"}):
            ours = table.evaluate(judgments()[1], times=20, **options)
            expected = oracle.evaluate(judgments()[1], times=20, **options)
            assert (ours.k, ours.queries, ours.funnel) == (
                expected.k,
                expected.queries,
                expected.funnel,
            )
            assert ours.judged == pytest.approx(expected.judged)
            # Scores of 32 bits may swap two rows that are as near as each other.
            for one, other in zip(ours.figures, expected.figures, strict=True):
                assert one.name == other.name
                assert one.value == pytest.approx(other.value, abs=2e-3), one.name
                assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=2e-2)


def test_postgres_is_evaluated_like_memory(postgres: Engine) -> None:
    compare(made(postgres))


def test_qdrant_is_evaluated_like_memory(qdrant: Engine) -> None:
    compare(made(qdrant))


def test_commands_evaluate_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    rows, judged = judgments()
    source = tmp_path / "judged.parquet"
    columns = {
        "query": judged.queries.tolist(),
        "id": list(judged.ids),
        "relevant": judged.labels.tolist(),
    }
    parquet.write_table(Table.from_pydict(columns), source)
    url = f"qdrant-local:{tmp_path / 'store'}"
    with fv.connect(url) as engine:
        table = engine.create("docs", dims=DIMS)
        table.add(range(ROWS), rows)
        table.create_funnel("docs_search", f"{DIMS}:f32")
    page, numbers = tmp_path / "out.html", tmp_path / "out.json"
    reports = ["--report", str(page), "--report", str(numbers)]
    assert cli.main(["calibrate", url, "docs", str(source), *reports, "-k", "30"]) == 0
    out = capsys.readouterr().out
    assert "calibrated docs: platt" in out and f"report: {page}" in out
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert json.loads(numbers.read_text("utf-8"))["kind"] == "platt"
    shown = tmp_path / "beta.png"
    beta = ["calibrate", url, "docs", str(source), "--family", "beta", "--report", str(shown)]
    assert cli.main(beta) == 0
    assert "calibrated docs: beta" in capsys.readouterr().out and shown.stat().st_size > 50_000
    asked = ["evaluate", url, "docs", str(source), "-k", "30", "--min-relevance", "0.5"]
    assert cli.main([*asked, "--draws", "20"]) == 0
    out = capsys.readouterr().out
    assert "25 judged queries" in out and "precision@min_relevance" in out
    assert cli.main([*asked, "--draws", "20", "--judged-only", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["unjudged"] == "ignored" and content["k"] == 30
    assert cli.main([*asked, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "dry_run": True,
        "pairs": QUERIES * JUDGED,
        "queries": QUERIES,
        "relevant": int(judged.labels.sum()),
    }
    assert cli.main([*asked, "--draws", "1"]) == 1
    assert "times is a whole number" in capsys.readouterr().err
