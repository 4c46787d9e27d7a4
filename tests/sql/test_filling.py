"""Side storage and concurrent indexes from Python and the command line."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import psycopg_pool
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.errors import CapabilityError, Conflict, EngineError, FunnelvecError
from tests import awaited, databases
from tests.sql.side import faults, one, run
from tests.sql.tables import DIMS, text, vectors

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine
    from funnelvec.reports import FillingStep
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

ROWS = 500
Q = vectors(1, seed=3)[0]


@pytest.fixture(autouse=True)
def ctrl_c_means_what_it_does() -> Iterator[None]:
    """Where a run was started in the background, a shell has told it to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=["sync", "async"])
def engine(request: pytest.FixtureRequest, owner_url: str) -> Iterator[PostgresEngine]:
    with awaited.opened(owner_url, request.param) as opened:
        yield opened


def make(engine: Any, name: str = "docs") -> Any:
    docs = engine.create(name, dims=DIMS, columns={"price": "number"})
    docs.add(range(ROWS), vectors(ROWS), columns={"price": [float(i) for i in range(ROWS)]})
    return docs


def make_docs(url: str, *, rows: int = ROWS) -> None:
    with fv.connect(url) as engine:
        docs = engine.create("docs", dims=DIMS)
        docs.add(range(rows), vectors(rows))
        docs.add_resolution("16:f16", storage="side", index=True)


def state(connection: Connection) -> Any:
    return connection.execute(
        "select state, filled from funnelvec.resolutions where side_table is not null"
    ).fetchone()


def test_a_table_is_adopted(engine: Any, owner_conn: Connection) -> None:
    docs = make(engine)
    docs.add_resolution("16:f16", storage="side", index=True)
    (status,) = docs.status()
    assert (status.storage, status.filled, status.index) == ("side", 0, None)
    assert "filling, not in use yet; next: call funnelvec.backfill" in status.advice
    docs.create_funnel("docs_search", "16:f16@100 > 32:f32")
    before = docs.search(Q)
    told: list[tuple[int, int]] = []
    steps: list[FillingStep] = []
    assert (
        docs.backfill(
            batch=200, progress=lambda *reached: told.append(reached), on_step=steps.append
        )
        == ROWS
    )
    assert [step.state for step in steps if step.statement is None] == (
        ["filling"] * 2 + ["sweeping"] * 4 + ["filled"]
    )
    ran = [step.statement.split()[:2] for step in steps if step.statement is not None]
    assert ran == [["create", "index"], ["select", steps[-1].statement.split()[1]]]  # type: ignore[union-attr]
    assert [done for done, _ in told] == [200, 400, *[500] * 5]
    assert all(done <= total for done, total in told)
    assert docs.explain(Q).stages[0].access.startswith("index")
    assert docs.search(Q) == before
    (status,) = docs.status()
    assert (status.storage, status.filled, status.coverage) == ("side", ROWS, 1.0)
    assert "next" not in status.advice and status.index is not None
    assert (docs.backfill(), docs.backfill(on_step=steps.append)) == (0, 0)
    assert faults(owner_conn, "docs") == []


def test_whatever_writes_keeps_the_codes_in_step(engine: Any, owner_conn: Connection) -> None:
    docs = make(engine)
    docs.add_resolution("16:f16", storage="side", index=True)
    docs.add_resolution("32:bit", storage="side")
    docs.add([1000], vectors(1, seed=8))  # while it is being filled
    docs.backfill(batch=100)
    docs.create_funnel("docs_search", "32:bit@400 > 16:f16@100 > 32:f32")
    changed = vectors(60, seed=9)
    assert docs.upsert(range(470, 530), changed) == fv.Upserted(inserted=30, updated=30)
    docs.load([(2000 + i, row) for i, row in enumerate(vectors(40, seed=10))], batch_size=7)
    docs.load([(range(40), vectors(40, seed=11))], upsert=True)
    docs.add([3000], Q[None])
    assert faults(owner_conn, "docs") == []
    assert docs.search(Q)[0].id == 3000
    with engine.connection() as connection:
        connection.execute("delete from docs where id = 3000")
    assert 3000 not in [hit.id for hit in docs.search(Q)]
    assert faults(owner_conn, "docs") == []


def test_it_moves_and_comes_back(engine: Any, owner_conn: Connection) -> None:
    docs = make(engine)
    docs.add_resolution("16:f16", index=True)
    docs.create_funnel("docs_search", "16:f16@100 > 32:f32")
    before = docs.search(Q)
    for storage in ("side", "column", "side"):
        docs.add_resolution("16:f16", storage=storage)
        assert docs.search(Q) == before
        docs.backfill()
        (status,) = docs.status()
        assert status.storage == storage
        assert docs.search(Q) == before
        assert docs.explain(Q).stages[0].access.startswith("index"), "the index moves along"
        assert faults(owner_conn, "docs") == []
    with pytest.raises(Conflict, match="docs_search"):
        docs.drop_resolution("16:f16")
    docs.drop_funnel("docs_search")
    docs.drop_resolution("16:f16")
    assert one(owner_conn, "select to_regclass('docs_embedding_16_f16')") is None
    assert docs.backfill() == 0


