"""What writing costs: inserts, updates and deletes with codes in a column, beside, and without.

All contestants do the same work on tables of their own, in short transactions that take turns in
rotating order, so that a busy machine slows all of them alike. Ratios pair the medians of a round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec import entry
from funnelvec.bench.data import Dataset
from funnelvec.bench.ledger import (
    DELETE,
    EMBEDDING,
    INSERT,
    OPERATIONS,
    OTHER,
    SHAPES,
    Cost,
    Kept,
    Ledger,
    Work,
)
from funnelvec.bench.stage import connected, hosted, workspace
from funnelvec.bench.written import Line, WriteBench
from funnelvec.errors import InvalidInput

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

__all__ = ["compare_writes"]

BARE, WIDE = Kept("without us"), Kept("without us, HNSW on the vectors", index="base")
COLUMN, COLUMN_HNSW = Kept("column", "column"), Kept("column with HNSW", "column", "codes")
SIDE, SIDE_HNSW = Kept("side", "side"), Kept("side with HNSW", "side", "codes")
BARE_TOUCHED = Kept("without us, BEFORE trigger", touched=True)
SIDE_TOUCHED = Kept("side, BEFORE trigger", "side", touched=True)
_KEPT = (BARE, COLUMN, SIDE, WIDE, COLUMN_HNSW, SIDE_HNSW)
_FILLED = tuple(
    Kept(f"{each.name}, fillfactor {fillfactor}", each.storage, each.index, fillfactor)
    for each in (BARE, COLUMN, SIDE_HNSW, COLUMN_HNSW)
    for fillfactor in (100, 90, 70)
)

#: Transactions of a round, per operation and shape; so many more for the comparison of the target.
_CHUNKS = {INSERT: 2, OTHER: 4, EMBEDDING: 2, DELETE: 2}
_CHUNKS_PROMISE = 20
#: Rows of a transaction, at most.
_CHUNK = 100
#: Of the rows, how many are updated before each vacuum where the room on pages is measured: what
#: autovacuum waits for.
_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class _Bout:
    """Contestants that meet, and what each of their rounds consists of."""

    part: str
    kept: tuple[Kept, ...]
    chunks: dict[str, int]
    shapes: tuple[str, ...] = SHAPES


def compare_writes(
    url: str | None,
    dataset: Dataset,
    *,
    resolution: str = "128:f16",
    rounds: int = 5,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> WriteBench:
    """Measure on the Postgres of `url`, or on one of our own in a temporary folder.

    Raises
    ------
    InvalidInput
        If there are fewer than 40 rows, or no rounds.
    """
    if len(dataset.rows) < 40 or rounds < 1:
        raise InvalidInput(
            f"{len(dataset.rows)} rows in {rounds} rounds say nothing; give at least 40 rows "
            "and one round"
        )
    if url is None:
        say("starting a server")
        with hosted(dataset) as own:
            return compare_writes(
                own, dataset, resolution=resolution, rounds=rounds, seed=seed, say=say
            )
    with (
        connected(url) as connection,
        workspace(connection) as schema,
        entry.connect(url) as engine,
    ):
        ledger = Ledger(engine, connection, schema)  # type: ignore[arg-type]  # `connected` checks
        run = _Run(ledger, connection, dataset.rows, resolution, seed)
        lines = run.all(rounds, say)
        server = connection.execute("select current_setting('server_version')").fetchone()
        return WriteBench(
            dataset.name, len(dataset.rows), dataset.dims, resolution, run.chunk,
            f"PostgreSQL {server[0] if server else '?'}", run.images, tuple(lines),
        )  # fmt: skip


class _Run:
    """One run: its random rows, its new vectors, and what has been measured so far."""

    def __init__(
        self,
        ledger: Ledger,
        connection: Connection,
        rows: npt.NDArray[np.float32],
        resolution: str,
        seed: int,
    ) -> None:
        self._ledger, self._connection, self._rows = ledger, connection, rows
        self._resolution = resolution
        self._rng = np.random.default_rng(seed)
        self.chunk = min(_CHUNK, max(5, len(rows) // 40))
        self.images = self._full_page_images()

    def all(self, rounds: int, say: Callable[[str], None]) -> list[Line]:
        """Every bout."""
        self._ledger.stock(self._rows)
        updates = round(_SHARE * len(self._rows) / self.chunk)
        bouts = (
            _Bout("operations", _KEPT, _CHUNKS),
            _Bout(
                "promise",
                (BARE, SIDE, COLUMN, BARE_TOUCHED, SIDE_TOUCHED),
                {OTHER: _CHUNKS_PROMISE},
            ),
            _Bout("room", _FILLED, {OTHER: updates}, SHAPES[:1]),
        )
        known: set[Kept] = set()
        lines: list[Line] = []
        for bout in bouts:
            for kept in bout.kept:
                if kept not in known:
                    say(f"making the table {kept.name!r}")
                    self._ledger.open(kept, resolution=self._resolution, dims=self._rows.shape[1])
                    known.add(kept)
            lines += self._bout(bout, rounds, say)
        return lines

    def _bout(self, bout: _Bout, rounds: int, say: Callable[[str], None]) -> list[Line]:
        costs: dict[tuple[str, str, Kept], list[list[Cost]]] = defaultdict(list)
        self._ledger.vacuum()
        for turn in range(-1, rounds):
            say(f"{bout.part}: {'warm-up' if turn < 0 else f'round {turn + 1} of {rounds}'}")
            found: dict[tuple[str, str, Kept], list[Cost]] = defaultdict(list)
            for number, work in enumerate(self._work(bout)):
                start = number % len(bout.kept)
                for kept in bout.kept[start:] + bout.kept[:start]:
                    cost = self._ledger.write(kept, work)
                    found[work.operation, work.shape, kept].append(cost)
            for key, of in found.items():
                costs[key].append(of)
            self._ledger.vacuum()
        return [
            _line(
                bout,
                operation,
                kept,
                {shape: costs[operation, shape, kept] for shape in bout.shapes},
                {shape: costs[operation, shape, _bare(bout, kept)] for shape in bout.shapes},
            )
            for operation in OPERATIONS
            if operation in bout.chunks
            for kept in bout.kept
        ]

    def _work(self, bout: _Bout) -> Iterator[Work]:
        """The transactions of one round, the same for every contestant."""
        counts = {op: n * len(bout.shapes) for op, n in bout.chunks.items()}
        self._ledger.refresh(self._vectors(counts.get(INSERT, 0) + counts.get(EMBEDDING, 0)))
        slot, inserted = 0, len(self._rows)
        deleted = inserted
        for operation in OPERATIONS:
            for shape in bout.shapes:
                for _ in range(bout.chunks.get(operation, 0)):
                    self._checkpoint()
                    if operation == INSERT:
                        first, inserted = inserted, inserted + self.chunk
                        ids = range(first, inserted)
                    elif operation == DELETE:
                        first, deleted = deleted, deleted + self.chunk
                        ids = range(first, deleted)
                    else:
                        ids = self._drawn()
                    yield Work(operation, shape, tuple(int(each) for each in ids), slot)
                    if operation in (INSERT, EMBEDDING):
                        slot += self.chunk

    def _drawn(self) -> Any:
        return self._rng.choice(len(self._rows), self.chunk, replace=False)

    def _vectors(self, chunks: int) -> npt.NDArray[np.float32]:
        """New vectors of the same kind: HNSW keeps copies together, so copies would be cheap."""
        a, b = (
            self._rows[self._rng.integers(len(self._rows), size=chunks * self.chunk)] for _ in "ab"
        )
        return np.asarray(0.8 * a + 0.6 * b, dtype=np.float32)

    def _full_page_images(self) -> str:
        row = self._connection.execute("select current_setting('full_page_writes')").fetchone()
        if row == ("off",):
            return "without full-page images"
        try:
            self._connection.execute("checkpoint")
        except Exception as error:
            if getattr(error, "sqlstate", None) != "42501":
                raise
            return "with full-page images wherever the server's checkpoints ask for them"
        return "with full-page images, a checkpoint before each transaction"

    def _checkpoint(self) -> None:
        if self.images.endswith("each transaction"):
            self._connection.execute("checkpoint")


def _bare(bout: _Bout, kept: Kept) -> Kept:
    """What a contestant is compared with: the first that has the same trigger, or none."""
    return next(each for each in bout.kept if each.touched == kept.touched)


def _line(
    bout: _Bout,
    operation: str,
    kept: Kept,
    ours: dict[str, list[list[Cost]]],
    bare: dict[str, list[list[Cost]]],
) -> Line:
    """Put rounds together; the first is the warm-up, and counts only as what came first."""
    all_of = [cost for rounds in ours.values() for each in rounds[1:] for cost in each]
    first = [cost for rounds in ours.values() for cost in rounds[0]]
    return Line(
        part=bout.part,
        operation=operation,
        kept=kept,
        row_us={shape: _medians(rounds) for shape, rounds in ours.items()},
        bare_us={shape: _medians(rounds) for shape, rounds in bare.items()},
        wal=sum(cost.wal for cost in all_of) / sum(cost.rows for cost in all_of),
        hot=_hot(all_of),
        hot_at_first=_hot(first),
    )


def _medians(rounds: list[list[Cost]]) -> tuple[float, ...]:
    return tuple(median(cost.row_us for cost in each) for each in rounds[1:])


def _hot(costs: list[Cost]) -> float | None:
    updated = sum(cost.updated for cost in costs)
    return sum(cost.hot for cost in costs) / updated if updated else None
