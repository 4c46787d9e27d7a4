"""Tables with a fitted rotation, alike on every engine: what is kept, refused, examined, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.errors import Conflict, InvalidInput, NotFound, SpecError
from tests import awaited, databases
from tests.agreement import edge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from funnelvec.engines.base import Engine, Table

DIMS, ROWS = 24, 300
RNG = np.random.default_rng(9)
MIX = np.linalg.qr(RNG.normal(size=(DIMS, DIMS)))[0]
VECTORS = (RNG.normal(size=(ROWS, DIMS)) * np.exp(-np.arange(DIMS) / 6) @ MIX).astype(np.float32)
QUERIES = (RNG.normal(size=(40, DIMS)) * np.exp(-np.arange(DIMS) / 6) @ MIX).astype(np.float32)


@pytest.fixture(params=["memory", "sync", "async", "local", "edge"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param in ("memory", "local"):
        with fv.connect(
            {"memory": "memory:", "local": "qdrant-local::memory:"}[request.param]
        ) as e:
            yield e
        return
    if request.param == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as e:
            yield e
        return
    server = request.getfixturevalue("pg_server")
    database = databases.Database(server, databases.new_name(server))
    with databases.connected(server.url()) as admin:
        databases.create_database(admin, database.name, template=server.template("funnelvec"))
    with awaited.opened(database.owner_url, request.param) as opened:
        yield opened
    server.done_with.append(database.name)


def filled(engine: Engine, **rest: Any) -> Table:
    table = engine.create("docs", dims=DIMS, **rest)
    table.add(range(ROWS), VECTORS)
    return table


def test_a_rotation_is_kept_told_and_dropped(engine: Engine) -> None:
    table = filled(engine)
    tried = table.fit_rotation(dims=8, queries=QUERIES, dry_run=True)
    assert not tried.kept and table.rotations() == []
    report = table.fit_rotation(dims=8, queries=QUERIES)
    assert report.kept and (report.rows, report.width) == (ROWS, 8)
    (status,) = table.rotations()
    assert (status.rotation, status.kind, status.dims, status.width) == ("pca", "pca", DIMS, 8)
    assert (status.cuttable, status.recommended, status.rows) == (True, report.recommended, ROWS)
    assert status.fitted_on == report.fitted_on and status.fitted_at.tzinfo is not None
    assert len(table.sample(ROWS).ids) == ROWS and table.count() == ROWS
    with pytest.raises(Conflict, match="pca2"):
        table.fit_rotation(dims=4, queries=QUERIES)
    table.add_resolution("8:f16~pca")
    table.add_resolution("4:f32~pca")
    table.backfill()
    assert table.rotations()[0].used_by == ("4:f32~pca", "8:f16~pca")
    with pytest.raises(Conflict, match=r"used by:? 4:f32~pca, 8:f16~pca"):
        table.drop_rotation("pca")
    for resolution in ("8:f16~pca", "4:f32~pca"):
        table.drop_resolution(resolution)
    table.drop_rotation("pca")
    assert table.rotations() == [] and table.count() == ROWS
    with pytest.raises(NotFound, match="has no rotation"):
        table.drop_rotation("pca")
    with pytest.raises(NotFound, match=r"has no rotation '?pca"):
        table.add_resolution("8:f16~pca")


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    table = filled(engine)
    with pytest.raises(NotFound, match="fit_rotation"):
        table.add_resolution("8:bit~pcar")
    table.fit_rotation("pcar", then="random", dims=8, queries=QUERIES)
    with pytest.raises(SpecError, match="8:bit~pcar"):
        table.add_resolution("4:bit~pcar")
    with pytest.raises(SpecError, match="8:bit~pcar"):
        table.add_resolution("16:bit~pcar")
    table.fit_rotation("sphere", kind="sphering", dims=8, queries=QUERIES)
    with pytest.raises(SpecError, match=r"signs|8:f16~sphere"):
        table.add_resolution("8:bit~sphere")
    for wrong in ({"name": "random3"}, {"name": "Pca"}, {"dims": 0}, {"then": "x"}, {"sample": 0}):
        with pytest.raises((InvalidInput, SpecError)):
            table.fit_rotation(**wrong)
    with pytest.raises(InvalidInput, match="too few"):
        table.fit_rotation("wide", dims=DIMS, sample=40)


def judged() -> fv.Judgments:
    """A query's two nearest rows are relevant, two of the farthest are not."""
    order = [np.argsort(np.linalg.norm(VECTORS - query, axis=1)) for query in QUERIES[:20]]
    ids = [int(row) for rows in order for row in (*rows[:2], *rows[-2:])]
    return fv.Judgments(np.repeat(QUERIES[:20], 4, axis=0), ids, [True, True, False, False] * 20)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_what_is_written_later_is_found_and_scored(engine: Engine, metric: Any) -> None:
    """Codes behind a rotation are those of numpy, whoever writes them, and at the last stage too."""
    table = filled(engine, metric=metric)
    table.fit_rotation(dims=8, queries=QUERIES)
    table.add_resolution("8:f32~pca", metric=metric)
    table.backfill()
    table.upsert([5, 900], QUERIES[:2])
    table.create_funnel("docs_search", "8:f32~pca", approximate=True, metric=metric)
    judgments = judged()
    table.calibrate(judgments)
    with fv.connect("memory:") as memory:
        oracle = filled(memory, metric=metric)
        oracle.fit_rotation(dims=8, queries=QUERIES)
        oracle.add_resolution("8:f32~pca")
        oracle.upsert([5, 900], QUERIES[:2])
        oracle.create_funnel("docs_search", "8:f32~pca", approximate=True)
        oracle.calibrate(judgments)
        for query in QUERIES[:4]:
            ours, exact = table.search(query, k=8), oracle.search(query, k=8)
            # Each engine has fitted for itself: maps differ by one step of a millionth.
            assert [hit.id for hit in ours] == [hit.id for hit in exact]
            for one, other in zip(ours, exact, strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-5)
                assert one.relevance == pytest.approx(other.relevance, abs=1e-3)
        assert table.search(QUERIES[1], k=1)[0].id == 900


def test_doctor_sees_the_same_vectors_beside_codes_of_a_rotation(engine: Engine) -> None:
    table = filled(engine)
    before = table.doctor(sample=ROWS, queries=40)
    table.fit_rotation(dims=8, queries=QUERIES)
    table.add_resolution("8:f16~pca", index=True)
    table.backfill()
    after = table.doctor(sample=ROWS, queries=40)
    assert (after.rows, after.sample, after.dims) == (ROWS, ROWS, DIMS)
    assert [finding.topic for finding in after.findings] == [f.topic for f in before.findings]
    # The same rows may come in another order, so sums differ in the last bits.
    assert after.measures.norms.mean == pytest.approx(before.measures.norms.mean, abs=1e-6)
    assert after.measures.rank is not None and before.measures.rank is not None
    assert after.measures.rank.effective == pytest.approx(before.measures.rank.effective, rel=1e-5)
