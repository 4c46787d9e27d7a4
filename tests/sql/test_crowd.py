"""Many clients at once: 32 that search while rows are written, and what an adoption makes them wait."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
import pytest

import funnelvec as fv
from tests.sql import side
from tests.sql.live import ALL, DIMS, Live, create_funnel
from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

#: What stops a reader or a writer of the same table.
STRONG = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}


@pytest.mark.slow
def test_32_clients_search_while_rows_are_written(
    owner_conn: Connection, pg_database: Database
) -> None:
    """And while funnels are replaced, a side table is filled, and a column moves into another."""
    live = Live(pg_database.owner_url, writers=4)
    live.make(owner_conn)
    with (
        psycopg_pool.ConnectionPool(
            pg_database.owner_url, min_size=2, max_size=6, kwargs={"autocommit": True}, timeout=120
        ) as pool,
        fv.connect(pg_database.owner_url) as engine,
        live.in_use(searching=32, pool=pool),
    ):
        table = engine.table("items", vector="emb")
        live.let_them_work(2)
        table.add_resolution("8:f16", index=True, storage="side")
        create_funnel(owner_conn, "live", f"8:f16@300 > {DIMS}:f32")
        create_funnel(owner_conn, "whole", f"8:f16@{ALL} > 16:bit@{ALL} > {DIMS}:f32")
        live.funnels.append("whole")
        table.backfill(batch=100)
        live.let_them_work(2)
        for keep in (100, 50, 200):
            create_funnel(owner_conn, "live", f"8:f16@{keep} > {DIMS}:f32")
            create_funnel(owner_conn, "signs", f"16:bit@{keep} > {DIMS}:f32")
            live.let_them_work(1)
        table.add_resolution("16:bit", storage="side")
        table.backfill(batch=100)
        live.let_them_work(1)
        for name, keep in (("live", 300), ("whole", ALL)):
            create_funnel(owner_conn, name, f"16:bit@{keep} > {DIMS}:f32")
        table.drop_resolution("8:f16")
        live.let_them_work(1)
    live.verify(owner_conn)
    assert (
        side.one(
            owner_conn,
            "select string_agg(storage || ' ' || state, ', ') from funnelvec.resolutions",
        )
        == "side ready"
    )
    print(dict(live.counts))


# -- waits -----------------------------------------------------------------------------------------

ROWS, WIDE = 6_000, 48


@pytest.fixture
def wide(owner_conn: Connection, pg_database: Database) -> Connection:
    """A table with enough rows for the adoption to take a while."""
    with fv.connect(pg_database.owner_url) as engine:
        items = engine.create("items", dims=WIDE, columns={"note": "text"})
        items.add(range(ROWS), vectors(ROWS, seed=3, dims=WIDE), columns={"note": ["n"] * ROWS})
    owner_conn.execute("analyze items")
    side.run(
        owner_conn, "select funnelvec.create_funnel('f', 'items', 'embedding', %s)", f"{WIDE}:f32"
    )
    return owner_conn


def strong_locks(connection: Connection, pid: int | None = None) -> set[str]:
    """The modes in which a session holds ``items`` that would stop somebody else."""
    rows = connection.execute(
        "select mode from pg_locks where relation = 'items'::regclass and granted"
        " and pid = coalesce(%s, pg_backend_pid())",
        (pid,),
    ).fetchall()
    return {mode for (mode,) in rows} & STRONG


def test_what_locks_a_table_reads_none_of_it(wide: Connection, pg_database: Database) -> None:
    """Every step of an adoption either stops nobody, or touches a handful of rows while it does."""
    seen: dict[str, set[str]] = {}
    run = side.run
    touched = (
        "select pg_stat_get_xact_tuples_returned('items'::regclass)"
        " + pg_stat_get_xact_tuples_fetched('items'::regclass)"
    )

    def step(statement: str) -> None:
        name = statement.partition("(")[0].split(".")[-1]
        with wide.transaction():
            before = side.one(wide, touched)
            run(wide, statement)
            after = side.one(wide, touched)
            held = strong_locks(wide)
        seen[name] = seen.get(name, set()) | held
        assert not held or after - before <= 10, f"{statement}: {held}, {after - before} rows"

    step(
        "select funnelvec.add_resolution('items', 'embedding', '16:f16', storage => 'side', index => true)"
    )
    step("select funnelvec.create_funnel('g', 'items', 'embedding', '16:f16@200 > 48:f32')")
    batches = 0
    while (following := side.one(wide, "select funnelvec.next_step('items')")).startswith("call"):
        step("select funnelvec._backfill_step('items', 800)")
        batches += 1
    assert batches > 2 * ROWS // 800
    seen["create index concurrently"] = _locks_of_build(wide, pg_database.owner_url, following)
    step(side.one(wide, "select funnelvec.next_step('items')"))
    assert side.one(wide, "select funnelvec.next_step('items')") is None
    step("select funnelvec.create_funnel('g', 'items', 'embedding', '48:f32', replace => true)")
    step("select funnelvec.drop_resolution('items', 'embedding', '16:f16')")
    assert seen == {
        "add_resolution": {"ShareRowExclusiveLock"},
        "create_funnel": set(),
        "_backfill_step": set(),
        "create index concurrently": set(),
        "activate": set(),
        "drop_resolution": {"AccessExclusiveLock"},
    }


def _locks_of_build(watcher: Connection, url: str, statement: str) -> set[str]:
    """Run a build and look at its locks all the while; also on the side table, which writers need."""
    held: set[str] = set()
    with psycopg.connect(url, autocommit=True) as builder:
        thread = threading.Thread(target=builder.execute, args=(statement.encode(),), daemon=True)
        thread.start()
        looks = 0
        while thread.is_alive():
            found = watcher.execute(
                "select relation::regclass::text, mode from pg_locks where pid = %s and granted"
                " and relation in ('items'::regclass, 'items_embedding_16_f16'::regclass)",
                (builder.info.backend_pid,),
            ).fetchall()
            looks += bool(found)
            held |= {mode for _, mode in found} & STRONG
        thread.join()
    assert looks > 3, "the build was over before it was looked at"
    return held


@dataclass
class Probe:
    """A client that does one small thing after another and keeps how long each took."""

    url: str
    acts: list[Callable[[Connection, random.Random], object]]
    taken: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    pid: int = 0

    def run(self, stop: threading.Event) -> None:
        chance = random.Random(7)
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                self.pid = connection.info.backend_pid
                while not stop.is_set():
                    began = time.monotonic()
                    chance.choice(self.acts)(connection, chance)
                    self.taken.append(time.monotonic() - began)
        except psycopg.Error as error:
            self.faults.append(repr(error))


QUERIES = [text(row) for row in vectors(30, seed=8, dims=WIDE)]
READS: list[Callable[[Connection, random.Random], object]] = [
    lambda c, r: c.execute("select note from items where id = %s", (r.randrange(ROWS),)).fetchall(),
    lambda c, r: c.execute("select id from f(%s)", (r.choice(QUERIES),)).fetchall(),
]
WRITES: list[Callable[[Connection, random.Random], object]] = [
    lambda c, r: c.execute("update items set note = 'w' where id = %s", (r.randrange(ROWS),)),
    lambda c, r: c.execute(
        "update items set embedding = %s where id = %s", (r.choice(QUERIES), r.randrange(ROWS))
    ),
    lambda c, r: c.execute(
        "insert into items values (%s, %s, 'i') on conflict do nothing",
        (ROWS + r.randrange(ROWS), r.choice(QUERIES)),
    ),
    lambda c, r: c.execute("delete from items where id = %s", (2 * ROWS - r.randrange(ROWS),)),
]


class Waits(threading.Thread):
    """Looks all the time how long each probe has been waiting for a lock by now.

    The server knows since when (`waitstart`), so a loaded machine does not count as a lock.
    """

    def __init__(self, url: str, probes: dict[str, Probe]) -> None:
        super().__init__(daemon=True)
        self.url, self.probes = url, probes
        self.stop = threading.Event()
        self.longest = dict.fromkeys(probes, 0.0)
        self.looks = 0

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.stop.is_set():
                pids = {probe.pid: name for name, probe in self.probes.items()}
                for pid, waited in connection.execute(
                    "select pid, extract(epoch from clock_timestamp() - waitstart)::float from pg_locks"
                    " where not granted and waitstart is not null and pid = any(%s)",
                    ([*pids],),
                ).fetchall():
                    self.longest[pids[pid]] = max(self.longest[pids[pid]], waited)
                self.looks += 1
                time.sleep(0.002)  # it looks; nothing depends on when


@contextlib.contextmanager
def probing(url: str, superuser_url: str) -> Iterator[tuple[dict[str, Probe], Waits]]:
    probes = {"reader": Probe(url, READS), "writer": Probe(url, WRITES)}
    stop = threading.Event()
    threads = [threading.Thread(target=p.run, args=(stop,), daemon=True) for p in probes.values()]
    waits = Waits(superuser_url, probes)
    for thread in (*threads, waits):
        thread.start()
    try:
        yield probes, waits
    finally:
        stop.set()
        waits.stop.set()
        for thread in (*threads, waits):
            thread.join()
    assert [fault for probe in probes.values() for fault in probe.faults] == []


@pytest.mark.slow
def test_the_longest_wait_during_an_adoption(wide: Connection, pg_database: Database) -> None:
    """From add_resolution to drop_resolution, a reader and a writer never wait for the work itself."""
    lines: list[str] = []
    took: dict[str, float] = {}

    def timed(name: str, act: Callable[[], object]) -> None:
        began = time.monotonic()
        act()
        took[name] = time.monotonic() - began

    steps: list[str] = []
    with (
        fv.connect(pg_database.owner_url) as engine,
        probing(pg_database.owner_url, pg_database.superuser_url) as (probes, waits),
    ):
        items = engine.table("items")
        began = time.monotonic()
        timed("add", lambda: items.add_resolution("16:f16", index=True, storage="side"))
        items.create_funnel("f", f"16:f16@200 > {WIDE}:f32", replace=True)
        timed(
            "backfill",
            lambda: items.backfill(on_step=lambda s: steps.append(s.statement or s.state or "")),
        )
        before_drop = len(probes["reader"].taken)
        while len(probes["reader"].taken) < before_drop + 50:  # it is in use
            time.sleep(0.01)
        items.create_funnel("f", f"{WIDE}:f32", replace=True)
        timed("drop", lambda: items.drop_resolution("16:f16"))
        total = time.monotonic() - began
    assert {"filling", "sweeping"} <= {*steps} and sum("create index" in s for s in steps) == 1
    for name, probe in probes.items():
        lines.append(
            f"{name}: {len(probe.taken)} statements, longest {max(probe.taken):.3f} s,"
            f" of it at most {waits.longest[name]:.3f} s for a lock"
        )
    print(
        f"\n{total:.1f} s in all ({', '.join(f'{k} {v:.1f} s' for k, v in took.items())})",
        *lines,
        sep="\n",
    )
    assert waits.looks > 100 and all(len(probe.taken) > 100 for probe in probes.values())
    # A writer waits for the end of a batch that holds its row: 0.2 s where the machine is idle. A
    # reader waits for the moment of a catalogue change. Whoever waits for a build, a fill or a queue
    # behind them waits for most of the time. The quarter grows with the load of the machine.
    assert max(waits.longest.values()) < max(1.0, total / 4), lines
