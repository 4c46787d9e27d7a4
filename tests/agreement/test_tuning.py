"""The tuner on databases: it meets its target, builds what wins, and leaves nothing else behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.errors import InvalidInput
from funnelvec.funnel import Funnel
from tests import awaited
from tests.agreement import edge

#: So many rows that an exact scan is not much faster than any funnel, which would build nothing.
DIMS, ROWS = 96, 2_000


def drawn(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors in which no dimension is special, most of whose length lies in a few directions."""
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((DIMS, DIMS)))[0]
    scale = np.exp(-np.arange(DIMS) / 12)
    vectors = np.random.default_rng(seed).standard_normal((n, DIMS)) * scale @ turn
    return vectors.astype(np.float32)


ROWS_, QUERIES = drawn(ROWS, 1), drawn(50, 2)


@pytest.fixture(params=["sync", "async", "edge"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    how, _, rows = request.param.partition(" of ")
    n = int(rows or ROWS)
    if how == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as engine:
            made = engine.create("docs", dims=DIMS)
            made.add(range(n), ROWS_[:n])
            yield made
        return
    url = request.getfixturevalue("owner_url")
    with awaited.opened(url, how) as postgres:
        made = postgres.create("docs", dims=DIMS)
        made.add(range(n), ROWS_[:n])
        yield made


def stored(table: Any) -> set[str]:
    return {each.resolution for each in table.status()}


#: Each form of Postgres once, and Edge twice: the synchronous form is written from the asynchronous one.
@pytest.mark.parametrize("table", ["async", "edge"], indirect=True)
def test_it_meets_its_target_and_leaves_nothing_else(table: Any) -> None:
    report = table.tune(0.9, queries=QUERIES)
    assert report.met and report.applied
    assert set(table._funnels_now()) == {"docs_search"}
    stages = [str(stage.resolution) for stage in Funnel.parse(report.funnel).stages]
    assert stored(table) == set(stages) - {f"{DIMS}:f32"} == set(report.built)
    fresh = table.measure_recall(queries=drawn(60, 3))
    assert fresh.recall >= report.low - 0.05
    measured = [option for option in report.options if option.measured]
    assert measured and all(option.milliseconds > 0 for option in measured)
    # What the engine charges is measured once on a machine; in Qdrant there is no place to.
    said: list[str] = []
    dry = table.tune(0.9, queries=QUERIES, dry_run=True, on_step=said.append)
    assert not any("charges" in step for step in said)
    assert dry.prices.kept == dry.prices.measured == report.prices.measured
    if dry.prices.kept:
        assert (dry.prices.key, dry.prices.at) == (report.prices.key, report.prices.at)
        assert dry.prices.wide == pytest.approx(report.prices.wide, rel=1e-3)
        assert report.prices.at in " ".join(dry.notes)
        anew = table.tune(0.9, queries=QUERIES, dry_run=True, measure_again=True)
        assert not anew.prices.measured  # a dry run makes no table to measure on


@pytest.mark.parametrize("table", ["sync of 800", "edge"], indirect=True)
def test_an_interrupted_run_goes_on(table: Any) -> None:
    table.add_resolution("8:f16", index=True)

    def stop(text: str) -> None:
        if re.search("measuring [0-9].* > ", text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.tune(0.9, queries=QUERIES, on_step=stop, sample=1_000)
    begun = stored(table)
    assert begun > {"8:f16"} and "docs_search" not in table._funnels_now()
    said: list[str] = []
    report = table.tune(0.9, queries=QUERIES, on_step=said.append, sample=1_000)
    stored_now = [text.removeprefix("storing ") for text in said if text.startswith("storing")]
    assert not begun & {each for text in stored_now for each in text.split(", ")}
    assert "8:f16" in stored(table)  # the user's own stays
    stages = {str(stage.resolution) for stage in Funnel.parse(report.funnel).stages}
    assert stored(table) <= stages | {"8:f16"}
    assert set(table._funnels_now()) == {"docs_search"}


def test_a_budget_of_memory_takes_an_index_of_fewer_links(owner_url: str, owner_conn: Any) -> None:
    settings: set[str] = set()

    def look(text: str) -> None:
        found = owner_conn.execute(
            "select c.reloptions::text from pg_class c join pg_index i on i.indexrelid = c.oid"
            " join pg_am a on a.oid = c.relam"
            " where a.amname = 'hnsw' and i.indrelid = to_regclass('docs')"
        ).fetchall()
        settings.update(row[0] for row in found)

    with fv.connect(owner_url) as engine:
        table: Any = engine.create("docs", dims=DIMS)
        table.add(range(ROWS), ROWS_)
        # Over 96 bits the usual index is expected to take 630 kB, one of half as many links 426.
        report = table.tune(0.9, queries=QUERIES, budget={"memory": 600e3}, on_step=look)
    assert settings == {"{m=8,ef_construction=64}"}
    light = [option for option in report.options if option.index]
    assert light and all(option.memory <= 600e3 for option in light if option.measured)
    if report.index:  # else the column itself was faster on this machine
        assert report.index == "m 8, ef_construction 64" and report.index in " ".join(report.advice)


def test_codes_beside_the_table_are_priced_and_built_there(owner_url: str, owner_conn: Any) -> None:
    kinds: set[tuple[str, str]] = set()

    def look(text: str) -> None:
        found = owner_conn.execute("select table_name::text, storage from funnelvec.resolutions")
        kinds.update(found.fetchall())

    with fv.connect(owner_url) as engine:
        table: Any = engine.create("docs", dims=DIMS)
        table.add(range(ROWS), ROWS_)
        report = table.tune(0.9, queries=QUERIES, storage="side", on_step=look)
    assert report.met and report.prices.measured
    assert ("docs", "side") in kinds and {storage for _, storage in kinds} == {"side"}


def test_settings_of_an_index_go_to_qdrant() -> None:
    with edge.folder() as folder, fv.connect(f"edge:{folder}") as engine:
        table: Any = engine.create("docs", dims=DIMS)
        table.add(range(50), ROWS_[:50])
        table.add_resolution("8:f16", index=True, m=8, ef_construction=64)
        table.add_resolution("8:f16", index=True, m=32)  # one that stands keeps its own
        table.add_resolution("16:f16", index=True)
        told = table._collection.deployment.info("docs").vectors
        graphs = [told[f"embedding_{dims}_f16"].hnsw_config for dims in (8, 16)]
        assert [(each.m, each.ef_construct) for each in graphs] == [(8, 64), (32, 128)]


def test_a_copy_leaves_the_table_as_it_is(owner_url: str, owner_conn: Any) -> None:
    with fv.connect(owner_url) as engine:
        table: Any = engine.create("docs", dims=DIMS)
        table.add(range(ROWS), ROWS_)
        table.create_funnel("docs_search", f"{DIMS}:f32")
        before = table._funnels_now(), table.status()
        report = table.tune(0.9, on_copy=600)
        assert not report.applied and report.rows == 600
        assert report.source == "rows of the table" and "resemble" in " ".join(report.notes)
        assert (table._funnels_now(), table.status()) == before
        tables = owner_conn.execute(
            "select count(*) from pg_class where relkind = 'r' and relname like 'docs%'"
        ).fetchone()
        assert tables == (1,)
        left = owner_conn.execute("select count(*) from funnelvec.resolutions").fetchone()
        assert left == (0,)


def test_logged_queries_are_taken_first(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with fv.connect(owner_url) as engine:
        table: Any = engine.create("docs", dims=DIMS)
        table.add(range(ROWS), ROWS_)
        table.create_funnel("docs_search", f"{DIMS}:f32", model="m")
        table.log_queries(share=1.0)
        with pytest.raises(InvalidInput, match="in the log"):
            table.tune(0.9, queries="log", dry_run=True)
        for query in QUERIES:
            table.search(query)
        assert table.tune(0.9, dry_run=True).source == "the query log"
    assert cli.main(["tune", owner_url, "docs", "--recall", "0.9", "--dry-run", "--json"]) == 0
    shown = capsys.readouterr()
    assert '"source": "the query log"' in shown.out and "simulating" in shown.err
