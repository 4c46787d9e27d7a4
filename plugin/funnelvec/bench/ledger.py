"""Tables to write to, each with its codes kept in another way, and what each write has cost.

Costs are counted inside the transaction that writes: time, bytes of WAL, and updates that were HOT,
by `pg_stat_xact_all_tables`, which has the numbers of this transaction alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.bench.stage import binary_cursor, parameters

if TYPE_CHECKING:
    import psycopg

    from funnelvec.engines.postgres.sync import PostgresEngine

    Connection = psycopg.Connection[Any]

__all__ = [
    "DELETE",
    "EMBEDDING",
    "INSERT",
    "OPERATIONS",
    "OTHER",
    "SHAPES",
    "Cost",
    "Kept",
    "Ledger",
    "Work",
]

INSERT, OTHER = "insert", "update of another column"
EMBEDDING, DELETE = "update of the embedding", "delete"
OPERATIONS = (INSERT, OTHER, EMBEDDING, DELETE)
#: Statements of one row each, sent one after the other, and one statement for all of them.
SHAPES = ("row by row", "one statement")
_ROW, _ALL = SHAPES

_FRESH = "fresh"
_SOURCE = "source"
#: pgvector indexes `vector` up to so many dimensions.
_WIDEST = 2_000


@dataclass(frozen=True, slots=True)
class Kept:
    """One way to keep codes.

    Attributes
    ----------
    storage
        ``"column"``, ``"side"``, or empty where there are no codes.
    index
        What an HNSW index is over: ``"codes"``, ``"base"`` (the wide vectors), or nothing.
    touched
        Whether a trigger of the user's runs before a row is written, of which nobody can tell that
        it leaves the vector alone.
    """

    name: str
    storage: str = ""
    index: str = ""
    fillfactor: int = 100
    touched: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """Rows that one transaction writes: their ids, and where their new vectors stand in `fresh`."""

    operation: str
    shape: str
    ids: tuple[int, ...]
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one transaction has cost; `updated` counts the updates among its `rows`."""

    rows: int
    seconds: float
    wal: int
    updated: int
    hot: int

    @property
    def row_us(self) -> float:
        """Microseconds per row."""
        return 1e6 * self.seconds / self.rows


