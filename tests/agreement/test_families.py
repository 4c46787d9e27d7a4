"""Every family through the whole chain: fitted, applied and cut off alike on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration import AdapterCalibration, read_calibration
from funnelvec.engines.base import Engine
from funnelvec.engines.judged import just_below
from funnelvec.errors import CalibrationError, InvalidInput
from tests import awaited, databases
from tests.agreement import edge

DIMS, ROWS, QUERIES = 16, 400, 40
FUNNEL = f"8:f16@120 > {DIMS}:f32"


def rows() -> np.ndarray[Any, Any]:
    """Rows around forty centres, some of them wide and some narrow."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(40, DIMS))
    spread = np.where(np.arange(40) % 2 == 0, 0.25, 1.2)
    of = np.arange(ROWS) % 40
    noise = rng.normal(size=(ROWS, DIMS)) * spread[of, np.newaxis]
    return (centres[of] + noise).astype(np.float32)


def judgments(seed: int = 6, noise: float = 0.05) -> fv.Judgments:
    """Queries at the centres; what is relevant scores high for one query and low for another."""
    rng = np.random.default_rng(seed)
    data = rows()
    vectors, ids, labels = [], [], []
    for number in range(QUERIES):
        query = data[number] + rng.normal(scale=noise, size=DIMS).astype(np.float32)
        scores = data @ query / np.linalg.norm(data, axis=1) / np.linalg.norm(query)
        for row in np.argsort(-scores)[:40]:
            vectors.append(query)
            ids.append(int(row))
            labels.append(bool(row % 40 == number % 40) ^ bool(rng.random() < 0.03))
    return fv.Judgments(np.stack(vectors), ids, np.array(labels))


def made(engine: Engine) -> Any:
    table = engine.create("things", dims=DIMS)
    table.add(range(ROWS), rows())
    table.add_resolution("8:f16")
    table.create_funnel("things_search", FUNNEL)
    return table


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    with fv.connect("memory:") as engine:
        yield made(engine)


@pytest.fixture(scope="module")
def url(pg_server: databases.Server) -> Iterator[str]:
    """Of a database for all of these tests."""
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=pg_server.template("funnelvec"))
    yield database.owner_url
    pg_server.done_with.append(database.name)


@pytest.fixture(scope="module")
def stored(url: str) -> Iterator[Any]:
    """On Postgres."""
    with fv.connect(url) as engine:
        yield made(engine)


@pytest.fixture(scope="module")
def embedded() -> Iterator[Any]:
    """On Qdrant Edge."""
    with edge.folder() as folder, fv.connect(f"edge:{folder}") as engine:
        yield made(engine)


@pytest.fixture(params=["stored", "embedded"])
def table(request: pytest.FixtureRequest) -> Any:
    """On Postgres and on Qdrant."""
    return request.getfixturevalue(request.param)


def queries() -> np.ndarray[Any, Any]:
    return rows()[200:204] + 0.1


#: Other families on Qdrant are in `test_hub` and `test_cutoffs`, pages in `qdrant/test_adapters`.
ON_QDRANT = [("embedded", "adapter")]


@pytest.mark.parametrize(
    ("table", "family"),
    [("stored", each) for each in ("platt", "beta", "isotonic", "adapter", "auto")] + ON_QDRANT,
    indirect=["table"],
)
def test_engines_fit_and_apply_the_same(oracle: Any, table: Any, family: Any) -> None:
    expected, found = (each.calibrate(judgments(), family=family) for each in (oracle, table))
    assert found.kind == expected.kind == {"auto": "adapter"}.get(family, family)
    assert read_calibration(found.to_json()) == found
    for query in queries():
        ours, theirs = table.search(query, k=60), oracle.search(query, k=60)
        assert [hit.id for hit in ours] == [hit.id for hit in theirs]
        # Fitted to scores that pgvector rounds to 32 bits; golden values compare equal fits.
        near = 1e-6 if family == "platt" else 1e-4
        np.testing.assert_allclose(
            [hit.relevance for hit in ours], [hit.relevance for hit in theirs], atol=near
        )
        assert [hit.relevance for hit in ours] == sorted(
            (hit.relevance for hit in ours), reverse=True
        )
        levels = sorted({hit.relevance for hit in ours})
        for threshold in (levels[0], (levels[0] + levels[-1]) / 2, 0.0, 1.0):
            kept = table.search(query, k=60, min_relevance=threshold)
            assert kept == [h for h in ours if h.relevance >= threshold - 1e-12][: len(kept)]
            assert all(h.relevance < threshold + 1e-9 for h in ours[len(kept) :])
        some = table.search(query, k=5, min_relevance=levels[-1] / 2, filter={"id": {"$lt": 900}})
        assert some == [h for h in ours if h.relevance >= levels[-1] / 2][:5]
    many = table.search_many(queries(), k=9, min_relevance=0.2)
    assert many == [table.search(query, k=9, min_relevance=0.2) for query in queries()]


