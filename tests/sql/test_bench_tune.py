"""A tiny run of the tuner beside its grid, on a real server: what takes part, no times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from funnelvec import cli
from funnelvec.bench import compare_tuning, generate
from funnelvec.errors import InvalidInput


def test_the_tuner_is_among_the_grid(owner_url: str, owner_conn: Any) -> None:
    dataset = generate(400, 60, dims=12, seed=4)
    report = compare_tuning(
        owner_url, dataset, target=0.8, k=5, rounds=1, bases=["rotated"], coarse=True
    )
    (found,) = report.bases
    assert found.met and found.low <= found.recall <= found.high
    # What is compared with finds as much on queries that neither was picked by: at least ours does.
    assert found.best.recall >= found.held and found.luckiest.recall >= found.chosen.recall
    assert found.fresh == 10 and found.tried >= (found.best.funnel != found.funnel)
    assert found.settings > 5 and found.grid_seconds > found.build_seconds > 0
    if found.repeats is not None:  # None where the column itself won
        assert found.repeats.inside <= found.repeats.above <= found.repeats.count == 20
    assert json.loads(json.dumps(report.as_json()))["target"] == 0.8
    assert "share" in report.sections()[0].head and len(report.lines()) == 3
    assert "not told by a coarse grid" in report.lines()[0]
    left = owner_conn.execute(
        "select count(*) from pg_namespace where nspname like 'funnelvec_bench%'"
    ).fetchone()
    assert left == (0,)


def test_too_few_queries_are_refused_with_the_number() -> None:
    with pytest.raises(InvalidInput, match="it takes 273"):
        compare_tuning("postgresql://nobody@127.0.0.1:1/", generate(100, 100, dims=8))
    with pytest.raises(InvalidInput, match="upside down"):
        compare_tuning(
            "postgresql://nobody@127.0.0.1:1/", generate(9, 60, dims=8), target=0.5,
            bases=["upside down"],
        )  # fmt: skip


def test_the_command_takes_a_recall(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "tune", "--rows", "50", "--dims", "4", "--recall", "0.9999"]) == 1
    assert "too few for recall 0.9999" in capsys.readouterr().err
