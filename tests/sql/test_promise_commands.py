"""funnelvec calibrate, certify and status on a real database; the drift of a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli
from tests import databases
from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    from tests.databases import Database

FUNNEL = "two_stages"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command that succeeds, and return what it printed, read if it is JSON."""

    def run(*arguments: str) -> Any:
        status = cli.main(arguments)
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return json.loads(captured.out) if "--json" in arguments else captured.out

    return run


JUDGED = """
    create table judgments as
    select q.embedding as query, h.id,
        q.id % 10 > 0 and abs(hashint8(h.id * 31 + q.id)) % 1000 < 1000 * h.score as relevant
    from (select * from products where id < 40) as q
    cross join lateral two_stages(q.embedding, 25) as h
"""


def test_judgments_of_a_table_and_of_files_are_calibrated_and_certified(
    products_database: Database, call: Callable[..., Any], tmp_path: Path
) -> None:
    url = products_database.owner_url
    with databases.connected(url) as owner:
        owner.execute(JUDGED)
        rows = owner.execute(
            "select query::text, id, relevant::integer + 1 from judgments"
        ).fetchall()
    read = fv.Judgments.from_rows(
        {"query": [row[0] for row in rows], "id": [row[1] for row in rows],
         "grade": [row[2] for row in rows]}, grade="grade", relevant_from=2,
    )  # fmt: skip
    with fv.connect(url) as engine:
        assert set(map(tuple, _pairs(fv.Judgments.from_table(engine, "judgments")))) == set(
            map(tuple, _pairs(read))
        )
    csv = tmp_path / "judged.csv"
    csv.write_text("q,key,stars\n" + "".join(f'"{q}",{id},{grade}\n' for q, id, grade in rows))
    columns = ("--query", "q", "--ids", "key", "--grade", "stars", "--relevant-from", "2")
    target = (url, "products", str(csv), "--funnel", FUNNEL, *columns)
    tried = call("calibrate", *target, "--dry-run", "--json")
    assert (tried["pairs"], tried["queries"], tried["dry_run"]) == (1000, 40, True)
    assert "calibration" not in tried
    assert "calibrated products: platt (slope" in call("calibrate", *target)
    same = call("calibrate", url, "products", "judgments", "--funnel", FUNNEL, "--json")
    assert same["relevant"] == tried["relevant"]
    with databases.connected(url) as owner:
        slopes = owner.execute(
            "select distinct (parameters ->> 'slope')::float8 from funnelvec.calibrations"
        ).fetchall()
    assert [same["calibration"]["slope"]] == [pytest.approx(slope) for (slope,) in slopes]
    options = ("--funnel", FUNNEL, "-k", "20", "--json")
    missed = call("certify", url, "products", "judgments", "--max-miss", "0.3", *options)
    assert missed["certificate"]["kind"] == "max_miss"
    precise = call("certify", url, "products", "judgments", "--min-precision", "0.3", *options)
    assert precise["certificate"]["confidence"] == 0.95
    assert precise["certificate"]["approximate"]
    assert call("certify", *target, "--dry-run", "--json")["certificate"] is None
    found = call("status", url, "products", "--json")
    assert [each["kind"] for each in found["certificates"]] == ["max_miss", "min_precision"]
    assert found["problems"] == []
    printed = call("status", url, "products")
    assert "calibration of public.two_stages: platt, version 2; 1000 pairs of 40 queries" in printed
    assert "certificate of public.two_stages: max_miss 0.3; 20 rows" in printed


def _pairs(judgments: fv.Judgments) -> list[Any]:
    return [
        (query.tobytes(), id, bool(label))
        for query, id, label in zip(judgments.queries, judgments.ids, judgments.labels, strict=True)
    ]