def test_two_vector_columns_count_apart(engine: Any, owner_conn: Connection) -> None:
    docs = make(engine)
    run(owner_conn, f"alter table docs add column title vector({DIMS})")
    run(owner_conn, "update docs set title = embedding where id < 100")
    titles = engine.table("docs", vector="title")
    for each in (docs, titles):
        each.add_resolution("16:f16", storage="side")
    assert docs.backfill(batch=100) == 2 * ROWS
    assert faults(owner_conn, "docs") == []
    assert [status.filled for status in titles.status()] == [100]


def test_what_stops_in_the_middle_goes_on(engine: Any, owner_conn: Connection) -> None:
    docs = make(engine)
    docs.add_resolution("16:f16", storage="side", index=True)
    with engine.connection() as connection:
        connection.execute("set statement_timeout = '70s'")
        connection.execute("set lock_timeout = '80s'")

    def stop_at(text: str, kind: type[BaseException]) -> Callable[[FillingStep], None]:
        def stop(step: FillingStep) -> None:
            if text in (step.statement or f"{step.state} {step.done}"):
                raise kind("enough")

        return stop

    with pytest.raises(RuntimeError, match="enough"):
        docs.backfill(batch=100, on_step=stop_at("filling 200", RuntimeError))
    assert state(owner_conn) == ("filling", 200), "whole batches stay"
    with pytest.raises(KeyboardInterrupt):
        docs.backfill(batch=100, on_step=stop_at("filling 400", KeyboardInterrupt))
    assert state(owner_conn) == ("filling", 400)
    with engine.connection() as connection:
        limits = connection.execute(
            "select current_setting('statement_timeout'), current_setting('lock_timeout')"
        ).fetchone()
        assert limits == ("70s", "80s")
    with pytest.raises(RuntimeError, match="enough"):
        docs.backfill(batch=100, on_step=stop_at("activate", RuntimeError))
    assert state(owner_conn) == ("filled", ROWS)
    assert docs.backfill(batch=100) == 0, "rows were gone through before"
    assert state(owner_conn) == ("ready", ROWS)
    assert faults(owner_conn, "docs") == []


def test_only_what_was_gone_through_now_is_counted(engine: Any) -> None:
    docs = make(engine)
    docs.add_resolution("16:f16", storage="side")

    def stop(step: FillingStep) -> None:
        if step.done == 300:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        docs.backfill(batch=100, on_step=stop)
    assert docs.backfill(batch=100) == 200


def waiting_for_a_transaction(url: str) -> None:
    """Return when somebody's build waits for transactions that were open before it."""
    with psycopg.connect(url, autocommit=True) as connection:
        while not one(
            connection,
            "select count(*) from pg_stat_activity, pg_sleep(0.01)"
            " where datname = current_database() and wait_event_type = 'Lock'"
            " and query ilike 'create index concurrently%%'",
        ):
            pass


def broken(connection: Connection) -> int:
    return int(one(connection, "select count(*) from pg_index where not indisvalid"))


@pytest.mark.parametrize("storage", ["side", "column"])
def test_ctrl_c_in_an_index_build(owner_url: str, owner_conn: Connection, storage: Any) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        waiting_for_a_transaction(owner_url)
        signal.pthread_kill(main, signal.SIGINT)

    with fv.connect(owner_url, statement_timeout=60) as engine:
        docs: Any = make(engine)
        docs.add_resolution("16:f16", storage=storage, index=True, concurrently=True)
        run(owner_conn, "call funnelvec.backfill('docs')")  # only the index is left
        with psycopg.connect(owner_url) as writer:
            writer.execute("update docs set price = 1 where id = 1")
            if storage == "side":
                writer.execute("update docs set embedding = embedding where id = 1")
            thread = threading.Thread(target=press)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                docs.backfill()
            thread.join()
        assert broken(owner_conn) == 1
        assert "next: drop index concurrently" in docs.status()[0].advice
        steps: list[FillingStep] = []
        docs.backfill(on_step=steps.append)
        assert [step.statement.split()[0] for step in steps if step.statement] == (
            ["drop", "create", "select"]
        )
        assert broken(owner_conn) == 0
        docs.create_funnel("docs_search", "16:f16@100 > 32:f32")
        assert docs.explain(Q).stages[0].access.startswith("index")