def test_an_adapter_is_worth_its_name_here(oracle: Any) -> None:
    fitted = oracle.calibrate(judgments(), family="auto")
    assert isinstance(fitted, AdapterCalibration)
    cutoffs = []
    for query in queries():
        hits = oracle.search(query, k=120)
        at = fitted.at(query, [hit.score for hit in hits])
        cutoffs.append(at.cutoff(query, 0.5))
        assert at.apply(query, [cutoffs[-1]])[0] == pytest.approx(0.5)
    assert max(cutoffs) - min(cutoffs) > 0.05
    with pytest.raises(InvalidInput, match="another cutoff for each query"):
        fitted.cutoff(None, 0.5)


def test_sql_knows_relevance_and_cutoff_of_a_query(stored: Any, url: str) -> None:
    table = stored
    fitted = table.calibrate(judgments(), family="adapter")
    with databases.connected(url) as connection:
        for query in queries()[:3]:
            text = "[" + ",".join(map(str, query.tolist())) + "]"
            hits = table.search(query, k=120)
            at = fitted.at(query, [hit.score for hit in hits])
            row = connection.execute(
                "select funnelvec.cutoff('things_search', 0.4, %(q)s), funnelvec.relevance('things_search', 0.6, %(q)s)",
                {"q": text},
            ).fetchone()
            assert row is not None
            assert row[0] == pytest.approx(at.cutoff(query, 0.4), abs=1e-6)
            assert row[1] == pytest.approx(at.apply(query, [0.6])[0], abs=1e-9)
            (last,) = connection.execute(
                "select access, notes, rows_out from funnelvec.explain('things_search', %s, 100, 0.4) where stage = 2",
                (text,),
            ).fetchall()
            kept = table.search(query, k=100, min_relevance=0.4)
            assert last[0] == f"rescore, cutoff {row[0]:.6f}"
            assert f"the cutoff leaves {len(kept)} of the 120 rows compared" in last[1]
            assert last[2] == len(kept)
        with pytest.raises(Exception, match="differs by query") as refused:
            connection.execute("select funnelvec.relevance('things_search', 0.6)")
        assert getattr(refused.value, "sqlstate", "") == "FV004"


def test_a_page_and_a_cursor_have_the_line_of_the_whole_list(oracle: Any, stored: Any) -> None:
    for each in (oracle, stored):
        each.calibrate(judgments(), family="adapter")
        query = queries()[0]
        everything = each.search(query, k=30, min_relevance=0.05)
        assert len(everything) > 6
        pages = each.search(query, k=4, min_relevance=0.05)
        pages += each.search(query, k=30, min_relevance=0.05, after=pages[-1])
        assert pages == everything