def test_what_cannot_be_read_is_said(
    products_database: Database, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = products_database.owner_url
    for arguments, said in (
        ((url, "products", "nowhere"), "no table 'nowhere'"),
        ((url, "products", str(tmp_path / "gone.parquet")), "no file"),
        ((url, "products", "products"), "no column 'query'"),
        ((url, "products", "judgments", "--encoder", "nowhere:embed"), "nowhere"),
    ):
        assert cli.main(["calibrate", *arguments]) == 1
        assert said in capsys.readouterr().err
    for wrong in (
        ("calibrate", url, "products"),
        ("calibrate", url, "products", "judgments", "--add-unjudged", "0"),
        ("calibrate", url, "products", "judgments", "--encoder", "nowhere"),
        ("certify", url, "products", "judgments", "--max-miss", ".1", "--min-precision", ".9"),
        ("certify", url, "products", "judgments", "--confidence", ".9"),
    ):
        with pytest.raises(SystemExit):
            cli.main(wrong)
        assert "usage:" in capsys.readouterr().err


def test_live_queries_that_nobody_judged_make_a_calibration_stale(
    products_database: Database,
) -> None:
    with databases.connected(products_database.owner_url) as owner:
        owner.execute(JUDGED)
        owner.execute("select funnelvec.calibrate('two_stages', 'judgments')")
        said = "select stale, live_queries, advice from funnelvec.check_drift('two_stages')"
        stale, live, advice = owner.execute(said).fetchone()  # type: ignore[misc]
        assert (stale, live) == (None, 0)
        assert "funnelvec.log_queries('public.two_stages')" in advice
        owner.execute("select funnelvec.log_queries('two_stages', share => 1)")
        # What the judged ones are: rows of the table.
        for id in range(200, 260):
            owner.execute(
                "select count(*) from two_stages((select embedding from products where id = %s), 5)",
                (id,),
            )
        assert owner.execute(said).fetchone() == (False, 60, None)
        assert "live queries score as the judged ones did" in _calibrations(owner)
        for query in vectors(120, seed=77):
            owner.execute("select count(*) from two_stages(%s, 5)", (text(query),))
        # These are of another kind: they say nothing of what people find at best.
        for query in vectors(5, seed=78):
            owner.execute(
                "select count(*) from two_stages(%s, 5, min_relevance => 0.9)", (text(query),)
            )
            owner.execute(
                "select count(*) from two_stages(%s, 5, cutoff => 'best_f1')", (text(query),)
            )
        stale, live, advice = owner.execute(said).fetchone()  # type: ignore[misc]
        assert (stale, live) == (True, 180)
        assert "judge some of them, and calibrate and certify again" in advice
        assert "stale: the best score of live queries" in _calibrations(owner)
        logged = owner.execute("select cutoff, count(*) from two_stages_log group by 1 order by 1")
        assert logged.fetchall() == [("best_f1", 5), (None, 185)]
        # Calibrated again, it is about what has been asked since.
        owner.execute("select funnelvec.calibrate('two_stages', 'judgments')")
        assert owner.execute(said).fetchone()[:2] == (None, 0)  # type: ignore[index]


def _calibrations(owner: psycopg.Connection[Any]) -> str:
    rows = owner.execute(
        "select object, advice from funnelvec.status('products') where storage = 'calibration'"
    ).fetchall()
    return "\n".join(f"{row[0]}\n{row[1]}" for row in rows)


def test_feedback_is_for_the_owner_and_events_at_once_are_all_counted(
    products_database: Database,
) -> None:
    with databases.connected(products_database.owner_url) as owner:
        owner.execute(JUDGED)
        owner.execute("select funnelvec.calibrate('two_stages', 'judgments')")
        owner.execute("grant select on products to public")
        with databases.connected(products_database.other_url) as other:
            with pytest.raises(psycopg.Error, match="must be owner"):
                other.execute("select funnelvec.feedback('two_stages', true, 0.5)")
            assert other.execute(
                "select seen from funnelvec.feedback_state('two_stages')"
            ).fetchone() == (0,)
        with databases.connected(products_database.owner_url) as second:
            owner.execute("begin")
            owner.execute("select funnelvec.feedback('two_stages', true, 0.5)")
            second.execute("set lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                second.execute("select funnelvec.feedback('two_stages', true, 0.5)")
            owner.execute("commit")
            second.execute("select funnelvec.feedback('two_stages', false, 0.5)")
        assert owner.execute(
            "select seen from funnelvec.feedback_state('two_stages')"
        ).fetchone() == (2,)
        # A state that somebody has written by hand is none.
        for odd in ('{"calibration": 1, "slope": 1e9}', "[]", '{"calibration": 1, "h": "x"}'):
            owner.execute("update funnelvec.funnels set feedback = %s", (odd,))
            assert owner.execute(
                "select seen from funnelvec.feedback_state('two_stages')"
            ).fetchone() == (0,)
