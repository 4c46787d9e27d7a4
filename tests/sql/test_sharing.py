"""Many callers, interrupted calls and time limits, on both forms of the Python engine."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

import funnelvec as fv
from funnelvec import errors
from tests import awaited, databases
from tests.databases import Database, Server
from tests.sql import gate
from tests.sql.tables import vectors

Q = vectors(1, seed=3)[0]
INSERT = "insert into docs (id, embedding) select 999, embedding from docs limit 1"
LABELS = np.arange(40) % 2 == 0


def judgments() -> fv.Judgments:
    """Twenty rows as queries, with the row itself and another one."""
    queries = np.repeat(vectors(gate.ROWS)[:20], 2, axis=0)
    ids = [key for row in range(20) for key in (row, row + 20)]
    return fv.Judgments(queries, ids, LABELS)


#: Calls that the gate stops in the middle; on the asynchronous table they are coroutines.
CALLS: dict[str, Callable[[Any], Any]] = {
    "add": lambda docs: docs.add(gate.LOAD, vectors(len(gate.LOAD))),
    "upsert": lambda docs: docs.upsert(gate.LOAD, vectors(len(gate.LOAD))),
    "load": lambda docs: docs.load(vectors(len(gate.LOAD)), ids=gate.LOAD),
    "measure_recall": lambda docs: docs.measure_recall(sample=50),
    "calibrate": lambda docs: docs.calibrate(judgments()),
}


@pytest.fixture(scope="module")
def gated(pg_server: Server) -> Iterator[Database]:
    """The database of `gate.make_docs`."""
    with databases.copied(pg_server, pg_server.template("funnelvec")) as database:
        gate.make_docs(database.owner_url, reads=False)
        yield database


@pytest.fixture
def owner_url(pg_server: Server, gated: Database) -> Iterator[str]:
    with databases.copied(pg_server, gated.name) as database:
        yield database.owner_url


@pytest.fixture
def url(request: pytest.FixtureRequest, owner_url: str) -> str:
    """A copy of it; the gate stands where the test's `call` passes."""
    called = request.node.callspec.params.get("call") if hasattr(request.node, "callspec") else None
    if called in ("measure_recall", "calibrate"):
        gate.stop_reads(owner_url)
    return owner_url


@pytest.fixture
def reads_url(owner_url: str) -> str:
    """The same with the gate before reads."""
    gate.stop_reads(owner_url)
    return owner_url