def test_a_funnel_that_keeps_fewer_rows_goes_on_with_what_it_can_use(
    oracle: Any, stored: Any
) -> None:
    for each in (oracle, stored):
        platt = each.calibrate(judgments())
        for name, stages in (
            ("less", f"8:f16@40 > {DIMS}:f32"),
            ("more", f"8:f16@300 > {DIMS}:f32"),
            ("alone", f"{DIMS}:f32"),
        ):
            each.create_funnel(name, stages, replace=True)
        adapter = each.calibrate(judgments(), family="adapter")
        assert adapter.depth == 120
        query = queries()[1]
        for name in ("less", "alone"):
            hit = each.search(query, k=1, funnel=name)[0]
            assert hit.relevance == pytest.approx(platt.apply(None, [hit.score])[0])
        more = each.search(query, k=300, funnel="more")
        expected = adapter.at(query, [hit.score for hit in more]).apply(None, [more[7].score])
        assert more[7].relevance == pytest.approx(expected[0])
        each.create_funnel("less", FUNNEL, replace=True)
        assert each.search(query, funnel="less") == each.search(query)
        for name in ("less", "more", "alone"):
            each.drop_funnel(name)


def test_what_an_adapter_cannot_be_fitted_to_is_said(oracle: Any, table: Any) -> None:
    given = judgments()
    few = fv.Judgments(given.queries[:400], given.ids[:400], given.labels[:400])
    for each in (oracle, table):
        with pytest.raises(CalibrationError, match=r"at least 20 judged queries; .* 10"):
            each.calibrate(few, family="adapter")
        assert each.calibrate(few, family="auto").kind in ("platt", "beta", "isotonic")
        each.create_funnel("alone", f"{DIMS}:f32", replace=True)
        with pytest.raises(CalibrationError, match="shortlist"):
            each.calibrate(given, family="adapter", funnel="alone")
        each.drop_funnel("alone")
        with pytest.raises(InvalidInput, match="family"):
            each.calibrate(given, family="sigmoid")


def test_what_is_missed_by_an_adapter_is_cut_off_by_query(oracle: Any, table: Any) -> None:
    found = []
    for each in (oracle, table):
        each.calibrate(judgments(), family="adapter")
        assert each.certify(judgments(), max_miss=0.2, k=60).approximate
        found.append(each.certify(judgments(8), max_miss=0.2, k=60))
    ours, theirs = found[1], found[0]
    assert not ours.approximate
    assert ours.cutoff is None and ours.relevance == pytest.approx(theirs.relevance, abs=1e-4)
    assert ours.missed == pytest.approx(theirs.missed, abs=1e-9)
    lowest = []
    for query in judgments(8).unique_queries[:6]:
        everything = table.search(query, k=60)
        kept = table.search(query, k=60, cutoff="certified")
        assert kept == [hit for hit in everything if hit.relevance >= ours.relevance]
        assert [hit.id for hit in kept] == [
            hit.id for hit in oracle.search(query, k=60, cutoff="certified")
        ]
        explained = table.explain(query, k=60, cutoff="certified")
        assert explained.stages[-1].rows_out == len(kept)
        lowest.append(kept[-1].score)
    # One score for all queries would be another promise.
    assert max(lowest) - min(lowest) > 0.05


def test_a_row_on_the_edge_of_a_certificate_passes(oracle: Any) -> None:
    fitted = oracle.calibrate(judgments())
    for slope, offset in ((12.0, -6.0), (3.0, 1.0), (150.0, -20.0)):
        line = replace(fitted, slope=slope, offset=offset)
        scores = np.linspace(-1, 1, 2001)
        at = line.apply(None, scores)
        for score, relevance in zip(scores[at < 1], at[at < 1], strict=True):
            cutoff = line.cutoff(None, just_below(relevance))
            assert cutoff <= score
            if 1e-9 < relevance < 1 - 1e-6:
                assert score - cutoff < 1e-6


def test_explain_of_an_adapter_goes_by_the_rows_of_the_filter(table: Any) -> None:
    table.calibrate(judgments(), family="adapter")
    options: Any = {"k": 60, "min_relevance": 0.3, "filter": {"id": {"$lt": 150}}}
    for query in queries():
        explained = table.explain(query, **options)
        assert explained.stages[-1].rows_out == len(table.search(query, **options))


def test_the_asynchronous_table_chooses_alike(stored: Any, url: str) -> None:
    table = stored
    expected = table.calibrate(judgments(), family="adapter")
    with awaited.opened(url, "async") as opened:
        again = opened.table("things")
        assert again.calibrate(judgments(), family="adapter") == expected
        assert again.search(queries()[0]) == table.search(queries()[0])
        assert again.calibrate(judgments(), family="beta").kind == "beta"


