"""Who waits for whom: batches and writers, drops and readers, switches and old snapshots."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.live import wait_until
from tests.sql.side import DIMS, SHAPES, adopt, faults, finish, make, one, run
from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

PLAIN = SHAPES["bigint"]
ADD = "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')"
DROP = "select funnelvec.drop_resolution('items', 'emb', '8:f16')"
STEP = "select (funnelvec._backfill_step('items', 1000)).state"
VECTORS = [text(row) for row in vectors(20, seed=91, dims=DIMS)]
#: A limit that only a wait for ever reaches, so that a test fails and does not hang.
FOR_EVER = "set statement_timeout = '60s'"


@pytest.fixture
def items(owner_conn: Connection) -> Connection:
    make(owner_conn, PLAIN)
    return owner_conn


@pytest.fixture
def connect(pg_database: Database) -> Iterator[Callable[[], Connection]]:
    """More connections of the owner, in autocommit mode, closed in the end."""
    with contextlib.ExitStack() as stack:

        def connect() -> Connection:
            connection = psycopg.connect(pg_database.owner_url, autocommit=True)
            stack.callback(connection.close)
            connection.execute(FOR_EVER)
            return connection

        yield connect


@contextlib.contextmanager
def doing(connection: Connection, *queries: str) -> Iterator[list[Any]]:
    """Run queries in another thread while the block runs; lends the list of what they return."""
    results: list[Any] = []

    def act() -> None:
        try:
            for query in queries:
                results.append(one(connection, query))
        except psycopg.Error as error:
            results.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    yield results
    thread.join()


def wait_for_lock(watcher: Connection, waiting: Connection) -> None:
    """Return when a session waits for a lock."""
    pid = waiting.info.backend_pid
    wait_until(
        lambda: bool(
            one(watcher, "select count(*) from pg_locks where pid = %s and not granted", pid)
        ),
        "a session waits for a lock",
    )


# -- batches and writers ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["filling", "sweeping", "checking"])
def test_a_batch_lets_writers_go_that_it_would_wait_for(
    items: Connection, connect: Callable[[], Connection], state: str
) -> None:
    """It comes to a row of an open transaction, which then wants a row that the batch has passed."""
    writer, other, filler = connect(), connect(), connect()
    if state == "checking":
        side = adopt(items, "items")
        run(items, f"alter table items disable trigger {side.partition('.')[2]}")
        run(items, "update items set emb = %s", VECTORS[0])
        run(items, "select funnelvec.repair()")
    else:
        run(items, ADD)
    if state == "sweeping":
        assert [one(items, STEP) for _ in range(2)] == ["sweeping"] * 2
        run(items, "delete from items_emb_8_f16")
    assert one(items, "select state from funnelvec.resolutions") == state
    writer.execute("begin")
    run(writer, "update items set emb = %s where id = 50", VECTORS[1])
    with doing(filler, STEP) as done:
        wait_for_lock(items, filler)
        # Neither the open transaction nor anybody else waits for its end.
        run(other, "update items set emb = %s where id = 3", VECTORS[2])
        run(writer, "update items set emb = %s where id in (5, 4)", VECTORS[3])
        run(other, "update items set emb = %s where id = 2", VECTORS[4])
        assert done in ([], [state])  # it has gone as far as that row, or waits for it alone
        writer.execute("commit")
    assert done[0] in ("filling", "sweeping", "filled", "checking", "ready"), done
    finish(items, "items")
    assert faults(items, "items") == []


def test_a_batch_keeps_the_limit_of_who_runs_it(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    writer = connect()
    run(items, ADD)
    writer.execute("begin")
    run(writer, "update items set emb = %s where id = 50", VECTORS[1])
    items.execute("set lock_timeout = '300ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        while one(items, STEP) == "filling":  # up to the row, and no further
            pass
    assert one(items, "select current_setting('lock_timeout')") == "300ms"
    reached = one(items, "select max(id) from items_emb_8_f16")
    assert 0 < reached < 50
    assert reached <= one(items, "select filled_to[1]::int from funnelvec.resolutions") < 50


def test_a_row_that_comes_back_keeps_its_code(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    """The last look finds a code without a row; at that moment the row is written again, as it was."""
    writer, filler = connect(), connect()
    run(items, ADD)
    assert [one(items, STEP) for _ in range(2)] == ["sweeping"] * 2
    vector = one(items, "select emb from items where id = 7")
    run(items, "alter table items disable trigger items_emb_8_f16")
    run(items, "delete from items where id = 7")  # as if a batch had read it before
    run(items, "alter table items enable trigger items_emb_8_f16")
    writer.execute("begin")
    run(writer, "insert into items values (7, %s, 'again')", vector)
    with doing(filler, STEP) as done:
        wait_for_lock(items, filler)
        writer.execute("commit")
    assert done == ["filled"]
    assert faults(items, "items") == []


def test_a_row_that_goes_in_a_long_transaction_leaves_no_code(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    one(items, ADD)
    writer = connect()
    writer.execute("begin")
    writer.execute("delete from items where id = 3")  # its code is not there yet
    writer.execute("update items set emb = null where id = 4")
    items.execute("set funnelvec.lock_patience = '100ms'")
    assert [one(items, STEP) for _ in range(2)] == ["sweeping"] * 2
    with pytest.raises(psycopg.errors.LockNotAvailable, match="is not at its end"):
        one(items, STEP)
    writer.execute("commit")
    while one(items, STEP) is not None:
        pass
    assert faults(items, "items") == []
    assert one(items, "select count(*) from items_emb_8_f16") == 178


# One row, some, and at first all of them, then more than there are.
@pytest.mark.parametrize("rows", [1, 7, 30])
@pytest.mark.parametrize(
    "shape", ["bigint", "composite", "collated", "list partitions", "odd names"]
)
def test_batches_of_every_size_see_every_row(owner_conn: Connection, shape: str, rows: int) -> None:
    """Missing codes, codes without a row and wrong ones, at both ends and between, and an empty table."""
    table = SHAPES[shape].name
    make(owner_conn, SHAPES[shape], 30)
    side = adopt(owner_conn, table)
    key = SHAPES[shape].key[-1]
    trigger = one(
        owner_conn,
        "select tgname from pg_trigger where tgrelid = %s::regclass and not tgisinternal order by tgname limit 1",
        table,
    )
    for spoil in (
        f"update {table} set emb = '{VECTORS[0]}' where {key} in (select {key} from {table} order by {key} limit 9)",
        f"update {table} set emb = null where {key} in (select {key} from {table} order by {key} desc limit 9)",
        f"delete from {table} where {key} in (select {key} from {table} order by {key} limit 5)",
        f"delete from {table} where {key} in (select {key} from {table} order by {key} desc limit 5)",
        f"delete from {table}",
    ):
        run(
            owner_conn,
            f'alter table {table} disable trigger "{trigger.replace(chr(34), 2 * chr(34))}"',
        )
        run(owner_conn, spoil)
        if "limit 5" in spoil:
            run(owner_conn, f"delete from {side} where ctid in (select ctid from {side} limit 5)")
        run(owner_conn, "select funnelvec.repair()")
        if "emb" in spoil:
            assert faults(owner_conn, table) != []
        states = []
        while state := one(
            owner_conn, "select (funnelvec._backfill_step(%s, %s)).state", table, rows
        ):
            states.append(state)
        assert faults(owner_conn, table) == []
        assert len(states) >= one(owner_conn, f"select count(*) from {table}") // rows
        assert {*states[:-1]} <= {"checking"} and states[-1] == "ready"


def test_filling_needs_a_transaction_that_sees_what_others_write(items: Connection) -> None:
    items.execute("set default_transaction_isolation = 'repeatable read'")
    with pytest.raises(psycopg.Error, match="repeatable read") as caught:
        run(items, ADD)
    assert caught.value.sqlstate == "FV009"
    items.execute("reset default_transaction_isolation")
    run(items, ADD)
    items.execute("set default_transaction_isolation = 'serializable'")
    with pytest.raises(psycopg.Error, match="serializable"):
        run(items, "call funnelvec.backfill('items')")
    items.execute("reset default_transaction_isolation")
    finish(items, "items")
    assert faults(items, "items") == []


# -- old snapshots ---------------------------------------------------------------------------------


def test_searches_are_not_switched_under_an_old_snapshot(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    """Who began before the codes were filled does not see them; a search of his would come back empty."""
    report = connect()
    run(items, "select funnelvec.create_funnel('f', 'items', 'emb', '16:f32')")
    report.execute("begin isolation level repeatable read")
    answer = report.execute(b"select * from f(%s)", (VECTORS[0],)).fetchall()
    run(items, ADD)
    run(
        items,
        "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32', replace => true)",
    )
    run(items, "call funnelvec.backfill('items')")
    run(items, "set funnelvec.lock_patience = '0.2s'")
    with pytest.raises(psycopg.Error, match="still sees the database as it was before") as caught:
        finish(items, "items")
    assert caught.value.sqlstate == "55P03"
    assert len(answer) == 10
    assert report.execute(b"select * from f(%s)", (VECTORS[0],)).fetchall() == answer
    report.execute("commit")
    assert len(finish(items, "items")) == 1
    report.execute("begin isolation level repeatable read")
    assert report.execute(b"select * from f(%s)", (VECTORS[0],)).fetchall() == answer
    assert one(items, "select funnel from funnelvec.funnels") == "8:f16@150 > 16:f32"


def test_one_transaction_may_do_it_all(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    """It can't wait for those who do not see it yet; and a savepoint has another number than it."""
    report = connect()
    report.execute("begin isolation level repeatable read")
    report.execute("select 1")
    items.execute("set funnelvec.lock_patience = '0.2s'")
    with items.transaction():
        run(items, ADD)
        with items.transaction():
            for _ in range(3):
                run(items, STEP)
        finish(items, "items")
        run(items, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
        with items.transaction():
            run(items, "select funnelvec.drop_funnel('f')")
            run(items, DROP)
    assert one(items, "select to_regclass('items_emb_8_f16')") is None


def test_what_searches_have_left_is_kept_for_those_that_began_before(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    report = connect()
    adopt(items, "items")
    run(items, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    report.execute("begin isolation level repeatable read")
    report.execute("select 1")
    run(items, "select funnelvec.create_funnel('f', 'items', 'emb', '16:f32', replace => true)")
    items.execute("set funnelvec.lock_patience = '0.2s'")
    with pytest.raises(psycopg.Error, match=r"the funnels of .* were changed"):
        run(items, DROP)
    assert one(items, "select count(*) from items_emb_8_f16") == 180
    report.execute("commit")
    run(items, DROP)


# -- drops and readers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "held"),
    [
        ("add", "items"),
        *(
            (what, held)
            for what in ("drop", "leave", "repair")
            for held in ("items", "items_emb_8_f16")
        ),
    ],
)
def test_a_reader_that_stays_makes_it_give_up(
    items: Connection, connect: Callable[[], Connection], held: str, what: str
) -> None:
    """Whichever of the two tables it has read: everybody else goes on while the drop tries again."""
    reader, prober, dropper = connect(), connect(), connect()
    if what != "add":
        adopt(items, "items")
    if what == "leave":
        run(items, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'column')")
    elif what == "repair":
        run(items, "update funnelvec.resolutions set state = 'filling'")
        run(items, "alter table items disable trigger items_emb_8_f16")
    statement = {
        "add": ADD,
        "drop": DROP,
        "leave": "select funnelvec.activate('items', 'emb', '8:f16')",
        "repair": "select count(*) from funnelvec.repair()",
    }[what]
    reader.execute("begin")
    run(reader, f"select count(*) from {held}")
    if what == "add":  # which only writers are in the way of
        run(reader, "update items set note = 'open' where id = 100")
    run(dropper, "set funnelvec.lock_patience = '1s'")
    prober.execute("set lock_timeout = '1s'")  # it tries for 0.1 s at a time
    with doing(dropper, statement) as done:
        wait_for_lock(items, dropper)
        probes = 0
        while not done:
            run(prober, "update items set note = 'probe' where id = 1")
            assert one(prober, "select count(*) from items where id = 1") == 1
            probes += 1
    assert probes > 5
    assert isinstance(done[0], psycopg.errors.LockNotAvailable), done
    assert "could not be locked" in str(done[0])
    reader.execute("commit")
    run(dropper, statement)


def test_the_index_of_the_column_itself_is_dropped_briefly_too(
    items: Connection, connect: Callable[[], Connection]
) -> None:
    reader = connect()
    run(items, "select funnelvec.add_resolution('items', 'emb', '16:f32', index => true)")
    reader.execute("begin")
    run(reader, "select count(*) from items")
    items.execute("set funnelvec.lock_patience = '0.2s'")
    with pytest.raises(psycopg.errors.LockNotAvailable, match="could not be locked"):
        run(items, "select funnelvec.drop_resolution('items', 'emb', '16:f32')")
    reader.execute("commit")
    run(items, "select funnelvec.drop_resolution('items', 'emb', '16:f32')")


def test_repair_does_not_empty_codes_that_searches_use(items: Connection) -> None:
    """The trigger was off twice, and the second time while the first was not yet made up for."""
    adopt(items, "items")
    run(items, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    for _ in range(2):
        run(items, "alter table items disable trigger items_emb_8_f16")
        run(items, "select funnelvec.repair()")
        assert one(items, "select state from funnelvec.resolutions") == "checking"
        assert one(items, f"select count(*) from f('{VECTORS[0]}')") == 10
    # In the middle of a move, searches go back to the column.
    finish(items, "items")
    run(items, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'column')")
    finish(items, "items")
    run(items, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')")
    steps: list[str] = []
    while one(items, "select state from funnelvec.resolutions") != "leaving":
        steps.append(one(items, "select funnelvec.next_step('items')"))
        run(items, steps[-1])
    run(items, "alter table items disable trigger items_emb_8_f16")
    run(items, "update items set emb = %s where id < 50", VECTORS[0])
    run(items, "select funnelvec.repair()")
    assert one(items, f"select count(*) from f('{VECTORS[0]}')") == 10
    finish(items, "items")
    assert one(items, "select storage || ' ' || state from funnelvec.resolutions") == "side ready"
    assert faults(items, "items") == []


@pytest.mark.parametrize("shape", ["bigint", "hash partitions"])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("log", [True, False])
def test_a_search_that_waits_for_a_rewrite_does_not_come_back_empty(
    owner_conn: Connection, connect: Callable[[], Connection], shape: str, index: bool, log: bool
) -> None:
    """The rows of a rewritten table are invisible to who began before; PostgreSQL just finds none."""
    make(owner_conn, SHAPES[shape])
    adopt(owner_conn, "items", index=index)
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    if log:
        run(owner_conn, "select funnelvec.log_queries('f', 1)")
    searcher = connect()
    query = f"select count(*) from f('{VECTORS[0]}')"
    assert one(searcher, query) == 10
    owner_conn.execute("begin")
    run(owner_conn, "select funnelvec.add_resolution('items', 'emb', '16:bit')")
    with doing(searcher, query) as done:
        wait_for_lock(connect(), searcher)
        owner_conn.execute("commit")
    # A volatile function (one that logs) looks anew with each statement, and sees them.
    assert done == [10] if log else isinstance(done[0], psycopg.errors.SerializationFailure), done
    assert one(searcher, query) == 10
    assert (
        one(searcher, f"""select count(*) from f('{VECTORS[0]}', filter => '{{"note": "none"}}')""")
        == 0
    )
    with searcher.transaction():
        run(searcher, "truncate items")
        assert one(searcher, query) == 0