def test_cancelling_a_task(owner_url: str, owner_conn: Connection) -> None:
    make_docs(owner_url)

    async def fill() -> None:
        async with fv.connect_async(owner_url) as engine:
            docs: Any = await engine.table("docs")
            run(owner_conn, "call funnelvec.backfill('docs')")  # only the index is left
            with psycopg.connect(owner_url) as writer:
                writer.execute("update docs set embedding = embedding where id = 1")
                task = asyncio.ensure_future(docs.backfill(batch=100))
                await asyncio.to_thread(waiting_for_a_transaction, owner_url)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await docs.backfill() == 0
            await docs.create_funnel("docs_search", "16:f16@100 > 32:f32")
            assert (await docs.explain(Q)).stages[0].access.startswith("index")

    asyncio.run(fill())
    assert broken(owner_conn) == 0
    assert faults(owner_conn, "docs") == []


# -- connections of the application --------------------------------------------------------------


def test_a_connection_that_is_not_in_autocommit_mode_is_refused(
    owner_url: str, owner_conn: Connection
) -> None:
    make_docs(owner_url)
    with psycopg.connect(owner_url) as connection, fv.wrap(connection) as engine:
        with pytest.raises(CapabilityError, match=r"connection\.autocommit = True"):
            engine.table("docs").backfill()
        connection.rollback()
        connection.autocommit = True
        with connection.transaction(), pytest.raises(CapabilityError, match="open transaction"):
            engine.table("docs").backfill()
        assert state(owner_conn) == ("filling", 0)
        assert engine.table("docs").backfill() == ROWS
        assert connection.autocommit and not connection.closed
    assert state(owner_conn) == ("ready", ROWS)


def test_connections_with_rows_of_another_kind(owner_url: str, owner_conn: Connection) -> None:
    from psycopg.rows import dict_row

    make_docs(owner_url)
    with (
        psycopg.connect(owner_url, autocommit=True, row_factory=dict_row) as connection,
        fv.wrap(connection) as engine,
    ):
        assert engine.table("docs").backfill(batch=300) == ROWS
    assert faults(owner_conn, "docs") == []


def test_a_pool(owner_url: str, owner_conn: Connection) -> None:
    make_docs(owner_url)
    with (
        psycopg_pool.ConnectionPool(owner_url, min_size=1, open=True) as pool,
        fv.wrap(pool) as engine,
        pytest.raises(CapabilityError, match=r'kwargs=\{"autocommit": True\}'),
    ):
        engine.table("docs").backfill()
    options = {"autocommit": True, "options": "-c lock_timeout=50ms"}
    with psycopg_pool.ConnectionPool(owner_url, min_size=1, kwargs=options, open=True) as pool:
        with fv.wrap(pool) as engine:
            assert engine.table("docs").backfill() == ROWS
        with pool.connection() as connection:
            assert one(connection, "select current_setting('lock_timeout')") == "50ms"
    assert state(owner_conn) == ("ready", ROWS)


def test_two_fill_at_once(owner_url: str, owner_conn: Connection) -> None:
    """They take turns; whoever finds nothing left returns, or is told that somebody builds."""
    make_docs(owner_url, rows=2000)
    outcomes: list[object] = []

    def fill() -> None:
        with fv.connect(owner_url) as engine:
            try:
                outcomes.append(engine.table("docs").backfill(batch=50))
            except FunnelvecError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [each for each in outcomes if isinstance(each, FunnelvecError)]
    assert len(outcomes) == 2 and len(failed) <= 1
    # What the other one does at the same moment is the only thing that may stop one.
    assert all(isinstance(each, (Conflict, EngineError)) for each in failed), failed
    with fv.connect(owner_url) as engine:
        engine.table("docs").backfill()
    assert one(owner_conn, "select count(*) from pg_indexes where indexdef like '%%hnsw%%'") == 1
    assert faults(owner_conn, "docs") == []
    assert state(owner_conn) == ("ready", 2000)


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; return its exit status and what it printed on both."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_command_fills_and_says_what_it_does(
    owner_url: str, owner_conn: Connection, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_docs(owner_url)
    run(
        owner_conn, "select funnelvec.create_funnel('f', 'docs', 'embedding', '16:f16@50 > 32:f32')"
    )
    run(owner_conn, "analyze docs")
    plan = call("backfill", owner_url, "--dry-run")
    assert plan == (0, "docs: call funnelvec.backfill('public.docs');\n", "")
    status, out, _ = call("status", owner_url, "docs")
    assert status == 0 and "docs.embedding 16:f16: filling, not in use yet; next: call" in out
    status, out, _ = call("explain", owner_url, "docs", "--funnel", "f", "--like", "3")
    assert status == 0 and "32:f32" in out and "16:f16" not in out
    # Where there is no terminal a line says how far it is, at the end at the latest.
    monkeypatch.setattr("funnelvec.commands.backfill._EVERY_SECONDS", 0.0)
    status, out, err = call("backfill", owner_url, "docs", "--batch", "200")
    assert (status, out) == (0, f"docs: in use, {ROWS} rows gone through\n")
    lines = err.splitlines()
    assert lines[0] == "docs: 16:f16: 200 of about 500 rows"
    paced = r"docs: 16:f16: 400 of about 500 rows, [\d,]+ rows/s, [\d:]+ left"
    assert re.fullmatch(paced, lines[1]), lines
    assert lines[-2].startswith("docs: create index concurrently if not exists docs_embedding")
    assert lines[-1].startswith("docs: select funnelvec.activate('public.docs'")
    assert call("backfill", owner_url, "docs") == (
        0,
        "docs: nothing to do, 0 rows gone through\n",
        "",
    )
    assert call("backfill", owner_url) == (0, "nothing to do\n", "")
    status, out, _ = call("explain", owner_url, "docs", "--funnel", "f", "--like", "3")
    assert status == 0 and "index docs_embedding_16_f16_embedding_16_f16_idx" in out
    status, out, _ = call("status", owner_url, "docs", "--json")
    (found,) = json.loads(out)["resolutions"]
    assert (found["storage"], found["object"]) == ("side", "table public.docs_embedding_16_f16")


