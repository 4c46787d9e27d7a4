"""What a comparison stands on: a schema of its own, loaded tables, timed builds, open lanes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from funnelvec import entry
from funnelvec.bench.contestants import FILTER_COLUMN, FUNNEL_TABLE, PLAIN_TABLE, Contestant
from funnelvec.bench.data import Dataset
from funnelvec.bench.mapping import Mapper
from funnelvec.errors import CapabilityError, EngineError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import psycopg

    from funnelvec.engines.postgres.sync import PostgresEngine

    Connection = psycopg.Connection[Any]

__all__ = [
    "Lane",
    "Runner",
    "Sizes",
    "build",
    "connected",
    "hosted",
    "load",
    "open_lane",
    "remove",
    "workspace",
]

Say = Callable[[str], None]

_MB = 1 << 20
# What a vector of the base column, its index entry and its neighbours take, times its numbers.
_CACHE_FACTOR, _BUILD_FACTOR = 6, 1.5
_GEXEC = r" \gexec"
_SERIAL = "shared memory is small here, so indexes are built without parallel workers"


@contextlib.contextmanager
def hosted(dataset: Dataset, *, tables: int = 2) -> Iterator[str]:
    """Run a server for this data in a temporary folder, with room to keep all of it in memory.

    It may lose data in a crash (``fsync`` is off): nothing here outlives the run, and it lets
    builds be timed without waiting for a disk.
    """
    wanted = 256 * _MB + _CACHE_FACTOR // 2 * tables * dataset.rows.nbytes
    settings: dict[str, str | bool] = {
        "shared_buffers": f"{_capped(wanted, 0.4)}MB",
        "fsync": False,
        "full_page_writes": False,
        "synchronous_commit": False,
        "autovacuum": False,  # tables are vacuumed when they are ready, not while they are measured
        "max_wal_size": "8GB",
    }
    with (
        tempfile.TemporaryDirectory(prefix="funnelvec-bench-") as folder,
        entry.connect(f"pg-embedded:{folder}", settings=settings) as engine,
    ):
        server = _postgres(engine).server
        assert server is not None  # an embedded engine has one
        yield server.url()


def _capped(wanted: float, share: float) -> int:
    """Megabytes, at most this share of the machine's memory."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted = min(wanted, memory * share)
    return max(64, round(wanted / _MB))


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Open a connection to a Postgres with funnelvec; errors of the driver become ours."""
    with entry.connect(url) as engine, _postgres(engine).connection() as connection:
        yield connection


def _postgres(engine: object) -> PostgresEngine:
    from funnelvec.engines.postgres.sync import PostgresEngine

    if not isinstance(engine, PostgresEngine):
        raise CapabilityError(
            "this benchmark runs on Postgres: give it a postgresql:// or pg-embedded: URL, or none "
            "for a server of its own; bench qdrant measures on Qdrant"
        )
    return engine


@contextlib.contextmanager
def workspace(connection: Connection) -> Iterator[str]:
    """Make a schema for the tables of one run, and remove it and all traces of it at the end."""
    schema = f"funnelvec_bench_{secrets.token_hex(4)}"
    connection.execute(f"create schema {schema}")
    try:
        connection.execute(
            f"comment on schema {schema} is 'left by funnelvec bench; may be dropped'"
        )
        yield schema
    finally:
        for registry in ("funnels", "resolutions", "calibrations", "loads", "rotations", "windows"):
            connection.execute(
                f"delete from funnelvec.{registry} where table_name in ("
                "select oid::regclass from pg_class where relnamespace = %s::regnamespace)",
                [schema],
            )
        connection.execute("set client_min_messages = warning")
        connection.execute(f"drop schema {schema} cascade")


def load(
    url: str,
    connection: Connection,
    schema: str,
    dataset: Dataset,
    *,
    tables: Sequence[str] = (FUNNEL_TABLE,),
) -> float:
    """Load all tables alike; ids are row numbers, and one column is there to filter by.

    Returns
    -------
    Seconds of loading the first table, by COPY; the others are copied from it.
    """
    columns = {FILTER_COLUMN: [row % 100 for row in range(len(dataset.rows))]}
    with entry.connect(url) as engine:
        table = engine.create(
            f"{schema}.{PLAIN_TABLE}", dims=dataset.dims, columns={FILTER_COLUMN: "integer"}
        )
        started = time.perf_counter()
        table.add(range(len(dataset.rows)), dataset.rows, columns=columns)
        seconds = time.perf_counter() - started
        for name in tables:
            engine.create(f"{schema}.{name}", dims=dataset.dims, columns={FILTER_COLUMN: "integer"})
    for name in tables:
        connection.execute(
            f"insert into {schema}.{name} select * from {schema}.{PLAIN_TABLE} order by id"
        )
    for name in (PLAIN_TABLE, *tables):
        connection.execute(f"vacuum analyze {schema}.{name}")
    return seconds


def remove(connection: Connection, contestant: Contestant) -> None:
    """Remove what a contestant has built, so that it can be built again."""
    for statement in contestant.undo:
        connection.execute(statement)


def build(
    connection: Connection,
    schema: str,
    contestants: Sequence[Contestant],
    *,
    dataset: Dataset,
    builds: int,
    say: Say,
) -> tuple[dict[tuple[str, ...], tuple[float, ...]], list[str]]:
    """Make every index, one after the other; seconds per distinct build, and notes on them.

    Every core builds, for all alike. Left alone, Postgres counts the pages of the table itself,
    and wide vectors are not in there, so that it would build over them with one core.
    """
    memory = _capped(64 * _MB + _BUILD_FACTOR * dataset.rows.nbytes, 0.25)
    connection.execute("select set_config('maintenance_work_mem', %s, false)", [f"{memory}MB"])
    notes: list[str] = []
    workers = _workers(connection, memory, notes)
    tables = {contestant.table for contestant in contestants}
    for name in tables:
        connection.execute(f"alter table {schema}.{name} set (parallel_workers = {workers})")

    def noticed(diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized in ("NOTICE", "WARNING"):
            notes.append(f"{contestant.name}: {diagnostic.message_primary}")

    seconds: dict[tuple[str, ...], tuple[float, ...]] = {}
    connection.add_notice_handler(noticed)
    try:
        for contestant in contestants:
            if not contestant.build or contestant.build in seconds:
                continue
            say(f"building {contestant.name}")
            each = []
            for turn in range(builds):
                if turn:
                    _run(connection, contestant.undo, notes)
                each.append(_run(connection, contestant.build, notes))
            connection.execute(f"vacuum analyze {schema}.{contestant.table}")
            seconds[contestant.build] = tuple(each)
    finally:
        connection.remove_notice_handler(noticed)
    # Workers were for the builds; how searches are planned is up to Postgres.
    for name in tables:
        connection.execute(f"alter table {schema}.{name} reset (parallel_workers)")
    return seconds, list(dict.fromkeys(notes))


def _workers(connection: Connection, memory: int, notes: list[str]) -> int:
    """How many workers a build gets beside the leader: the other cores, where this can be known.

    They share their memory (this many megabytes) in /dev/shm, and containers often have 64 MB of
    it: then nobody gets any.
    """
    row = connection.execute(
        "select inet_server_addr() is null,"
        "       current_setting('max_parallel_maintenance_workers')::integer"
    ).fetchone()
    assert row is not None  # no table is asked
    on_this_machine, workers = bool(row[0]), int(row[1])
    if on_this_machine:
        workers = min(workers, (os.cpu_count() or 1) - 1)
        shared = Path("/dev/shm")
        if workers and shared.is_dir() and shutil.disk_usage(shared).free < (memory + 32) * _MB:
            workers = 0
            notes.append(_SERIAL)
    connection.execute(f"set max_parallel_maintenance_workers = {workers}")
    return workers


def _run(connection: Connection, statements: Sequence[str], notes: list[str]) -> float:
    started = time.perf_counter()
    for statement in statements:
        began = time.perf_counter()
        try:
            _execute(connection, statement)
        except Exception as error:
            # disk_full: /dev/shm is too small, on a machine where we could not look.
            if getattr(error, "sqlstate", None) != "53100":
                raise
            connection.execute("set max_parallel_maintenance_workers = 0")
            started += time.perf_counter() - began
            _execute(connection, statement)
            notes.append(_SERIAL)
    return time.perf_counter() - started


def _execute(connection: Connection, statement: str) -> None:
    """Run a statement; what ends in ``\\gexec`` as psql does, until it gives nothing."""
    if not statement.endswith(_GEXEC):
        connection.execute(statement)
        return
    connection.execute("set client_min_messages = warning")  # it tells its progress by notices
    while True:
        row = connection.execute(statement.removesuffix(_GEXEC)).fetchone()
        if row is None or row[0] is None:
            break
        connection.execute(row[0])
    connection.execute("reset client_min_messages")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a contestant: its indexes beside the primary key, and all of its table."""

    index: int
    total: int