def test_cutoffs_are_the_same_up_to_32_bits(oracle: Any, embedded: Any) -> None:
    """By one fit: what the engines make of their own scores differs by these alone."""
    # Queries that lie on a row have best scores of 0.999, whose last bits would tell them apart.
    fitted = embedded.calibrate(judgments(noise=0.4), family="adapter")
    assert isinstance(fitted, AdapterCalibration)
    for each in (oracle, embedded):
        each.add_resolution("8:f32")  # Qdrant's order by halves is another where it is close
        each.create_funnel("same", f"8:f32@120 > {DIMS}:f32")
    for query in queries():
        hits = oracle.search(query, k=120, funnel="same")
        expected = fitted.at(query, [hit.score for hit in hits])
        for relevance in (0.1, 0.4, 0.8):
            cutoff = expected.cutoff(query, relevance)
            asked: Any = {"k": 100, "min_relevance": relevance, "funnel": "same"}
            (note,) = embedded.explain(query, **asked).notes
            said = note.removeprefix(f"min_relevance {relevance:g} is a score of at least ")
            assert float(said) == pytest.approx(cutoff, abs=1.5e-6)  # told with six digits
            kept = embedded.search(query, **asked)
            assert len(kept) == sum(hit.score >= cutoff for hit in hits[:100])
            assert [hit.relevance for hit in kept] == pytest.approx(
                expected.apply(query, [hit.score for hit in hits[: len(kept)]]), abs=1e-5
            )


@pytest.mark.parametrize(
    ("table", "family"),
    [("stored", each) for each in ("beta", "isotonic", "adapter")] + ON_QDRANT,
    indirect=["table"],
)
def test_cutoffs_and_promises_go_by_any_family(oracle: Any, table: Any, family: Any) -> None:
    others = judgments()
    fitted = table.calibrate(others, family=family)
    oracle.calibrate(others, family=family)
    for query in queries():
        everything = table.search(query, k=120)
        p = np.array([hit.relevance for hit in everything])
        gains = np.cumsum(p) / (np.arange(len(p)) + 1 + p.sum())
        best = table.search(query, k=120, cutoff="best_f1")
        # Steps have many rows of one relevance, which differ by rounding alone.
        assert gains[len(best) - 1] == pytest.approx(gains.max(), abs=1e-9)
        assert best == everything[: len(best)]
        assert table.search(query, k=3, cutoff="best_f1") == best[:3]
        filtered = table.search(query, k=120, cutoff="best_f1", filter={"id": {"$lt": 200}})
        assert 0 < len(filtered) < 120
    options: Any = {"min_precision": 0.7, "confidence": 0.9, "k": 10}
    ours, theirs = table.certify(others, **options), oracle.certify(others, **options)
    assert ours.relevance == pytest.approx(theirs.relevance, abs=0.011)
    assert ours.approximate
    assert (ours.cutoff is None) == isinstance(fitted, AdapterCalibration)
    for query in queries():
        everything = table.search(query, k=10)
        kept = table.search(query, k=10, cutoff="precise")
        assert kept == [hit for hit in everything if hit.relevance >= ours.relevance - 1e-9]
        explained = table.explain(query, k=10, cutoff="precise")
        assert explained.stages[-1].rows_out == len(kept)
        empty = table.search(query, k=10, min_relevance=1)
        assert (empty.nearest is None) == (everything[0].relevance == 1.0)
    missed, theirs = (each.certify(others, max_miss=0.3, k=10) for each in (table, oracle))
    by_query = isinstance(fitted, AdapterCalibration)
    assert (missed.cutoff is None) == missed.approximate == by_query
    if not by_query:
        assert missed.cutoff == pytest.approx(theirs.cutoff, 1e-5)
    assert missed.relevance == pytest.approx(theirs.relevance, abs=1e-4)
    assert ("differs by query" in str(missed)) == by_query