class Ledger:
    """One table per contestant, filled alike; `write` does some work on one and says its cost."""

    def __init__(self, engine: PostgresEngine, connection: Connection, schema: str) -> None:
        self._engine, self._connection, self._schema = engine, connection, schema
        self._fresh: list[Any] = []
        self._tables: dict[Kept, str] = {}
        self._cursor = binary_cursor(connection)
        # Every statement of every table stays prepared.
        connection.prepared_max = 10_000
        # Rows are looked up by key whatever the planner thinks of tables of this size.
        for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
            connection.execute(f"set {setting} = off")

    def stock(self, vectors: npt.NDArray[np.float32]) -> None:
        """Store what all tables are filled with, (n, d), and make the table of new vectors."""
        source: Any = self._engine.create(f"{self._schema}.{_SOURCE}", dims=vectors.shape[1])
        source.add(range(len(vectors)), vectors)
        self._connection.execute(
            f"create table {self._schema}.{_FRESH} (slot integer primary key, embedding vector)"
        )
        self._connection.execute(
            f"create function {self._schema}.touch() returns trigger language plpgsql"
            " as 'declare at timestamptz; begin at := now(); new.updated_at := at; return new; end'"
        )

    def refresh(self, vectors: npt.NDArray[np.float32]) -> None:
        """Hand in new vectors (n, d), which `Work.slot` counts through."""
        name = f"{self._schema}.{_FRESH}"
        self._fresh = parameters(vectors)
        self._connection.execute(f"truncate {name}")
        for slot, vector in enumerate(self._fresh):
            self._cursor.execute(f"insert into {name} values (%s, %s)", (slot, vector))
        self._connection.execute(f"analyze {name}")

    def open(self, kept: Kept, *, resolution: str, dims: int) -> None:
        """Make, fill and index a contestant's table; no autovacuum falls into a measurement."""
        run = self._connection.execute
        name = f"{self._schema}.kept_{len(self._tables)}"
        run(
            f"create table {name} (id bigint primary key, price double precision not null,"
            f" name text not null, updated_at timestamptz, embedding vector({dims}))"
            f" with (fillfactor = {kept.fillfactor}, autovacuum_enabled = false)"
        )
        run(
            f"insert into {name} select id, id % 100, 'product number ' || id, now(), embedding"
            f" from {self._schema}.{_SOURCE} order by id"
        )
        if kept.touched:
            run(
                f"create trigger touch before update on {name} for each row"
                f" execute function {self._schema}.touch()"
            )
        if kept.storage:
            table: Any = self._engine.table(name, vector="embedding")
            table.add_resolution(resolution, storage=kept.storage, index=kept.index == "codes")
            if kept.storage == "side":
                table.backfill()
                found = run(
                    "select side_table::text from funnelvec.resolutions"
                    " where table_name = %s::regclass",
                    [name],
                ).fetchone()
                assert found is not None  # it was added just now
                run(f"alter table {found[0]} set (autovacuum_enabled = false)")
        if kept.index == "base":
            what = (
                "embedding vector_cosine_ops"
                if dims <= _WIDEST
                else f"(embedding::halfvec({dims})) halfvec_cosine_ops"
            )
            run(f"create index on {name} using hnsw ({what})")
        self._tables[kept] = name

    def vacuum(self) -> None:
        """Vacuum and analyze every table, side tables too."""
        for (name,) in self._connection.execute(
            "select oid::regclass::text from pg_class where relkind = 'r'"
            " and relnamespace = %s::regnamespace order by oid",
            [self._schema],
        ).fetchall():
            self._connection.execute(f"vacuum analyze {name}")

    def write(self, kept: Kept, work: Work) -> Cost:
        """Do the work on the table of a contestant, in a transaction of its own."""
        name = self._tables[kept]
        statement, batches = self._statement(name, work), self._batches(work)
        execute = self._cursor.execute
        with self._connection.transaction():
            before = self._counters(name)
            started = time.perf_counter()
            for batch in batches:
                execute(statement, batch, prepare=True)
            seconds = time.perf_counter() - started
            after = self._counters(name)
            started = time.perf_counter()
        seconds += time.perf_counter() - started
        wal, updated, hot = (b - a for a, b in zip(before, after, strict=True))
        return Cost(len(work.ids), seconds, wal, updated, hot)

    def _counters(self, name: str) -> tuple[int, int, int]:
        row = self._connection.execute(
            "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,"
            " n_tup_upd, n_tup_hot_upd from pg_stat_xact_all_tables where relid = %s::regclass",
            [name],
        ).fetchone()
        assert row is not None  # the table is there
        return row[0], row[1], row[2]

    def _statement(self, name: str, work: Work) -> str:
        fresh = f"{self._schema}.{_FRESH}"
        ids = "(%(ids)s::bigint[])[f.slot - %(slot)s + 1]"
        mine = "f.slot between %(slot)s and %(last)s"
        return {
            (INSERT, _ROW): f"insert into {name} (id, price, name, embedding)"
            " values (%(id)s, 1, 'a new product', %(vector)s)",
            (INSERT, _ALL): f"insert into {name} (id, price, name, embedding)"
            f" select {ids}, 1, 'a new product', f.embedding from {fresh} f where {mine}",
            (OTHER, _ROW): f"update {name} set price = price + 1 where id = %(id)s",
            (OTHER, _ALL): f"update {name} set price = price + 1"
            " where id = any (%(ids)s::bigint[])",
            (EMBEDDING, _ROW): f"update {name} set embedding = %(vector)s where id = %(id)s",
            (EMBEDDING, _ALL): f"update {name} t set embedding = f.embedding"
            f" from {fresh} f where {mine} and t.id = {ids}",
            (DELETE, _ROW): f"delete from {name} where id = %(id)s",
            (DELETE, _ALL): f"delete from {name} where id = any (%(ids)s::bigint[])",
        }[work.operation, work.shape]

    def _batches(self, work: Work) -> Sequence[dict[str, Any]]:
        if work.shape == _ALL:
            last = work.slot + len(work.ids) - 1
            return [{"ids": list(work.ids), "slot": work.slot, "last": last}]
        needs_vectors = work.operation in (INSERT, EMBEDDING)
        return [
            {"id": each, "vector": self._fresh[work.slot + i] if needs_vectors else None}
            for i, each in enumerate(work.ids)
        ]
