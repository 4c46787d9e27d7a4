"""`load` with several batches on their way at once, to a server over HTTP (see `facade`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.engines.qdrant.sending import Course
from funnelvec.errors import Conflict, EngineError, InvalidInput, Unreachable
from tests.agreement import edge
from tests.qdrant.facade import Server

N, DIMS = 600, 4
VECTORS = np.random.default_rng(5).normal(size=(N, DIMS)).astype(np.float32)
NUMBERS = iter(range(1_000))


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with edge.folder() as folder:
        Path(folder).mkdir()
        server = Server(Path(folder))
        yield server
        server.close()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    yield running
    running.fail_after = running.gone_after = running.together = None


@pytest.fixture
def docs(server: Server) -> Iterator[Any]:
    with fv.connect(server.url) as engine:
        table = engine.create(f"docs_{next(NUMBERS)}", dims=DIMS, columns={"n": "integer"})
        table.create_funnel(f"{table.name}_search", f"{DIMS}:f32")
        yield table


def load(table: Any, *, size: int = 50, parallel: int = 3, **options: Any) -> Any:
    return table.load(
        VECTORS,
        ids=range(N),
        columns={"n": range(N)},
        batch_size=size,
        parallel=parallel,
        **options,
    )


def holds_all(table: Any) -> None:
    assert len(table) == N
    found = table.search(VECTORS[0], k=N)
    assert sorted(hit.id for hit in found) == list(range(N))
    for row in (0, N // 2, N - 1):
        best = table.search(VECTORS[row], k=1, filter={"n": row})[0]
        assert (best.id, best.score) == (row, pytest.approx(1, abs=1e-6))


def test_batches_are_on_their_way_at_once(server: Server, docs: Any) -> None:
    # 12 batches, and none gets in alone.
    server.together = "PUT", "/points", threading.Barrier(3, timeout=60)
    seen: list[int] = []
    report = load(docs, progress=lambda done, total: seen.append(done))
    assert (report.rows, report.inserted, report.updated, report.batches) == (N, N, 0, 12)
    assert seen == list(range(0, N + 1, 50))  # in the order of the source
    server.together = None
    holds_all(docs)


def test_no_more_of_the_source_is_read_than_two_batches_for_each_thread(
    server: Server, docs: Any
) -> None:
    read, most = 0, 0

    def batches() -> Iterator[Any]:
        nonlocal read
        for start in range(0, N, 20):
            read = start + 20
            rows = range(start, read)
            yield rows, VECTORS[start:read], {"n": rows}

    def told(done: int, total: int) -> None:
        nonlocal most
        most = max(most, read - done)

    docs.load(batches(), batch_size=20, parallel=2, progress=told)
    # Two for each of two threads, the one that waits for a place, and the one that was read ahead.
    assert 0 < most <= 20 * (2 * 2 + 2)
    holds_all(docs)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_load_goes_on_after_an_error_of_the_server(
    server: Server, docs: Any, parallel: int
) -> None:
    server.fail_after = 4
    with pytest.raises(EngineError, match=r"the disk is full; .* rows of .* are in") as failed:
        load(docs, parallel=parallel)
    said = int(str(failed.value).partition("full; ")[2].split()[0].replace(",", ""))
    there = sorted(hit.id for hit in docs.search(VECTORS[0], k=N))
    assert 0 < said <= len(there) and there[:said] == list(range(said))
    server.fail_after = None
    report = load(docs, parallel=parallel, size=70)
    assert (report.skipped, report.rows) == (said, N - said)
    holds_all(docs)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_load_goes_on_after_the_server_was_gone(server: Server, docs: Any, parallel: int) -> None:
    """It cannot keep any more how far it has come, as if it had been killed."""
    server.gone_after = 5
    with pytest.raises(Unreachable, match=r"does not answer.*the same call goes on"):
        load(docs, parallel=parallel)
    server.gone_after = None
    there = len(docs)
    assert 0 < there < N
    report = load(docs, parallel=parallel)
    assert report.skipped + report.rows == N and report.skipped <= there
    holds_all(docs)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_row_that_is_there_is_refused_again_and_again(
    server: Server, docs: Any, parallel: int
) -> None:
    """What another program wrote is not taken for rows of the load that stopped there."""
    docs.add([330], VECTORS[:1], columns={"n": [-1]})
    for _ in range(2):
        with pytest.raises(Conflict, match=r"the key 330 is in table .* already; 300 rows of"):
            load(docs, parallel=parallel)
        assert [hit.id for hit in docs.search(VECTORS[0], filter={"n": -1})] == [330]
    docs.delete([330])
    assert load(docs, parallel=parallel).skipped == 300
    holds_all(docs)


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_last_of_two_rows_of_one_key_stays(server: Server, docs: Any, parallel: int) -> None:
    rows = [(key % 7, VECTORS[key], {"n": key}) for key in range(70)]
    report = docs.load(iter(rows), batch_size=7, upsert=True, parallel=parallel)
    assert (report.inserted, report.updated) == (7, 63)
    assert [docs.search(VECTORS[0], filter={"n": n})[0].id for n in range(63, 70)] == list(range(7))
    with pytest.raises(Conflict, match="the key 3 is in table"):
        docs.load(iter(rows[3:]), batch_size=7, parallel=parallel)


def test_stopping_waits_for_what_is_on_its_way(server: Server, docs: Any) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"200 rows of .* are in"):
        load(docs, progress=stop)
    assert not [each for each in threading.enumerate() if each.name.startswith("funnelvec-load")]
    sent = len(server.log)
    assert load(docs).skipped == 200
    assert sum(len(b["points"]) for m, p, b in server.log[sent:] if m == "PUT") == N - 200
    holds_all(docs)


def test_a_bad_row_stops_what_comes_after_it(server: Server, docs: Any) -> None:
    bad = VECTORS.copy()
    bad[410, 0] = np.nan
    with pytest.raises(InvalidInput, match=r"410.*rows of .* are in"):
        docs.load(bad, ids=range(N), columns={"n": range(N)}, batch_size=50, parallel=3)
    report = load(docs)
    assert report.skipped <= 400 and report.skipped + report.rows == N
    holds_all(docs)


def test_numbers_of_threads(docs: Any) -> None:
    for parallel in (0, -1, 2.5, True, "4", 65):
        with pytest.raises(InvalidInput, match="parallel"):
            load(docs, parallel=parallel)
    assert load(docs, parallel=2, dry_run=True).rows == N
    assert len(docs) == 0


def test_which_rows_may_be_in() -> None:
    course = Course(before=[(10, 20), (30, 40)], sent=[(35, 50), (60, 70)])
    assert course.beyond(0) == [(10, 20), (30, 50), (60, 70)]
    assert course.beyond(15) == [(15, 20), (30, 50), (60, 70)]
    assert course.beyond(70) == []
    assert course.fresh(0, 10) == [(0, 10)]
    assert course.fresh(5, 35) == [(0, 5), (15, 25)]
    assert course.fresh(12, 18) == []
    assert course.fresh(38, 45) == [(2, 7)]
