"""The server is killed while eight connections write and search: nothing is lost, nothing is wrong.

One server of this file's own, killed and started again by each test. See `live` for what is checked.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import funnelvec as fv
from funnelvec import errors
from funnelvec.engines.postgres import cluster
from funnelvec.engines.postgres.embedded import EmbeddedServer
from tests import databases
from tests.sql import live as living
from tests.sql import side
from tests.sql.live import ALL, DIMS, QUIET, Live, create_funnel, wait_until

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.slow

#: The processes die, the machine does not: what they wrote is there without waiting for the disk.
#: A page that was being written may be torn all the same, and a commit must not be answered early.
#: Autovacuum comes as often as it can, as on a busy server.
SETTINGS = {
    **databases.FAST,
    "synchronous_commit": True,
    "full_page_writes": True,
    "autovacuum": True,
    "autovacuum_naptime": "1s",
}
CLIENTS = 8
LOADED = 1_000_000


@dataclass
class Killable:
    """A server that may be killed, and comes back at the same address."""

    folder: Path
    version: int
    server: EmbeddedServer

    @classmethod
    def start(cls, folder: Path, version: int) -> Killable:
        server = EmbeddedServer.start(folder, postgres_version=version, settings=SETTINGS)
        return cls(folder, version, server)

    def kill(self) -> None:
        """Kill the server and all that it has started."""
        living.kill_server(self.folder)

    def restart(self) -> None:
        """Start it again where it does not run, and wait until it has recovered."""
        if cluster.postmaster(self.folder / "data") is not None:
            return
        self.server.stop()
        self.server = EmbeddedServer.start(
            self.folder, postgres_version=self.version, settings=SETTINGS
        )


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[tuple[Killable, databases.Server]]:
    if request.config.getoption("--pg-dsn"):
        pytest.skip("kills its server, so it starts one of its own")
    # Not tmp_path: pytest closes its parents to the server's user again.
    with tempfile.TemporaryDirectory(prefix="funnelvec-crash-") as name:
        Path(name).chmod(0o711)
        killable = Killable.start(Path(name) / "server", request.config.getoption("--pg-version"))
        try:
            mode = request.config.getoption("--install-mode")
            server = databases.embedded_server(killable.server, install_mode=mode, run_id="crash")
            databases.prepare(server)
            yield killable, server
        finally:
            killable.server.stop()


class Scene:
    """What a moment needs: the table in use, and the way to kill its server."""

    def __init__(self, killable: Killable, url: str) -> None:
        self.killable = killable
        self.url = url
        self.live = Live(url, CLIENTS)

    def connect(self) -> Connection:
        return psycopg.connect(self.url, autocommit=True)

    @contextlib.contextmanager
    def left_open(self) -> Iterator[Connection]:
        """A connection whose transaction is open when the server is killed."""
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill it in the middle of what the clients do."""
        self.live.up.clear()
        self.live.kills += 1
        self.killable.kill()

    def come_back(self) -> None:
        """Start the server again; the clients connect again and go on."""
        self.killable.restart()
        self.live.up.set()

    def add_side(self, *, m: int = 8, ef_construction: int = 32) -> None:
        """Begin to adopt ``8:f16`` as a side table; the funnels that want it wait for it."""
        with self.connect() as owner:
            side.run(
                owner,
                "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side',"
                f" index => true, m => {m}, ef_construction => {ef_construction})",
            )
            create_funnel(owner, "live", f"8:f16@300 > {DIMS}:f32")
            create_funnel(owner, "whole", f"8:f16@{ALL} > {DIMS}:f32")
            self.live.funnels.append("whole")

    def backfill(self, **options: Any) -> None:
        with fv.connect(self.url) as engine:
            engine.table("items", vector="emb").backfill(**options)

    def backfill_until_killed(self, **options: Any) -> None:
        with pytest.raises(errors.EngineError):
            self.backfill(**options)
        assert self.live.kills, "the backfill failed before anything was killed"

    def in_thread(self, act: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                act()
            except BaseException as error:
                self.live.faults.append(f"{act}: {error!r}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def wait_for(self, query: str) -> None:
        """Wait until a query finds something."""
        with psycopg.connect(self.url.replace("app_owner", "postgres"), autocommit=True) as admin:
            wait_until(lambda: admin.execute(query.encode()).fetchone() is not None, query)


def while_filling_between_batches(scene: Scene) -> None:
    scene.add_side()
    steps: list[Any] = []

    def told(step: Any) -> None:
        steps.append(step)
        if len(steps) == 5:
            scene.kill()

    scene.backfill_until_killed(batch=150, on_step=told)
    assert steps[-1].state == "filling"


def while_filling_within_a_batch(scene: Scene) -> None:
    """A batch stands in the middle: the code of one row waits for a lock of ours."""
    scene.add_side()
    with scene.left_open() as owner:
        owner.execute(
            "create function stand() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$"
        )
        side.run(
            owner,
            f"create trigger stand before insert on items_emb_8_f16 for each row when (new.id = {QUIET})"
            " execute function stand()",
        )
        owner.execute("select pg_advisory_lock(1)")
        filling = scene.in_thread(lambda: scene.backfill_until_killed(batch=250))
        scene.wait_for("select from pg_locks where locktype = 'advisory' and not granted")
        scene.kill()
        filling.join()


def while_building_the_index(scene: Scene) -> None:
    scene.add_side(m=24, ef_construction=300)
    building = scene.in_thread(scene.backfill_until_killed)
    scene.wait_for(
        "select from pg_stat_progress_create_index where phase like 'building index%' and tuples_done > 50"
    )
    scene.kill()
    building.join()


def while_the_index_waits_for_old_snapshots(scene: Scene) -> None:
    """The index is built and filled, but not valid yet."""
    scene.add_side()
    with scene.left_open() as holder:
        building = scene.in_thread(scene.backfill_until_killed)
        # One that began before the build's last look at the rows, and after its first waits.
        scene.wait_for("select from pg_stat_progress_create_index")
        holder.execute("begin isolation level repeatable read")
        holder.execute("select count(*) from items")
        scene.wait_for(
            "select from pg_stat_activity where query like 'create index concurrently%' and wait_event_type = 'Lock'"
        )
        scene.live.let_them_work(3)
        scene.kill()
        building.join()


def while_switching_over(scene: Scene) -> None:
    """`activate` has done all it does, and is not committed."""
    scene.add_side()

    def told(step: Any) -> None:
        if step.statement is not None and "activate" in step.statement:
            with scene.left_open() as owner:
                owner.execute("begin")
                owner.execute(step.statement.encode())
                scene.live.let_them_work(5)  # nobody waits for it, and nobody sees it
                scene.kill()

    scene.backfill_until_killed(on_step=told)


def while_loading(scene: Scene, *, between: bool) -> None:
    scene.add_side()
    scene.backfill()
    rows = {LOADED + i: living.new_row("loaded") for i in range(300)}
    scene.live.record_possible(rows)
    given = [
        {"id": i, "emb": living.vector_of(row.version), "part": i % CLIENTS,
         "version": row.version, "note": row.note}
        for i, row in rows.items()
    ]  # fmt: skip

    def source() -> Iterator[Any]:
        for number, row in enumerate(given):
            if between and number == 250 and scene.live.kills == 0:
                scene.live.let_them_work(3)
                scene.kill()
            yield row

    def told(done: int, total: int) -> None:
        if not between and done > 150 and scene.live.kills == 0:
            scene.live.let_them_work(3)
            scene.kill()

    def load() -> Any:
        with fv.connect(scene.url) as engine:
            table = engine.table("items", vector="emb")
            return table.load(source(), batch_size=100, resume="rows", progress=told)

    with pytest.raises(errors.EngineError):
        load()
    scene.come_back()
    report = load()
    assert 100 <= report.skipped < 300 and report.skipped + report.rows == 300


def while_dropping(scene: Scene) -> None:
    """The side table is dropped and its triggers are, but that is not committed."""
    scene.add_side()
    scene.backfill()
    with scene.left_open() as owner:
        scene.live.let_them_work(3)
        for name, keep in (("live", 300), ("whole", ALL)):
            create_funnel(owner, name, f"16:bit@{keep} > {DIMS}:f32")
        drop = "select funnelvec.drop_resolution('items', 'emb', '8:f16')"
        owner.execute("begin")
        side.run(owner, drop)
        scene.wait_for(f"select from pg_locks where not granted having count(*) >= {CLIENTS // 2}")
        scene.kill()
    scene.come_back()
    with scene.connect() as owner:
        assert (
            side.one(owner, "select state from funnelvec.resolutions where storage = 'side'")
            == "ready"
        )
        scene.live.let_them_work(5)  # with the triggers that are there again
        assert side.one(owner, "select count(*) from items_emb_8_f16") > 0
        side.run(owner, drop)
        assert side.one(owner, "select to_regclass('items_emb_8_f16')") is None
        left = "select count(*) from pg_trigger where tgrelid = 'items'::regclass"
        assert side.one(owner, left) == 0


def while_loading_between_batches(scene: Scene) -> None:
    while_loading(scene, between=True)


def while_loading_within_a_batch(scene: Scene) -> None:
    while_loading(scene, between=False)


MOMENTS = (
    while_filling_between_batches,
    while_filling_within_a_batch,
    while_building_the_index,
    while_the_index_waits_for_old_snapshots,
    while_switching_over,
    while_loading_between_batches,
    while_loading_within_a_batch,
    while_dropping,
)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_killed(
    machine: tuple[Killable, databases.Server], moment: Callable[[Scene], None]
) -> None:
    killable, server = machine
    name = databases.new_name(server)
    with databases.connected(server.url()) as admin:
        databases.create_database(admin, name, template=server.template("funnelvec"))
    database = databases.Database(server, name)
    scene = Scene(killable, database.owner_url)
    with scene.connect() as owner:
        scene.live.make(owner)
    try:
        with scene.live.in_use():
            scene.live.let_them_work(3)
            moment(scene)
            if not scene.live.up.is_set():
                scene.come_back()
            scene.backfill()
            scene.live.let_them_work(5)  # after all is done
    finally:
        if scene.live.kills:
            killable.restart()
    assert scene.live.kills == 1
    with scene.connect() as owner:
        scene.live.verify(owner)
        dropped = moment is while_dropping
        assert side.one(owner, "select to_regclass('items_emb_8_f16') is null") == dropped
    print(moment.__name__, dict(scene.live.counts))
    with databases.connected(server.url()) as admin:
        databases.drop_database(admin, name)


def test_autovacuum_does_not_stop_an_adoption(machine: tuple[Killable, databases.Server]) -> None:
    """It is at work on the side table while an index that a stopped build left there is dropped."""
    _, server = machine
    name = databases.new_name(server)
    with databases.connected(server.url()) as admin:
        databases.create_database(admin, name, template=server.template("funnelvec"))
    database = databases.Database(server, name)
    with (
        databases.connected(database.superuser_url) as admin,
        databases.connected(database.owner_url) as owner,
    ):
        Live(database.owner_url, CLIENTS).make(owner)
        side.run(
            owner,
            "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side', index => true)",
        )
        side.run(owner, "call funnelvec.backfill('items')")
        build = side.one(owner, "select funnelvec.next_step('items')")
        with psycopg.connect(database.owner_url) as holder:
            side.run(holder, "delete from items_emb_8_f16 where id = -1")
            owner.execute("set lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                side.run(owner, build)
            owner.execute("reset lock_timeout")
        side.run(owner, "update items set emb = emb, note = 'dead'")
        side.run(owner, "delete from items_emb_8_f16 where id % 2 = 0")
        side.run(
            owner,
            "alter table items_emb_8_f16 set (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
        )
        at_work = (
            "select l.pid from pg_locks as l join pg_stat_activity as a using (pid) where l.granted"
            " and l.relation = 'items_emb_8_f16'::regclass and l.mode = 'ShareUpdateExclusiveLock'"
            " and a.backend_type = 'autovacuum worker'"
        )
        wait_until(
            lambda: admin.execute(at_work.encode()).fetchone() is not None, "autovacuum is at work"
        )
        assert side.one(owner, "select funnelvec.next_step('items')").startswith(
            "drop index concurrently"
        )
        side.run(owner, side.one(owner, "select funnelvec.next_step('items')"))
        assert side.one(owner, "select funnelvec.next_step('items')") == build