def calibrations(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("select count(*) from funnelvec.calibrations").fetchone()
    assert row is not None
    return int(row[0])


def check_untouched(url: str) -> None:
    """Nothing of an interrupted call has stayed."""
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from docs").fetchone() == (gate.ROWS,)
        assert calibrations(connection) == 0


# -- interrupted -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def ctrl_c_means_what_it_does() -> Iterator[None]:
    """Where a run was started in the background, a shell has told it to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_at(closed: gate.Gate) -> threading.Thread:
    """Press Ctrl-C as soon as a call stands before the gate."""
    main = threading.main_thread().ident
    assert main is not None and threading.current_thread() is threading.main_thread()

    def press() -> None:
        try:
            closed.wait_for()
        except psycopg.Error:
            return  # the call did not get there, so the test has failed and gone
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c(url: str, call: str) -> None:
    with fv.connect(url) as engine:
        docs = engine.table("docs")
        before = docs.search(Q)
        with gate.closed(url) as closed:
            thread = interrupt_at(closed)
            with pytest.raises(KeyboardInterrupt):
                CALLS[call](docs)
            thread.join()
        check_untouched(url)
        assert docs.search(Q) == before
        CALLS[call](docs)


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_keeps_the_transaction_of_the_application(url: str, call: str) -> None:
    with psycopg.connect(url) as connection:
        docs = fv.wrap(connection).table("docs")
        connection.execute(INSERT)
        with gate.closed(url) as closed:
            thread = interrupt_at(closed)
            with pytest.raises(KeyboardInterrupt):
                CALLS[call](docs)
            thread.join()
        assert docs.count() == len(docs) == gate.ROWS + 1
        assert calibrations(connection) == 0


@pytest.mark.parametrize("call", CALLS)
def test_cancelled_task(url: str, call: str) -> None:
    async def main() -> None:
        async with fv.connect_async(url) as engine:
            docs = await engine.table("docs")
            before = await docs.search(Q)
            with gate.closed(url) as closed:
                await cancelled(CALLS[call](docs), closed)
            await asyncio.to_thread(check_untouched, url)
            assert await docs.search(Q) == before
            await CALLS[call](docs)

    asyncio.run(main())


@pytest.mark.parametrize("call", CALLS)
def test_cancelled_task_keeps_the_transaction_of_the_application(url: str, call: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            docs = await (await fv.wrap_async(connection)).table("docs")
            await connection.execute(INSERT)
            with gate.closed(url) as closed:
                await cancelled(CALLS[call](docs), closed)
            assert await docs.count() == gate.ROWS + 1

    asyncio.run(main())


@pytest.mark.parametrize("call", CALLS)
def test_cancelled_task_on_a_pool(url: str, call: str) -> None:
    async def main() -> None:
        async with (
            psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=1) as pool,
            fv.wrap_async(pool) as engine,
        ):
            docs = await engine.table("docs")
            async with pool.connection() as connection:
                backend = connection.info.backend_pid
            with gate.closed(url) as closed:
                await cancelled(CALLS[call](docs), closed)
            await asyncio.to_thread(check_untouched, url)
            async with pool.connection() as connection:
                assert connection.info.backend_pid == backend  # still good, so it was kept
            await CALLS[call](docs)

    asyncio.run(main())


async def cancelled(call: Coroutine[Any, Any, Any], closed: gate.Gate) -> None:
    task = asyncio.create_task(call)
    await asyncio.to_thread(closed.wait_for)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_task_that_waits_for_its_turn_can_be_cancelled(reads_url: str) -> None:
    async def main() -> None:
        async with fv.connect_async(reads_url) as engine:
            docs = await engine.table("docs")
            with gate.closed(reads_url) as closed:
                first = asyncio.create_task(docs.measure_recall(sample=5))
                await asyncio.to_thread(closed.wait_for)
                second = asyncio.create_task(docs.search(Q))
                await asyncio.sleep(0)
                second.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await second
                closed.open()
                assert (await first).queries == 5

    asyncio.run(main())


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_callback_that_raises_stops_the_load(url: str, how: str) -> None:
    def stop(done: int, total: int) -> None:
        if done > gate.STOP_AT:
            closed.wait_for()  # the server will not come to the end of what was sent
            raise LookupError

    with awaited.opened(url, how) as engine:
        docs = engine.table("docs")
        with gate.closed(url) as closed, pytest.raises(LookupError):
            docs.add(gate.LOAD, vectors(len(gate.LOAD)), progress=stop)
        check_untouched(url)
        assert docs.search(Q)


# -- shared ------------------------------------------------------------------------------------


def work(docs: Any, number: int) -> tuple[Any, Any]:
    ids = range(1_000 * (number + 10), 1_000 * (number + 10) + 50)
    return docs.add(ids, vectors(50, seed=number)), docs.search(Q)


def test_threads_share_one_connection(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        engines = [fv.wrap(connection) for _ in range(8)]  # each its own engine
        tables = [engine.table("docs") for engine in engines]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(work, tables, range(8)))
        assert [added for added, _ in answers] == [50] * 8
        assert tables[0].count() == gate.ROWS + 400
        assert connection.info.transaction_status == TransactionStatus.IDLE


def test_threads_share_one_table(url: str) -> None:
    with fv.connect(url) as engine:
        docs = engine.table("docs")
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda n: work(docs, n), range(8)))
        assert [added for added, _ in answers] == [50] * 8
        assert docs.count() == gate.ROWS + 400


def test_threads_on_a_pool_run_side_by_side(reads_url: str) -> None:
    with (
        psycopg_pool.ConnectionPool(reads_url, min_size=3, max_size=3) as pool,
        fv.wrap(pool) as engine,
        ThreadPoolExecutor(2) as threads,
    ):
        docs = engine.table("docs")
        with gate.closed(reads_url) as closed:
            running = [threads.submit(docs.measure_recall, sample=5) for _ in range(2)]
            closed.wait_for(2)  # both are in the middle at once
            assert docs.search(Q)  # and a third goes through
            closed.open()
        assert [future.result().queries for future in running] == [5, 5]


def test_tasks_share_one_connection(url: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            engines = [await fv.wrap_async(connection) for _ in range(8)]
            tables = [await engine.table("docs") for engine in engines]

            async def work(number: int) -> int:
                first = 1_000 * (number + 10)
                added = await tables[number].add(range(first, first + 50), vectors(50, seed=number))
                await tables[number].search(Q)
                return added

            assert await asyncio.gather(*map(work, range(8))) == [50] * 8
            assert await tables[0].count() == gate.ROWS + 400
            assert connection.info.transaction_status == TransactionStatus.IDLE

    asyncio.run(main())


def test_tasks_on_a_pool_run_side_by_side(reads_url: str) -> None:
    async def main() -> None:
        async with psycopg_pool.AsyncConnectionPool(reads_url, min_size=3, max_size=3) as pool:
            engine = await fv.wrap_async(pool)
            docs = await engine.table("docs")
            with gate.closed(reads_url) as closed:
                running = [asyncio.create_task(docs.measure_recall(sample=5)) for _ in range(2)]
                await asyncio.to_thread(closed.wait_for, 2)
                assert await docs.search(Q)
                closed.open()
            assert [(await task).queries for task in running] == [5, 5]
            await engine.close()
            async with pool.connection() as connection:  # borrowed, so still open
                await connection.execute("select 1")

    asyncio.run(main())


def test_other_tasks_run_during_a_load(url: str) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        async with fv.connect_async(url) as engine:
            docs = await engine.table("docs")
            counting = asyncio.create_task(count_turns())
            seen = []
            await docs.add(
                range(10_000, 15_000), vectors(5_000), progress=lambda done, _: seen.append(turns)
            )
            counting.cancel()
            assert len(set(seen)) >= 5  # between any two reports others had a turn

    asyncio.run(main())


# -- time limits -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("call", CALLS)
def test_statement_timeout(url: str, call: str, how: str) -> None:
    with awaited.opened(url, how, statement_timeout=0.2) as engine:
        docs = engine.table("docs")
        with gate.closed(url):
            with pytest.raises(errors.Timeout, match="statement_timeout") as caught:
                CALLS[call](docs)
            assert isinstance(caught.value, TimeoutError)
            assert isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)
        check_untouched(url)
        assert docs.search(Q)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_lock_timeout(url: str, how: str) -> None:
    with (
        awaited.opened(url, how, options="-c lock_timeout=50ms") as engine,
        psycopg.connect(url) as other,
    ):
        docs = engine.table("docs")
        other.execute("lock table docs in share mode")
        with pytest.raises(errors.Timeout, match="lock timeout"):
            docs.add_resolution("8:f16")
        other.rollback()
        docs.add_resolution("8:f16")


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("limit", [0, -1, "1s", True, float("nan"), float("inf"), 3e6])
def test_odd_time_limits(owner_url: str, limit: Any, how: str) -> None:
    with (
        pytest.raises(errors.InvalidInput, match="statement_timeout is a number of seconds"),
        awaited.opened(owner_url, how, statement_timeout=limit),
    ):
        pass


def test_stopped_by_an_administrator_is_no_timeout(reads_url: str) -> None:
    with (
        fv.connect(reads_url) as engine,
        gate.closed(reads_url) as closed,
        ThreadPoolExecutor(1) as threads,
    ):
        docs = engine.table("docs")
        running = threads.submit(docs.measure_recall)
        closed.wait_for()
        with psycopg.connect(reads_url) as other:
            other.execute(
                "select pg_cancel_backend(pid) from pg_locks"
                " where locktype = 'advisory' and not granted"
            )
        with pytest.raises(errors.EngineError, match="user request") as caught:
            running.result()
        assert not isinstance(caught.value, TimeoutError)
        assert docs.search(Q)


def test_a_pool_that_is_exhausted(url: str) -> None:
    with psycopg_pool.ConnectionPool(url, min_size=1, max_size=1, timeout=0.05) as pool:
        docs = fv.wrap(pool).table("docs")
        with pool.connection(), pytest.raises(errors.Timeout, match="pool"):
            docs.search(Q)
        assert docs.search(Q)


# -- connections as applications have them -----------------------------------------------------


def test_rows_and_cursors_of_the_application(url: str) -> None:
    with psycopg.connect(
        url, autocommit=True, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
    ) as connection:
        docs = fv.wrap(connection).table("docs")
        assert docs.add([500], vectors(1)) == 1
        assert len(docs.search(Q, k=3)) == 3
        docs.calibrate(judgments())
        assert connection.execute("select 1 as one").fetchone() == {"one": 1}

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, row_factory=dict_row, cursor_factory=psycopg.AsyncClientCursor
        ) as connection:
            docs = await (await fv.wrap_async(connection)).table("docs")
            assert await docs.add([501], vectors(1)) == 1
            assert len(await docs.search(Q, k=3)) == 3

    asyncio.run(main())


def test_without_autocommit_the_application_commits(url: str) -> None:
    with psycopg.connect(url) as connection:
        docs = fv.wrap(connection).table("docs")
        connection.rollback()
        for write in (
            lambda: docs.add_resolution("8:f16"),
            lambda: docs.add([500], vectors(1)),
            lambda: docs.calibrate(judgments()),
        ):
            write()
            connection.rollback()
        check_untouched(url)
        assert [status.resolution for status in docs.status()] == ["16:f16"]
        connection.rollback()
        # A search that fails leaves no broken transaction behind, unless it was yours.
        with pytest.raises(errors.FilterError):
            docs.search(Q, filter={"nope": 1})
        assert connection.info.transaction_status == TransactionStatus.IDLE
        connection.execute("select 1")
        with pytest.raises(errors.FilterError):
            docs.search(Q, filter={"nope": 1})
        assert connection.info.transaction_status == TransactionStatus.INERROR
        connection.rollback()


def test_a_lent_connection_can_be_used_with_calls(url: str) -> None:
    async def main() -> None:
        async with fv.connect_async(url) as engine:
            docs = await engine.table("docs")
            async with engine.connection() as connection, connection.transaction():
                await connection.execute("update docs set price = 1")
                await docs.add([500], vectors(1))
                assert len(await docs.search(Q, filter={"price": 1}, k=5)) == 5

    asyncio.run(main())
    with fv.connect(url) as engine, engine.connection() as connection:  # type: ignore[attr-defined]
        assert engine.table("docs").count() == gate.ROWS + 1
        assert connection.execute("select 1").fetchone() == (1,)
