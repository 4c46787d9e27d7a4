"""calibrate, relevance, cutoff and min_relevance in SQL."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from funnelvec.calibration.platt import fit_platt
from tests.sql.tables import search, text, vectors

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])


@pytest.fixture
def judged(products: Connection) -> Connection:
    """30 queries with 20 judged rows each; the nearer a row, the likelier it is relevant."""
    products.execute(
        """
        create table judgments as
        select q.embedding as query, h.id,
            abs(hashint8(h.id * 31 + q.id)) % 1000 < 1000 * h.score as relevant
        from (select * from products where id < 30) as q
        cross join lateral two_stages(q.embedding, 20) as h
        """
    )
    return products


def calibrate(connection: Connection, funnel: str = "two_stages") -> dict[str, Any]:
    cursor = connection.execute("select * from funnelvec.calibrate(%s, 'judgments')", (funnel,))
    assert cursor.description is not None
    row = cursor.fetchone()
    assert row is not None
    return dict(zip((column.name for column in cursor.description), row, strict=True))


def test_the_fit_is_the_one_of_python(judged: Connection) -> None:
    fitted = calibrate(judged)
    rows = judged.execute(
        "select 1 - (p.embedding <=> j.query), j.relevant from judgments as j join products as p using (id)"
    ).fetchall()
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    line = fit_platt(scores, labels)
    assert fitted["slope"] == pytest.approx(line.slope, rel=1e-9)
    assert fitted["offset"] == pytest.approx(line.offset, rel=1e-9)
    assert (fitted["queries"], fitted["pairs"], fitted["missing"]) == (30, 600, 0)
    assert fitted["relevant"] == labels.sum()
    assert (fitted["version"], fitted["family"]) == (1, "platt")


def test_relevance_comes_with_hits_and_min_relevance_cuts(judged: Connection) -> None:
    fitted = calibrate(judged)
    rows = search(judged, "two_stages", Q, k=50)
    for _, score, relevance in rows:
        z = fitted["slope"] * score + fitted["offset"]
        assert relevance == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-12)
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    threshold = (rows[4][2] + rows[5][2]) / 2
    assert search(judged, "two_stages", Q, k=50, min_relevance=threshold) == rows[:5]
    assert search(judged, "two_stages", Q, k=3, min_relevance=threshold) == rows[:3]
    assert search(judged, "two_stages", Q, min_relevance=1) == []
    assert search(judged, "two_stages", Q, k=50, min_relevance=0) == rows
    row = judged.execute(
        "select funnelvec.cutoff('two_stages', %s), funnelvec.relevance('two_stages', %s)",
        (threshold, rows[0][1]),
    ).fetchone()
    assert row is not None
    assert rows[4][1] > row[0] > rows[5][1]
    assert row[1] == pytest.approx(rows[0][2], rel=1e-12)


def test_funnels_with_the_same_last_stage_share_it(judged: Connection) -> None:
    calibrate(judged)
    assert search(judged, "three_stages", Q)[0][2] is not None
    judged.execute(
        "select funnelvec.create_funnel('later', 'products', 'embedding', '32:bit@500 > 32:f32')"
    )
    assert search(judged, "later", Q)[0][2] is not None
    judged.execute(
        "select funnelvec.create_funnel('other', 'products', 'embedding', '32:f32', model => 'm2')"
    )
    assert search(judged, "other", Q)[0][2] is None
    judged.execute(
        "select funnelvec.create_funnel('coarse', 'products', 'embedding', '16:f16', approximate => true)"
    )
    assert search(judged, "coarse", Q)[0][2] is None


def test_a_refit_gets_the_next_version_and_changes_the_searches(judged: Connection) -> None:
    calibrate(judged)
    before = search(judged, "two_stages", Q)[0][2]
    judged.execute("update judgments set relevant = true where random() < 0.5")
    again = calibrate(judged)
    assert again["version"] == 2
    assert search(judged, "two_stages", Q)[0][2] != before
    versions = judged.execute("select version from funnelvec.calibrations order by 1").fetchall()
    assert versions == [(1,), (2,)]


def test_an_approximate_end_is_calibrated_on_its_own_score(judged: Connection) -> None:
    judged.execute(
        "select funnelvec.create_funnel('signs_only', 'products', 'embedding', '32:bit', approximate => true)"
    )
    calibrate(judged, "signs_only")
    rows = search(judged, "signs_only", Q, k=5)
    assert all(-1 <= score <= 1 and relevance is not None for _, score, relevance in rows)
    assert search(judged, "two_stages", Q)[0][2] is None


def test_judged_rows_that_are_gone_are_counted(judged: Connection) -> None:
    judged.execute("delete from products where id in (select id from judgments limit 40)")
    fitted = calibrate(judged)
    assert fitted["missing"] >= 40
    assert fitted["pairs"] + fitted["missing"] == 600


def test_explain_shows_the_cutoff(judged: Connection) -> None:
    calibrate(judged)
    rows = search(judged, "funnelvec.explain", "two_stages", query=Q, min_relevance=0.5)
    cutoff = judged.execute(
        "select round(funnelvec.cutoff('two_stages', 0.5)::numeric, 6)::text"
    ).fetchone()
    assert cutoff is not None
    assert rows[-1][6] == f"rescore, cutoff {cutoff[0]}"


def test_literals_keep_every_digit_whatever_the_session_prints(judged: Connection) -> None:
    judged.execute("set extra_float_digits = -10")
    fitted = calibrate(judged)
    relevance = search(judged, "two_stages", Q)[0][2]
    judged.execute("reset extra_float_digits")
    row = search(judged, "two_stages", Q)[0]
    stored = judged.execute(
        "select (parameters ->> 'slope')::float8, (parameters ->> 'offset')::float8 from funnelvec.calibrations"
    ).fetchone()
    assert stored is not None
    z = stored[0] * row[1] + stored[1]
    assert row[2] == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-14)
    assert relevance == pytest.approx(row[2], rel=1e-4)
    assert fitted["slope"] == pytest.approx(stored[0], rel=1e-4)


@pytest.mark.parametrize("family", ["beta", "isotonic"])
def test_psql_alone_fits_and_applies_a_family(judged: Connection, family: str) -> None:
    cursor = judged.execute(
        "select version, family, parameters from funnelvec.calibrate('two_stages', 'judgments', family => %s)",
        (family,),
    )
    version, fitted, parameters = cursor.fetchone() or (0, "", {})
    assert (version, fitted) == (1, family)
    rows = search(judged, "two_stages", Q, k=50)
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    threshold = rows[20][2] - 1e-9  # not the number itself, which its cutoff may round away
    kept = [row for row in rows if row[2] >= threshold]
    assert search(judged, "two_stages", Q, k=50, min_relevance=threshold) == kept
    row = judged.execute(
        "select funnelvec.cutoff('two_stages', %s), funnelvec.relevance('two_stages', %s)",
        (threshold, rows[20][1]),
    ).fetchone()
    assert row is not None
    assert row[0] <= rows[20][1]
    assert row[1] == pytest.approx(rows[20][2], rel=1e-12)
    # The registry's rows are lost, as in a restore without them: the function has it all.
    judged.execute("delete from funnelvec.calibrations")
    judged.execute("delete from funnelvec.funnels where name = 'two_stages'")
    judged.execute("select * from funnelvec.repair()").fetchall()
    kept = judged.execute("select family, parameters from funnelvec.calibrations").fetchall()
    assert kept == [(family, parameters)]
    assert search(judged, "two_stages", Q, k=50) == rows


def test_a_family_that_sql_does_not_fit_is_refused_with_the_way_out(judged: Connection) -> None:
    for family, hint in (("adapter", "docs.calibrate"), ("auto", "docs.calibrate"), ("x", "platt")):
        with pytest.raises(psycopg.Error, match="platt, beta and isotonic") as refused:
            judged.execute("select funnelvec.calibrate('two_stages', 'judgments', %s)", (family,))
        assert refused.value.sqlstate == "FV004"
        assert hint in (refused.value.diag.message_hint or "")
    assert judged.execute("select count(*) from funnelvec.calibrations").fetchone() == (0,)


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("sigmoid", {"slope": 1, "offset": 0}),
        ("platt", {"slope": 0, "offset": 0}),
        ("platt", {"slope": "1); drop table products; --", "offset": 0}),
        ("beta", {"slope": 1, "offset": 0, "a": -1, "b": 1, "c": 0}),
        ("beta", {"slope": 1, "offset": 0, "a": 0, "b": 0, "c": 0}),
        ("isotonic", {"low": [0, 1], "high": [0.5, 2], "levels": [0.5, 0.4]}),
        ("isotonic", {"low": [0, 0.4], "high": [0.5, 2], "levels": [0.4, 0.5]}),
        ("isotonic", {"low": [0], "high": [1], "levels": [1.5]}),
        ("isotonic", {"low": [], "high": [], "levels": []}),
        ("adapter", {"features": ["rank0"], "depth": 20}),
    ],
)
def test_a_row_written_by_hand_is_checked_before_it_becomes_sql(
    judged: Connection, family: str, parameters: dict[str, Any]
) -> None:
    calibrate(judged)
    before = search(judged, "two_stages", Q)
    judged.execute(
        "update funnelvec.calibrations set family = %s, parameters = %s::jsonb",
        (family, json.dumps(parameters)),
    )
    for call in ("funnelvec.relevance('two_stages', 0.5)", "funnelvec.search_sql('two_stages')"):
        with pytest.raises(psycopg.Error) as refused:
            judged.execute(f"select {call}")  # type: ignore[arg-type]
        assert refused.value.sqlstate == "FV004"
    assert search(judged, "two_stages", Q) == before
