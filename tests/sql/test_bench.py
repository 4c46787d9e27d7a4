"""A tiny run of the benchmark on a real server: structure and recall, never a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from funnelvec import bench, cli
from funnelvec.bench import compare, generate, measure_filters, stage
from funnelvec.bench.selectivity import SHARES
from funnelvec.errors import EngineError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]


def traces(connection: Connection) -> int:
    """Schemas and registry rows that a run has left behind."""
    row = connection.execute(
        "select (select count(*) from pg_namespace where nspname like 'funnelvec_bench%')"
        "     + (select count(*) from funnelvec.funnels)"
        "     + (select count(*) from funnelvec.resolutions)"
        "     + (select count(*) from funnelvec.loads)"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_run_measures_all_contestants_and_leaves_nothing(
    owner_url: str, owner_conn: Connection
) -> None:
    said: list[str] = []
    dataset = generate(600, 20, dims=48, seed=1)
    report = compare(
        owner_url, dataset, funnel="16:f16@200 > 48:f32", k=5, rounds=3, builds=2, say=said.append
    )
    assert traces(owner_conn) == 0

    names = [each.name for each in report.standings]
    assert names[0] == "funnel 16:f16@200 > 48:f32"
    assert names[1].startswith("full HNSW, ef_search 40")
    assert names[-1] == "exact scan"
    ours, *_, exact = report.standings
    assert report.ours is ours
    assert exact.recall == 1.0
    assert 0.5 < ours.recall <= 1.0
    assert exact.index_bytes == 0
    assert exact.build_seconds == ()
    for each in report.standings[:-1]:
        assert 0 < each.index_bytes < each.total_bytes
        assert len(each.build_seconds) == 2
        assert [len(times) for times in each.times] == [20, 20, 20]
    assert [len(times) for times in exact.times] == [1, 1, 1]
    assert report.exact is exact
    assert report.full[0] is report.standings[1]
    assert report.full[-1].recall >= ours.recall or report.notes

    assert all(each.same for each in report.overheads)
    assert [each.name.rpartition(", ")[2] for each in report.overheads[2:]] == [
        "platt",
        "beta",
        "isotonic",
        "adapter",
        "adapter of the query too",
        "platt with a hub column",
    ]
    assert all(each.cpu is None or each.cpu.value > 0 for each in report.overheads)
    assert {each.ratio.repeats for each in report.overheads} == {3}
    assert report.rows == 600
    assert report.dims == 48
    assert report.server["PostgreSQL"]
    assert any("round 3 of 3" in line for line in said)
    assert not any("not by its index" in note for note in report.notes)
    found = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert [each["against"] for each in found["ratios"]] == names[1:]
    assert {"latency", "index", "total", "build"} <= set(found["ratios"][0])
    assert len(found["overhead"]) == 8


def test_an_exhaustive_funnel_finds_everything(owner_url: str) -> None:
    # Every row survives the first stage, so whatever is missing then is an error of the measuring.
    report = compare(
        owner_url,
        generate(150, 10, dims=16),
        funnel="16:f16@150 > 16:f32",
        rounds=1,
        with_overhead=False,
    )
    assert report.ours.recall == 1.0
    assert report.overheads == ()


def test_three_stages_and_an_approximate_end(owner_url: str) -> None:
    dataset = generate(300, 10, dims=32)
    report = compare(
        owner_url, dataset, funnel="8:f16@100 > 32:bit@50 > 32:f32", rounds=1, with_overhead=False
    )
    assert 0 < report.ours.recall <= 1
    report = compare(owner_url, dataset, funnel="16:f16", rounds=1, with_overhead=False)
    assert 0 < report.ours.recall < 1


def test_builds_use_every_core_and_searches_are_planned_as_ever(
    owner_url: str, owner_conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_tables: list[Any] = []
    build_one = stage._run

    def options() -> list[Any]:
        return owner_conn.execute(
            "select reloptions from pg_class"
            " where relname in ('plain', 'funneled') and relkind = 'r' order by relname"
        ).fetchall()

    def building(*arguments: Any) -> float:
        on_tables.append(options())
        return build_one(*arguments)

    def measured(lanes: Any, *_: object, **__: object) -> Any:
        on_tables.append(options())
        return [[{0: 1.0}] for _ in lanes]

    monkeypatch.setattr(stage, "_run", building)
    monkeypatch.setattr("funnelvec.bench.run.take_turns", measured)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    compare(owner_url, generate(100, 5, dims=8), rounds=1, with_overhead=False)
    *builds, searching = on_tables
    assert len(builds) == 2
    for found in builds:
        assert found[0] == found[1]
        assert found[0][0][0].startswith("parallel_workers=")
    assert searching == [(None,), (None,)]


def test_small_shared_memory_builds_without_workers(
    owner_url: str, owner_conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = owner_conn.execute("select inet_server_addr() is null").fetchone()
    if row != (True,) or not Path("/dev/shm").is_dir():
        pytest.skip("the server's shared memory is not here to be looked at")
    usage = shutil.disk_usage("/")._replace(free=64 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    report = compare(owner_url, generate(100, 5, dims=8), rounds=1, with_overhead=False)
    assert report.server["max_parallel_maintenance_workers"] == "0"
    assert any("shared memory is small" in note for note in report.notes)


def test_a_wide_vector_is_indexed_as_halfvec(owner_url: str) -> None:
    report = compare(owner_url, generate(120, 5, dims=2100), rounds=1, with_overhead=False)
    assert report.standings[1].name.startswith("full HNSW (halfvec)")
    assert report.standings[1].index_bytes > 0


def test_a_failed_run_leaves_nothing(
    owner_url: str, owner_conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("funnelvec.bench.run.take_turns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(owner_url, generate(100, 5, dims=8), rounds=1)
    assert traces(owner_conn) == 0


def test_a_contestant_without_its_index_is_refused(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from funnelvec.bench import contestants, run

    def unindexed(schema: str, *, dims: int, ef_search: int, note: str = "") -> Any:
        made = contestants.full_hnsw(schema, dims=dims, ef_search=ef_search, note=note)
        statement = made.statement.replace("order by embedding <=> %(query)s", "order by 2")
        return replace(made, statement=statement)

    monkeypatch.setattr(run, "full_hnsw", unindexed)
    with pytest.raises(EngineError, match="does not use its index"):
        compare(owner_url, generate(100, 5, dims=8), rounds=1)


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"builds": 0}, {"k": 0}, {"k": 61}])
def test_counts_are_checked_before_anything_is_made(
    owner_url: str, owner_conn: Connection, changes: dict[str, int]
) -> None:
    with pytest.raises(InvalidInput):
        compare(owner_url, generate(100, 5, dims=48), funnel="16:f16@60 > 48:f32", **changes)  # type: ignore[arg-type]
    assert traces(owner_conn) == 0


def test_the_command_prints_tables_or_json(
    owner_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = generate(300, 30, dims=24)
    np.save(tmp_path / "rows.npy", dataset.rows.astype(np.float16))
    np.save(tmp_path / "queries.npy", dataset.queries)
    arguments = ["bench", "--quick", "--rounds", "2", "--url", owner_url, "--data"]
    arguments += [str(tmp_path / "rows.npy"), "--queries", str(tmp_path / "queries.npy")]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    for word in ("recall@10", "exact scan", "Ratios", "Overhead", "rows.npy", "ef_construction 64"):
        assert word in text
    assert cli.main([*arguments, "--rows", "200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["rows"] == 200
    assert found["queries"] == 30
    assert 0.5 < found["contestants"][0]["recall"] <= 1


def test_filters_are_measured_side_by_side(owner_url: str, owner_conn: Connection) -> None:
    dataset = generate(2000, 8, dims=32, seed=1)
    report = measure_filters(owner_url, dataset, funnel="16:f16@40 > 32:f32", k=5, rounds=2)
    assert traces(owner_conn) == 0
    assert [each.share for each in report.measured] == [*SHARES, *SHARES]
    for each in report.measured:
        assert each.short == 0  # ours is always full
        assert each.funnel_recall >= 0.6
        if not each.access.startswith("index"):
            assert each.funnel_recall >= 0.9
        assert each.exact_ms > 0 and each.versus_exact is not None
    narrow = [each.access for each in report.measured if each.share < 0.01]
    assert all(access.startswith(("scan", "filter by index")) for access in narrow)
    assert len(report.section().rows) == 12
    assert len(json.loads(json.dumps(report.as_json()))["measured"]) == 12


def test_the_command_prints_filters(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "bench",
        "filters",
        "--quick",
        "--url",
        owner_url,
        "--rows",
        "400",
        "--dims",
        "16",
    ]
    assert cli.main([*arguments, "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "our way" in out and "100.00%" in out and "ours had 0" in out


def test_windows_are_measured_side_by_side(
    owner_url: str,
    owner_conn: Connection,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["bench", "windows", "--quick", "--url", owner_url, "--rows", "600"]
    arguments += ["--dims", "16", "--funnel", "8:f16@60 > 16:f32", "--levels", "1"]
    # Measured once, and printed in both forms.
    monkeypatch.setattr(bench, "measure_windows", once(bench.measure_windows))
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert traces(owner_conn) == 0
    for word in (
        "recall@10",
        "to iterative",
        "to without",
        "windows of 8:f16",
        "least recall of ours",
    ):
        assert word in printed
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["measured"]) == 7
    for each in found["measured"]:
        assert each["windows_recall"] > 0.6
        assert sum(each["ways"].values()) == each["cases"] == 10
    costs = {each["name"]: each["count"] for each in found["built"]}
    assert costs == {"first stage 8:f16": 1, "windows of 8:f16": 3, "full HNSW": 1, "B-tree": 1}


def once(measure: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which measures when it is called first and says the same from then on."""
    found: list[Any] = []

    def measured(*given: Any, **named: Any) -> Any:
        if not found:
            found.append(measure(*given, **named))
        return found[0]

    return measured


def test_windows_want_all_files_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "windows", "--data", "x.npy", "--by", "day"])
    assert "--queries, --values, --ranges" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [["--json"], []])
def test_loading_is_measured_beside_a_bare_copy(
    owner_url: str, owner_conn: Connection, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    size = ["--rows", "300", "--dims", "24", "--rounds", "2"]
    assert cli.main(["bench", "load", "--url", owner_url, *size, *asked]) == 0
    printed = capsys.readouterr().out
    assert traces(owner_conn) == 0
    if not asked:
        assert "bare COPY, row by row" in printed and "of their own" in printed
        return
    found = json.loads(printed)
    assert found["contestants"][0]["name"] == "bare COPY, row by row"
    assert found["contestants"][0]["versus_bare"]["value"] == 1
    names = [each["name"] for each in found["contestants"]]
    assert len(names) == 8 and "add() with codes and HNSW" in names
    assert all(len(each["seconds"]) == 2 for each in found["contestants"])