def test_the_command_in_json(owner_url: str, call: Any) -> None:
    make_docs(owner_url)
    assert json.loads(call("backfill", owner_url, "--dry-run", "--json")[1]) == [
        {
            "table": "docs",
            "rows": 0,
            "statements": [],
            "next": "call funnelvec.backfill('public.docs');",
        }
    ]
    status, out, err = call("backfill", owner_url, "--json")
    (done,) = json.loads(out)
    assert (status, err, done["rows"], done["next"]) == (0, "", ROWS, None)
    assert [statement.split()[0] for statement in done["statements"]] == ["create", "select"]
    assert json.loads(call("backfill", owner_url, "--json")[1]) == []


def test_the_command_refuses(
    owner_url: str, pg_database: Database, call: Any, owner_conn: Connection
) -> None:
    make_docs(owner_url)
    status, _, err = call("backfill", owner_url, "nowhere")
    assert status == 1 and "'nowhere' does not exist" in err
    run(owner_conn, "grant select on docs to app_other")
    status, _, err = call("backfill", pg_database.other_url, "docs")
    assert status == 1 and "must be owner of table" in err
    assert call("backfill", pg_database.other_url) == (0, "nothing to do\n", "")
    for wrong in (["--batch", "0"], ["--batch", "many"], ["docs", "more"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["backfill", owner_url, *wrong])
        assert caught.value.code == 2
    status, _, err = call("backfill", "memory:", "docs")
    assert status == 1 and "works on Postgres" in err
    assert state(owner_conn) == ("filling", 0)


def test_the_interrupted_command_says_how_to_go_on(
    owner_url: str, owner_conn: Connection, call: Any
) -> None:
    make_docs(owner_url)
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        waiting_for_a_transaction(owner_url)
        signal.pthread_kill(main, signal.SIGINT)

    run(owner_conn, "call funnelvec.backfill('docs')")  # only the index is left
    with psycopg.connect(owner_url) as writer:
        writer.execute("update docs set embedding = embedding where id = 1")
        thread = threading.Thread(target=press)
        thread.start()
        status, out, err = call("backfill", owner_url, "docs")
        thread.join()
    assert (status, out) == (130, "")
    assert "funnelvec: interrupted: nothing is lost" in err and "the same command goes on" in err
    status, out, err = call("backfill", owner_url, "docs")
    assert status == 0 and "docs: in use" in out
    assert "docs: drop index concurrently" in err
    assert faults(owner_conn, "docs") == []


def test_readers_search_what_others_fill(owner_url: str, pg_database: Database) -> None:
    make_docs(owner_url)
    with databases.connected(owner_url) as owner:
        run(owner, "grant select on docs to app_other")
        run(owner, "select funnelvec.create_funnel('f', 'docs', 'embedding', '16:f16@50 > 32:f32')")
        with databases.connected(pg_database.other_url) as other:
            before = other.execute("select * from f(%s)", (text(Q),)).fetchall()
            assert len(before) == 10
            with fv.wrap(owner) as engine:
                engine.table("docs").backfill()
            with fv.wrap(other) as engine:
                found = engine.table("docs").search(Q, funnel="f")
            assert [hit.id for hit in found] == [row[0] for row in before]
            assert np.allclose([hit.score for hit in found], [row[1] for row in before])
