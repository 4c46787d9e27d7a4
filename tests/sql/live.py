"""A table in use: connections that insert, update, delete and search, and a ledger of what they did.

Every version of every row has a vector of its own, so the score of a hit tells which version the
search has seen. The ledger knows from when on and until when a version may have been visible, and
between which moments it certainly was. A search is right if each hit is a version that was alive
while it ran, with its score; if it has as many hits as were asked for; and, where the funnel keeps
every row, if no row is missing that would have come before the last hit.

A commit whose answer never came may have happened or not: whoever sent it looks it up afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil
import psycopg
from psycopg import sql

import funnelvec as fv
from tests.sql import side
from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

DIMS = 16
ROWS = 900
#: A row that is there from the beginning and that nobody writes.
QUIET = 601
#: Enough for every row there can be: with it a funnel is exact, and a missing code is a missing hit.
ALL = 100_000
K = 10

_VERSIONS = itertools.count()
_now = time.monotonic


@dataclass(frozen=True, slots=True)
class Row:
    """What a row holds; its version stands for its vector, which a blank one has not."""

    version: int
    note: str
    blank: bool = False

    @property
    def emb(self) -> str | None:
        return None if self.blank else text(vector_of(self.version))


@dataclass(slots=True)
class Spell:
    """The time in which a row was in one state: the earliest beginning, the certain one, the ends."""

    row: Row | None
    may_begin: float
    sure_begin: float = inf
    sure_end: float = inf
    may_end: float = inf


@functools.cache
def vector_of(version: int) -> npt.NDArray[np.float32]:
    """(16,) float32."""
    return vectors(1, seed=version, dims=DIMS)[0]


@functools.cache
def _direction(version: int) -> npt.NDArray[np.float64]:
    vector = vector_of(version).astype(np.float64)
    return vector / np.linalg.norm(vector)


def new_row(note: str = "new", *, blank: bool = False) -> Row:
    """A row with a vector that no other version has."""
    return Row(next(_VERSIONS), note, blank)


class Live:
    """A table ``items`` in use, from `start` to `finish`."""

    def __init__(self, url: str, writers: int) -> None:
        self.url = url
        self.writers = writers
        self.history: dict[int, list[Spell]] = {}
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.kills = 0
        #: What the clients search by: one name a time, drawn at random.
        self.funnels = ["live", "live", "signs", "exact"]
        self.up = threading.Event()
        self.up.set()
        self.stopped = threading.Event()
        self._threads: list[Client] = []
        self._ids = itertools.count(ROWS)

    # -- the table ------------------------------------------------------------------------------

    def make(self, connection: Connection, rows: int = ROWS) -> None:
        """Create the table: rows with and without a vector, a code in a column, one in none."""
        side.run(
            connection,
            f"create table items (id bigint primary key, part integer, emb vector({DIMS}),"
            " version integer, note text)",
        )
        first = {i: new_row("old", blank=i % 17 == 3 and i != QUIET) for i in range(rows)}
        with connection.cursor() as cursor, cursor.copy("copy items from stdin") as copy:
            for i, row in first.items():
                copy.write_row((i, i % self.writers, row.emb, row.version, row.note))
        self.record_sure(first)
        side.run(
            connection, "select funnelvec.add_resolution('items', 'emb', '16:bit', index => true)"
        )
        for name, funnel in (
            ("live", f"16:bit@300 > {DIMS}:f32"),
            ("signs", f"16:bit@300 > {DIMS}:f32"),
            ("exact", f"{DIMS}:f32"),
        ):
            create_funnel(connection, name, funnel)

    def record_sure(self, rows: Mapping[int, Row]) -> None:
        """Enter rows that are committed already."""
        for i, row in rows.items():
            self.history[i] = [Spell(row, -inf, _now())]

    def record_possible(self, rows: Mapping[int, Row]) -> None:
        """Enter rows that somebody is about to write; they are never certain while the table is in use."""
        for i, row in rows.items():
            self.history[i] = [Spell(row, _now())]

    def expected_rows(self) -> dict[int, Row]:
        """Every row as it has to be now that nobody writes."""
        last = {i: spells[-1].row for i, spells in self.history.items() if spells}
        return {i: row for i, row in last.items() if row is not None}

    # -- who uses it ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self, *, searching: int = 0, pool: Any = None) -> Iterator[Live]:
        """Clients that write and search, and others that only search, until the block ends.

        Of those that only search, every other one takes its connections from the pool.
        """
        self._threads = [
            Client(
                self,
                number,
                writes=number < self.writers,
                pool=pool if number >= self.writers and number % 2 else None,
            )
            for number in range(self.writers + searching)
        ]
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            self.up.set()
            for thread in self._threads:
                thread.join()
        self.raise_faults()

    def raise_faults(self) -> None:
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:5]])

    def let_them_work(self, steps: int) -> None:
        """Return when every client has taken so many steps from now on."""
        goals = [(thread, thread.steps + steps) for thread in self._threads]
        wait_until(
            lambda: bool(self.faults) or all(thread.steps >= goal for thread, goal in goals),
            "every client works",
        )
        self.raise_faults()

    # -- what is right --------------------------------------------------------------------------

    def check_answer(
        self,
        hits: Sequence[tuple[int, float]],
        query: npt.NDArray[np.float32],
        began: float,
        ended: float,
        *,
        part: int | None = None,
        complete: bool = False,
    ) -> str | None:
        """Return what is wrong with an answer that came between two moments; None if nothing is."""
        if len(hits) != K or len({i for i, _ in hits}) != K:
            return f"{len(hits)} hits instead of {K}"
        if list(hits) != sorted(hits, key=lambda hit: (-hit[1], hit[0])):
            return "not in order"
        direction = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
        for i, score in hits:
            if part is not None and i < 1_000_000 and i % self.writers != part:
                return f"row {i} does not pass the filter"
            possible = [
                float(_direction(spell.row.version) @ direction)
                for spell in self.history.get(i, [])
                if spell.row is not None and not spell.row.blank
                and spell.may_begin <= ended and spell.may_end >= began
            ]  # fmt: skip
            # Single precision inside the database; two vectors of ours are never as close.
            if not any(abs(score - one) < 1e-5 for one in possible):
                return f"row {i} has the score {score}; alive were {possible}"
        return self._check_missing(hits, direction, began, ended, part) if complete else None

    def _check_missing(
        self,
        hits: Sequence[tuple[int, float]],
        direction: npt.NDArray[np.float64],
        began: float,
        ended: float,
        part: int | None,
    ) -> str | None:
        sure = [
            (i, spell.row.version)
            for i, spells in list(self.history.items())
            for spell in tuple(spells)
            if spell.row is not None and not spell.row.blank
            and spell.sure_begin <= began and spell.sure_end > ended
            and (part is None or i % self.writers == part)
        ]  # fmt: skip
        scores = np.stack([_direction(version) for _, version in sure]) @ direction
        better = {sure[n][0] for n in np.flatnonzero(scores > hits[-1][1] + 1e-5)}
        missing = better - {i for i, _ in hits}
        return f"rows {sorted(missing)} are missing" if missing else None

    def verify(self, connection: Connection) -> None:
        """Compare the table, its codes and its searches with the ledger, now that nobody writes."""
        self.raise_faults()
        stored = {
            i: (Row(version, note, emb is None), emb, part)
            for i, version, note, emb, part in connection.execute(
                "select id, version, note, emb::text, part from items"
            ).fetchall()
        }
        wanted = self.expected_rows()
        assert {i: row for i, (row, _, _) in stored.items()} == wanted
        for row, emb, _ in stored.values():
            if emb is not None:
                assert np.array_equal(np.array(eval(emb), np.float32), vector_of(row.version))
        found = side.faults(connection, "items")
        assert found == [], found
        assert column_faults(connection) == []
        assert side.one(connection, "select funnelvec.next_step('items')") is None
        assert connection.execute("select * from funnelvec._problems()").fetchall() == []
        assert (
            connection.execute(
                "select indexrelid::regclass from pg_index where not (indisvalid and indisready)"
            ).fetchall()
            == []
        )
        self._verify_searches(connection)

    def _verify_searches(self, connection: Connection) -> None:
        names = [
            row[0] for row in connection.execute("select name from funnelvec.funnels").fetchall()
        ]
        found = expected = 0
        for seed in range(20):
            query = vectors(1, seed=10_000_000 + seed, dims=DIMS)[0]
            exact = search(connection, "exact", query)
            began = ended = _now()
            assert self.check_answer(exact, query, began, ended, complete=True) is None
            for name in names:
                hits = search(connection, name, query)
                fault = self.check_answer(hits, query, began, ended, complete=name == "whole")
                assert fault is None, f"{name}: {fault}"
                expected += K
                found += len({*hits} & {*exact})
        # Coarse stages may lose a row, but an index or codes that lost rows in a crash lose many.
        assert found > 0.9 * expected, f"{found} of {expected}"


class Client(threading.Thread):
    """One connection that writes rows of its own, and searches all."""

    def __init__(self, live: Live, number: int, *, writes: bool, pool: Any = None) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.live, self.number, self.writes, self.pool = live, number, writes, pool
        self.steps = 0
        self.random = random.Random(number)
        self._ids = itertools.count(ROWS * 2 + number - ROWS * 2 % live.writers, live.writers)
        self.mine: dict[int, Row] = {
            i: row
            for i, row in live.expected_rows().items()
            if writes and i % live.writers == number and i != QUIET and i < 1_000_000
        }
        self.uncertain: dict[int, Row | None] = {}

    def run(self) -> None:
        """Work; where the server is killed, connect again and find out what has been committed."""
        while not self.live.stopped.is_set() and not self.live.faults:
            kills = self.live.kills
            try:
                with psycopg.connect(self.live.url, autocommit=True) as connection:
                    self._resolve(connection)
                    self._work(connection)
            except (psycopg.OperationalError, fv.errors.EngineError) as error:
                broken = (
                    isinstance(error, fv.errors.EngineError)
                    or error.sqlstate is None
                    or (error.sqlstate.startswith(("57P", "08")))
                )
                if not broken or self.live.kills == kills:
                    self.live.faults.append(f"{self.name}: {traceback.format_exc()}")
                self.live.up.wait()
            except Exception:
                self.live.faults.append(f"{self.name}: {traceback.format_exc()}")

    def _work(self, connection: Connection) -> None:
        table = fv.wrap(self.pool or connection).table("items", vector="emb")
        while not self.live.stopped.is_set() and not self.live.faults:
            if not self.writes or self.random.random() < 0.4:
                self._search(connection, table)
            else:
                self._write(connection)
            self.steps += 1

    # -- writing --------------------------------------------------------------------------------

    def _write(self, connection: Connection) -> None:
        changes: dict[int, Row | None] = {}
        statements: list[tuple[str, tuple[Any, ...]]] = []
        wanted = 1 if self.random.random() < 0.8 else self.random.randrange(2, 6)
        for _ in range(wanted):
            self._change(changes, statements)
        if not statements:
            return
        undone = self.random.random() < 0.1
        began = _now()
        if not undone:
            self._begin(changes, began)
        if len(statements) > 1 or undone:
            statements = [("begin", ()), *statements, ("rollback" if undone else "commit", ())]
        for query, values in statements:
            side.run(connection, query, *values)
        if not undone:
            self._committed(changes, _now())
        self.live.counts["transactions"] += 1

    def _change(
        self, changes: dict[int, Row | None], statements: list[tuple[str, tuple[Any, ...]]]
    ) -> None:
        free = [i for i in self.mine if i not in changes]
        kind = self.random.choices(
            ["insert", "vector", "note", "blank", "rekey", "delete", "upsert"],
            [20, 25, 15, 5, 5, 20 if len(free) > 60 else 0, 10],
        )[0]
        if kind == "insert" or not free:
            i, row = next(self._ids), new_row()
            changes[i] = row
            statements.append(
                ("insert into items values (%s, %s, %s, %s, %s)",
                 (i, self.number, row.emb, row.version, row.note))
            )  # fmt: skip
            return
        i = self.random.choice(free)
        before = self.mine[i]
        self.live.counts[kind] += 1
        if kind == "delete":
            changes[i] = None
            statements.append(("delete from items where id = %s", (i,)))
        elif kind == "note":
            changes[i] = Row(before.version, f"note {self.random.random()}", before.blank)
            statements.append(("update items set note = %s where id = %s", (changes[i].note, i)))
        elif kind == "rekey":
            j = next(self._ids)
            changes[i], changes[j] = None, before
            statements.append(("update items set id = %s where id = %s", (j, i)))
        elif kind == "upsert":
            row = changes[i] = new_row()
            statements.append(
                ("insert into items values (%s, %s, %s, %s, %s) on conflict (id) do update"
                 " set (emb, version, note) = (excluded.emb, excluded.version, excluded.note)",
                 (i, self.number, row.emb, row.version, row.note))
            )  # fmt: skip
        else:
            row = changes[i] = new_row(before.note, blank=kind == "blank")
            statements.append(
                ("update items set emb = %s, version = %s where id = %s", (row.emb, row.version, i))
            )

    def _begin(self, changes: dict[int, Row | None], began: float) -> None:
        self.uncertain = changes
        for i, row in changes.items():
            spells = self.live.history.setdefault(i, [])
            if spells:
                spells[-1].sure_end = began
            spells.append(Spell(row, began))

    def _committed(self, changes: dict[int, Row | None], done: float) -> None:
        for i, row in changes.items():
            *before, last = self.live.history[i]
            last.sure_begin = done
            if before:
                before[-1].may_end = done
            if row is None:
                self.mine.pop(i, None)
            else:
                self.mine[i] = row
        self.uncertain = {}

    def _resolve(self, connection: Connection) -> None:
        """Find out whether the last transaction was committed: all of it, or nothing."""
        if not self.uncertain:
            return
        changes = self.uncertain
        there = {
            i: Row(version, note, blank)
            for i, version, note, blank in connection.execute(
                "select id, version, note, emb is null from items where id = any(%s)", ([*changes],)
            ).fetchall()
        }
        now = _now()
        if all(there.get(i) == row for i, row in changes.items()):
            self._committed(changes, now)
            self.live.counts["committed unheard"] += 1
        elif all(there.get(i) == self.mine.get(i) for i in changes):
            for i in changes:
                spells = self.live.history[i]
                spells.pop()
                if spells:
                    spells.append(Spell(spells[-1].row, spells[-1].may_begin, now))
                    spells[-2].may_end = now
            self.uncertain = {}
            self.live.counts["lost uncommitted"] += 1
        else:
            self.live.faults.append(f"half a transaction: {changes}, stored {there}, before "
                                    f"{ {i: self.mine.get(i) for i in changes} }")  # fmt: skip

    # -- searching ------------------------------------------------------------------------------

    def _search(self, connection: Connection, table: Any) -> None:
        funnel = self.random.choice(self.live.funnels)
        query = vectors(1, seed=self.random.randrange(1 << 30) + (1 << 30), dims=DIMS)[0]
        part = self.random.randrange(self.live.writers) if self.random.random() < 0.3 else None
        complete = funnel in ("exact", "whole")
        began = _now()
        if self.pool is None and self.random.random() < 0.5:
            hits = search(connection, funnel, query, part)
        else:
            filter = None if part is None else {"part": part}
            found = table.search(query, k=K, funnel=funnel, filter=filter)
            hits = [(int(hit.id), float(hit.score)) for hit in found]
        fault = self.live.check_answer(hits, query, began, _now(), part=part, complete=complete)
        if fault is not None:
            self.live.faults.append(f"{self.name}: {funnel}, part {part}: {fault}")
        self.live.counts["searches"] += 1


def search(
    connection: Connection, funnel: str, query: npt.NDArray[np.float32], part: int | None = None
) -> list[tuple[int, float]]:
    """The ids and scores that a funnel answers, by its function."""
    filter = None if part is None else f'{{"part": {part}}}'
    command = sql.SQL("select id, score from {}(%s, %s, filter => %s::jsonb)")
    return connection.execute(
        command.format(sql.Identifier(funnel)), (text(query), K, filter)
    ).fetchall()


def create_funnel(connection: Connection, name: str, funnel: str) -> None:
    """Create a funnel, or replace it."""
    side.run(
        connection,
        "select funnelvec.create_funnel(%s, 'items', 'emb', %s, replace => true)",
        name,
        funnel,
    )


def column_faults(connection: Connection) -> list[Any]:
    """Rows whose code in a generated column is not the code that would be computed now."""
    found: list[Any] = []
    for resolution, code_column in connection.execute(
        "select resolution, code_column from funnelvec.resolutions"
        " where table_name = 'items'::regclass and storage = 'column'"
    ).fetchall():
        expression = side.one(
            connection,
            "select (funnelvec._code(p.dims, p.code, 't.emb', 'cosine', 'f32')).expression"
            " from funnelvec._parse_resolution(%s) as p",
            resolution,
        )
        found += connection.execute(
            f"select id from items as t where t.{code_column}::text is distinct from ({expression})::text"
        ).fetchall()
    return found


def kill_server(folder: Path) -> None:
    """Kill the embedded server of a folder and all that it has started, and wait until they are gone."""
    head = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
    head.suspend()  # or it might start one more while we look
    family = [head, *head.children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGKILL)
    # Gone altogether: the next server asks whether one of this number is there.
    wait_until(lambda: not any(each.is_running() for each in family), "the server is gone")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll; the limit is no expectation, only the end of a test that will never come to it."""
    deadline = _now() + 60
    while not condition():
        assert _now() < deadline, f"waited for a minute: {what}"
        time.sleep(0.002)