class Runner(Protocol):
    """A contestant that answers: over a connection, or in this process."""

    @property
    def contestant(self) -> Contestant:
        """Who it is."""

    def search(self, query: Any) -> list[tuple[Any, ...]]:
        """Run one search; the first column of its rows is the number of a row."""

    def sizes(self, schema: str) -> Sizes:
        """Measure what it keeps."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A contestant on its own connection, ready to run; it may map queries first."""

    contestant: Contestant
    connection: Connection
    cursor: psycopg.Cursor[Any]
    k: int
    mapper: Mapper | None = None

    def search(self, query: object) -> list[tuple[Any, ...]]:
        """Run one search, over the connection and back; `query` comes from `parameters`."""
        given = self.given(query)
        return self.cursor.execute(self.contestant.statement, given, prepare=True).fetchall()

    def given(self, query: object) -> dict[str, Any]:
        """The parameters of its statement."""
        given = {"query": query, "k": self.k}
        if self.mapper is not None:
            given |= self.mapper.parameters(query)
        return given

    def change(self, name: str, value: str) -> None:
        """Change a setting of the connection."""
        self.connection.execute("select set_config(%s, %s, false)", [name, value])

    def sizes(self, schema: str) -> Sizes:
        """Measure what it keeps on disk; another's indexes on the same table do not count."""
        contestant = self.contestant
        row = self.connection.execute(
            "select sum(pg_total_relation_size(t) - pg_indexes_size(t) +"
            "           (select coalesce(sum(pg_relation_size(p.indexrelid)), 0)"
            "              from pg_index p where p.indrelid = t and p.indisprimary))::bigint,"
            "       sum((select coalesce(sum(pg_relation_size(c.oid)), 0)"
            "              from pg_index i join pg_class c on c.oid = i.indexrelid"
            "             where i.indrelid = t and not i.indisprimary"
            "               and (%(own)s::text[] = '{}' or c.relname = any (%(own)s))))::bigint"
            "  from unnest(%(tables)s::text[]::regclass[]) as t",
            {
                "tables": [f"{schema}.{name}" for name in (contestant.table, *contestant.beside)],
                "own": list(contestant.indexes),
            },
        ).fetchone()
        assert row is not None  # an aggregate
        tables, indexes = row
        index = indexes if contestant.index else 0
        return Sizes(index, tables + index)


