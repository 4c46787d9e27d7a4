"""Adapters that read the query itself: engines fit, apply and cut off alike, by every metric."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration import AdapterCalibration, read_calibration
from funnelvec.calibration.row_stats import QUERY_FEATURES
from funnelvec.engines.base import Engine
from funnelvec.errors import CalibrationError, InvalidInput
from tests import awaited, databases
from tests.agreement import edge

DIMS, ROWS, QUERIES = 16, 300, 44
FUNNEL = f"8:f16@60 > {DIMS}:f32"
#: Tables by metric, and what their columns hold.
KINDS = {"cosine": "f32", "euclidean": "f32", "dot": "f16"}


def rows() -> np.ndarray[Any, Any]:
    """Rows that are spread along one direction far more than along others."""
    rng = np.random.default_rng(7)
    return (rng.normal(size=(ROWS, DIMS)) * np.array([3.0, *[1.0] * (DIMS - 1)]) + 0.4).astype(
        np.float32
    )


def asked(count: int = QUERIES) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(8)
    queries = rng.normal(size=(count, DIMS))
    queries[:, 0] += 2.0
    return queries.astype(np.float32)


def judgments(table: Any) -> fv.Judgments:
    """What is relevant hangs on the score, and on where the query lies along that direction."""
    rng = np.random.default_rng(9)
    vectors, ids, labels = [], [], []
    for query in asked():
        hits = table.search(query, k=40)
        least = 8 + 4 * float(query[0]) + rng.normal(size=len(hits))
        for place, hit in enumerate(hits):
            vectors.append(query)
            ids.append(hit.id)
            labels.append(place < least[place])
    return fv.Judgments(np.stack(vectors), ids, np.array(labels))


def made(engine: Engine, kind: str) -> Any:
    table = engine.create(
        f"things_{kind}",
        dims=DIMS,
        dtype=KINDS[kind],  # type: ignore[arg-type]
        metric=kind,  # type: ignore[arg-type]
    )
    table.add(range(ROWS), rows())
    table.add_resolution("8:f16")
    table.create_funnel(f"things_{kind}_search", FUNNEL.replace("f32", KINDS[kind]))
    return table


@pytest.fixture(scope="module")
def database(pg_server: databases.Server) -> Iterator[databases.Database]:
    """For all of these tests."""
    found = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, found.name, template=pg_server.template("funnelvec"))
    yield found
    pg_server.done_with.append(found.name)


@pytest.fixture(scope="module")
def tables(database: databases.Database) -> Iterator[dict[str, tuple[Any, Any, Any]]]:
    """Per kind: in memory and on Postgres, calibrated, and the calibration of Postgres."""
    with fv.connect("memory:") as memory, fv.connect(database.owner_url) as postgres:
        found = {}
        for kind in KINDS:
            ours, theirs = made(memory, kind), made(postgres, kind)
            given = judgments(ours)
            ours.calibrate(given, family="adapter")
            found[kind] = ours, theirs, theirs.calibrate(given, family="adapter")
        yield found


def text(query: np.ndarray[Any, Any]) -> str:
    return "[" + ",".join(map(str, query.tolist())) + "]"


def test_qdrant_reads_the_query_alike() -> None:
    kind = "cosine"
    with (
        edge.folder() as folder,
        fv.connect(f"edge:{folder}") as engine,
        fv.connect("memory:") as opened,
    ):
        memory, qdrant = made(opened, kind), made(engine, kind)
        given = judgments(memory)
        theirs, ours = (each.calibrate(given, family="adapter") for each in (memory, qdrant))
        assert ours.features == theirs.features
        assert set(ours.features) & set(QUERY_FEATURES)
        for query in asked(4):
            expected, found = memory.search(query, k=40), qdrant.search(query, k=40)
            assert [hit.id for hit in found] == [hit.id for hit in expected]
            relevances = [hit.relevance for hit in found]
            np.testing.assert_allclose(relevances, [h.relevance for h in expected], atol=1e-4)
            # The same fit: up to what plain floats round.
            scores = [hit.score for hit in qdrant.search(query, k=60)]
            at = ours.at(query, scores)
            assert relevances == pytest.approx(list(at.apply(query, scores[:40])), abs=1e-9)
            kept = qdrant.search(query, k=40, min_relevance=relevances[9])
            assert [hit.id for hit in kept] == [hit.id for hit in found[: len(kept)]]
            assert 9 <= len(kept) <= 10 + relevances.count(relevances[9])


@pytest.mark.parametrize("kind", KINDS)
def test_engines_read_the_query_alike(tables: Any, database: Any, kind: str) -> None:
    memory, postgres, fitted = tables[kind]
    assert isinstance(fitted, AdapterCalibration)
    assert set(fitted.features) & set(QUERY_FEATURES)
    assert fitted.rows is not None and fitted.rows.dims == DIMS
    assert read_calibration(fitted.to_json()) == fitted
    name, cutoffs = f"things_{kind}_search", []
    with databases.connected(database.owner_url) as connection:
        for query in asked(4):
            theirs, ours = memory.search(query, k=60), postgres.search(query, k=60)
            assert [hit.id for hit in ours] == [hit.id for hit in theirs]
            relevances = np.array([hit.relevance for hit in ours])
            # Fitted to scores that pgvector rounds to 32 bits.
            np.testing.assert_allclose(relevances, [h.relevance for h in theirs], atol=1e-4)
            assert (np.diff(relevances) <= 0).all()
            # The same fit: to the last digits of what doubles hold.
            rounded = query.astype({"f16": np.float16, "f32": np.float32}[KINDS[kind]])
            at = fitted.at(rounded.astype(np.float32), [hit.score for hit in ours])
            expected = at.apply(None, [hit.score for hit in ours])
            np.testing.assert_allclose(relevances, expected, atol=1e-9)
            row = connection.execute(
                f"select funnelvec.cutoff('{name}', 0.4, %(q)s), funnelvec.relevance('{name}', %(s)s, %(q)s)",
                {"q": text(query), "s": ours[9].score},
            ).fetchone()
            assert row is not None
            assert row[0] == pytest.approx(at.cutoff(None, 0.4), abs=1e-6)
            assert row[1] == pytest.approx(expected[9], abs=1e-9)
            cutoffs.append(row[0])
            for filter in (None, {"id": {"$lt": 290}}):
                everything = postgres.search(query, k=50, filter=filter)
                least = everything[12].relevance
                some = postgres.search(query, k=50, filter=filter, min_relevance=least - 1e-9)
                assert some == [hit for hit in everything if hit.relevance >= least - 1e-9]
                assert len(some) >= 13
                explained = postgres.explain(query, k=50, filter=filter, min_relevance=least - 1e-9)
                assert explained.stages[-1].rows_out == len(some)
    assert max(cutoffs) - min(cutoffs) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_shown_statement_works_by_itself(tables: Any, database: Any, kind: str) -> None:
    _, postgres, _ = tables[kind]
    with databases.connected(database.owner_url) as connection:
        (shown,) = connection.execute(
            "select funnelvec.search_sql(%s)", (f"things_{kind}_search",)
        ).fetchone() or ("",)
        type_name = {"f16": "halfvec", "f32": "vector"}[KINDS[kind]]
        connection.execute(f"prepare shown({type_name}, bigint) as {shown}".encode())
        for query in asked(3):
            found = connection.execute(f"execute shown('{text(query)}', 7)".encode()).fetchall()
            wanted = [(hit.id, hit.score, hit.relevance) for hit in postgres.search(query, k=7)]
            np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_what_is_promised_goes_by_the_line_of_the_query(tables: Any) -> None:
    memory, postgres, _ = tables["cosine"]
    given = judgments(memory)
    for each in (memory, postgres):
        certificate = each.certify(given, max_miss=0.3, k=40)
        assert certificate.cutoff is None
        for query in asked(3):
            kept = each.search(query, k=40, cutoff="certified")
            everything = each.search(query, k=40)
            assert kept == [hit for hit in everything if hit.relevance >= certificate.relevance]
            best = each.search(query, k=60, cutoff="best_f1")
            assert best == each.search(query, k=60)[: len(best)]
    said = [each.feedback(True, query=asked(1)[0], id=5) for each in (memory, postgres)]
    assert said[0].slope == pytest.approx(said[1].slope, abs=1e-3)


def test_after_dump_and_restore(
    tables: Any, database: databases.Database, pg_server: databases.Server, new_database: Any
) -> None:
    query = asked(1)[0]
    before = {kind: tables[kind][1].search(query, k=20) for kind in KINDS}
    dump = pg_server.run("pg_dump", "--no-owner", "--no-comments", database.owner_url)
    target = new_database("vector")
    script = dump.replace("CREATE EXTENSION IF NOT EXISTS vector", "-- present: vector")
    pg_server.run("psql", "-q", "-v", "ON_ERROR_STOP=1", target.owner_url, stdin=script)
    with fv.connect(target.owner_url) as engine:
        for kind in KINDS:
            assert engine.table(f"things_{kind}").search(query, k=20) == before[kind]


def test_the_asynchronous_table_reads_the_query_alike(tables: Any, database: Any) -> None:
    memory, postgres, fitted = tables["cosine"]
    with awaited.opened(database.owner_url, "async") as opened:
        again = opened.table("things_cosine")
        assert again.calibrate(judgments(memory), family="adapter") == fitted
        assert again.search(asked(1)[0]) == postgres.search(asked(1)[0])


def test_what_lacks_its_statistics_is_refused(tables: Any, database: Any) -> None:
    _, postgres, fitted = tables["cosine"]
    with pytest.raises(InvalidInput, match="pass the query too"):
        fitted.at(None, [0.5, 0.4])
    with pytest.raises(InvalidInput, match=r"3 dimensions, .* rows of 16"):
        fitted.at(np.ones(3, np.float32), [0.5, 0.4])
    for wrong in (
        {"rows": None},
        {"features": ["rank0"], "feature_means": [0], "feature_scales": [1], "offsets": [0, 1],
         "slopes": [1, 0]},
        {"rows": {**json.loads(fitted.to_json())["rows"], "mean": "[1,2]"}},
        {"rows": {**json.loads(fitted.to_json())["rows"], "rest": -1}},
        {"rows": {**json.loads(fitted.to_json())["rows"], "more": 1}},
        {"rows": {**json.loads(fitted.to_json())["rows"], "format": 2}},
        {"rows": 5},
    ):  # fmt: skip
        with pytest.raises(CalibrationError):
            read_calibration(json.dumps({**json.loads(fitted.to_json()), **wrong}))
    good = fitted.parameters
    with databases.connected(database.owner_url) as connection:
        for rows, said in (
            (None, "no statistics of rows"),
            ({**good["rows"], "mean": "[1); drop table x"}, "does not read"),
            ({**good["rows"], "mean": "[1,2]"}, "does not read"),
            ({**good["rows"], "metric": "l1"}, "does not read"),
            ({**good["rows"], "directions": []}, "does not read"),
            ({**good["rows"], "spread": "x"}, "does not read"),
            ({**good["rows"], "rest": -1}, "does not read"),
            (
                {**good["rows"], "mean": "[1]", "directions": ["[1]"] * len(good["rows"]["directions"])},
                "statistics of rows of 1 dimensions",
            ),
        ):  # fmt: skip
            given = {**good, "rows": rows}
            if rows is None:
                del given["rows"]
            with pytest.raises(Exception, match=said) as refused:
                connection.execute(
                    "select funnelvec._keep_calibration(funnelvec._funnel('things_cosine_search'), 'adapter', %s::jsonb, '', 0, 0, 0)",
                    (json.dumps(given),),
                )
            assert getattr(refused.value, "sqlstate", "") == "FV004"
    assert postgres.search(asked(1)[0])[0].relevance is not None
