"""The doctor points to a new tuning run where rows came that are unlike those it was made for."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli
from tests import awaited
from tests.agreement import edge

Connection = psycopg.Connection[Any]
DIMS, ROWS, MORE = 32, 600, 150
FOUND = {"target": 0.9, "k": 10, "recall": 0.95, "low": 0.91, "high": 0.98}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty rows tell as well as a hundred here, in less time."""
    monkeypatch.setattr("funnelvec.tuning.drift._MOST", 40)


def drawn(n: int, seed: int, *, turned: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors whose first dimensions say most; turned, those whose last do."""
    scale = np.exp(-np.arange(DIMS) / 5)[:: -1 if turned else 1]
    return (np.random.default_rng(seed).standard_normal((n, DIMS)) * scale).astype(np.float32)


@contextlib.contextmanager
def opened(kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    if kind == "memory":
        yield fv.connect("memory:")
    elif kind == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as engine:
            yield engine
    else:
        with awaited.opened(request.getfixturevalue("owner_url"), kind) as engine:
            yield engine


#: One form of Postgres: the other is written from it.
@pytest.fixture(params=["memory", "async", "edge"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(request.param, request) as engine:
        made = engine.create("docs", dims=DIMS)
        made.add(range(ROWS), drawn(ROWS, 1))
        made.add_resolution("8:f16", index=True)
        made.create_funnel("docs_search", f"8:f16@40 > {DIMS}:f32")
        made._keep_tuned("docs_search", **FOUND)
        yield made


def fit(table: Any) -> Any:
    (found,) = table.doctor(queries=60).funnels
    return found


def test_rows_of_another_kind_call_for_a_new_run(table: Any) -> None:
    first = fit(table)
    assert (first.since, first.advice, first.recent.queries) == (0, (), 0)
    assert (first.tuned.rows, first.tuned.target) == (ROWS, 0.9)
    table.add(range(ROWS, ROWS + MORE), drawn(MORE, 2))
    alike = fit(table)
    assert alike.since == pytest.approx(MORE / (ROWS + MORE)) and alike.advice == ()
    assert alike.recent.recall == pytest.approx(alike.everywhere.recall, abs=0.06)
    table.add(range(ROWS + MORE, ROWS + 3 * MORE), drawn(2 * MORE, 3, turned=True))
    unlike = fit(table)
    assert unlike.since == pytest.approx(3 * MORE / (ROWS + 3 * MORE))
    assert unlike.recent.recall < alike.recent.recall - 0.1
    assert "rows that came since" in unlike.advice[0] and "tune again" in unlike.advice[0]
    # Another funnel of that name is none that was tuned.
    table.create_funnel("docs_search", f"8:f16@50 > {DIMS}:f32", replace=True)
    assert fit(table).tuned is None and fit(table).since is None


@pytest.mark.parametrize("kind", ["sync", "edge"])
def test_keys_that_do_not_grow(kind: str, request: pytest.FixtureRequest) -> None:
    keys = [uuid.UUID(int=int(n), version=4) for n in np.random.default_rng(4).integers(2**62, size=ROWS + MORE)]  # fmt: skip
    with opened(kind, request) as engine:
        table = engine.create("docs", dims=DIMS, id_kind="uuid")
        table.add(keys[:ROWS], drawn(ROWS, 1))
        table.add_resolution("8:f16", index=True)
        table.create_funnel("docs_search", f"8:f16@40 > {DIMS}:f32")
        table._keep_tuned("docs_search", **FOUND)
        table.add(keys[ROWS:], drawn(MORE, 3, turned=True))
        found = fit(table)
        if kind == "edge":
            assert "ids do not grow" in found.recent.decided and found.recent.queries == 0
            assert found.since == pytest.approx(MORE / (ROWS + MORE)) and found.notes
        else:
            assert "pages" in found.recent.decided
            assert found.recent.since == pytest.approx(MORE, abs=40)
            assert "rows that came since" in found.advice[0]


def test_what_is_kept_outlives_a_rewritten_table_and_a_lost_registry(
    owner_url: str, owner_conn: Connection
) -> None:
    with fv.connect(owner_url) as engine:
        table: Any = engine.create("docs", dims=DIMS, id_kind="text")
        names = [f"{n * 7919 % 1000:03}" for n in range(ROWS + MORE)]
        table.add(names[:ROWS], drawn(ROWS, 1))
        table.add_resolution("8:f16", index=True)
        table.create_funnel("docs_search", f"8:f16@40 > {DIMS}:f32")
        table._keep_tuned("docs_search", **FOUND)
        table.add(names[ROWS:], drawn(MORE, 3, turned=True))
        owner_conn.execute("vacuum full docs")
        owner_conn.execute("delete from funnelvec.funnels")
        owner_conn.execute("select * from funnelvec.repair()")
        with engine.connection() as connection:  # it writes nothing
            connection.execute("set default_transaction_read_only = on")
        found = fit(table)
        assert found.tuned.rows == ROWS and "written anew" in found.recent.decided
        assert found.recent.since == pytest.approx(MORE, abs=40)
        assert "rows that came since" in found.advice[0]


def test_the_command_says_it(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with fv.connect(owner_url) as engine:
        table: Any = engine.create("docs", dims=DIMS)
        table.add(range(ROWS), drawn(ROWS, 1))
        table.add(range(ROWS, ROWS + MORE), drawn(MORE, 3, turned=True))
        table.add_resolution("8:f16", index=True)
        table.create_funnel("docs_search", f"8:f16@40 > {DIMS}:f32")
    arguments = ["doctor", owner_url, "docs", "--queries", "60"]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "LOOK funnel docs_search" in text and "recall on the newest tenth" in text
    assert cli.main([*arguments, "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["funnels"]
    assert "the newest tenth" in said["advice"][0] and said["recent"]["queries"] > 20
    assert cli.main([*arguments, "--no-funnels"]) == 0
    assert "funnel docs_search" not in capsys.readouterr().out