@contextlib.contextmanager
def open_lane(url: str, contestant: Contestant, *, k: int) -> Iterator[Lane]:
    """Connect for one contestant, with its settings."""
    with connected(url) as connection:
        lane = Lane(contestant, connection, binary_cursor(connection), k)
        for name, value in contestant.settings:
            lane.change(name, value)
        yield lane


def binary_cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """A cursor that sends vectors as binary values of their type, and gets rows back in binary."""
    from funnelvec.engines.postgres.adapt import VectorParameter, vector_dumper

    row = connection.execute("select 'vector'::regtype::oid").fetchone()
    assert row is not None  # or the cast has failed
    cursor = connection.cursor(binary=True)
    cursor.adapters.register_dumper(VectorParameter, vector_dumper(row[0]))
    return cursor


def parameters(queries: npt.NDArray[np.float32]) -> list[Any]:
    """The queries (m, d) as `Lane.search` takes them."""
    from funnelvec.engines.postgres.adapt import VectorParameter

    return [VectorParameter(query) for query in queries]


def check_plan(lane: Lane, query: object) -> None:
    """Make sure that a contestant is what it says: with its index, or without any.

    Raises
    ------
    EngineError
        If the planner does something else; its figures would mean nothing.
    """
    contestant = lane.contestant
    if contestant.ours:
        return  # its plan is inside the function; see the report's access
    # Not prepared: the plan is asked for this query, and the lane's own statement stays as it is.
    row = lane.cursor.execute(
        f"explain (format json) {contestant.statement}",
        {"query": query, "k": lane.k},
        prepare=False,
    ).fetchone()
    used = "Index Name" in str(row)
    if used != contestant.index:
        raise EngineError(
            f"{contestant.name} {'uses an' if used else 'does not use its'} index on this server; "
            "its figures would mean nothing"
        )
