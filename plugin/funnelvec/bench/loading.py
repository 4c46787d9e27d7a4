"""How fast rows get in: bare COPY, ours, ours with codes, with an index, and upserts.

Every contestant fills a table of its own with the same rows, key and vector; they take turns,
round by round, in rotating order. Ratios pair the runs of one round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from funnelvec import entry
from funnelvec.bench.data import Dataset
from funnelvec.bench.report import Section
from funnelvec.bench.stage import connected, hosted, workspace
from funnelvec.bench.stats import Ratio, ratio

if TYPE_CHECKING:
    import psycopg

    from funnelvec.engines.postgres.sync import PostgresTable

    Connection = psycopg.Connection[Any]

__all__ = ["TARGET", "LoadBench", "Pace", "compare_loads"]

#: Least share of the rows per second of a bare COPY that `add` is to reach.
TARGET = 0.9

_BARE, _BLOCKS, _ADD = "bare COPY, row by row", "bare COPY, encoded beforehand", "add()"
_LOAD, _CODES, _INDEX = "load(), batches of 2,000", "add() with codes", "add() with codes and HNSW"
_NEW, _THERE = "upsert(), rows are new", "upsert(), rows are there"
_LOAD_BATCH = 2_000
#: An index takes some milliseconds per row, so that a round would be all about it.
_INDEXED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Pace:
    """One contestant: seconds of every round, and its rows per second against the bare COPY's."""

    name: str
    rows: int
    seconds: tuple[float, ...]
    versus: Ratio | None

    @property
    def rates(self) -> list[float]:
        """Rows per second, round by round."""
        return [self.rows / each for each in self.seconds]

    @property
    def row_us(self) -> float:
        """Median microseconds per row."""
        return 1e6 * median(self.seconds) / self.rows


@dataclass(frozen=True, slots=True)
class LoadBench:
    """What a run has measured; `dataset` and `resolution` say of what."""

    dataset: str
    rows: int
    dims: int
    resolution: str
    server: str
    paces: tuple[Pace, ...]

    def pace(self, name: str) -> Pace:
        """One contestant by its name."""
        return next(each for each in self.paces if each.name == name)

    @property
    def passed(self) -> bool:
        """Whether `add` reaches its target, in a run that is steady enough to say."""
        versus = self.pace(_ADD).versus
        return versus is not None and versus.stable and versus.value >= TARGET

    def section(self) -> Section:
        """The figures as a table."""
        return Section(
            "Loading",
            ("", "rows/s", "lowest", "highest", "µs/row", f"rows/s, divided by {_BARE!r}"),
            tuple(
                (
                    each.name,
                    f"{median(each.rates):,.0f}",
                    f"{min(each.rates):,.0f}",
                    f"{max(each.rates):,.0f}",
                    f"{each.row_us:.1f}",
                    "" if each.versus is None else each.versus.text(),
                )
                for each in self.paces
            ),
        )

    def lines(self) -> list[str]:
        """What follows from the figures."""
        add, codes, index = (self.pace(name).row_us for name in (_ADD, _CODES, _INDEX))
        versus = self.pace(_ADD).versus
        assert versus is not None  # the bare COPY has taken some time
        said = "reached" if self.passed else "missed"
        if not versus.stable:
            said = "this run is too unsteady to say"
        return [
            f"add() loads {versus.text()} times the rows per second of the usual client "
            f"(target {TARGET}: {said})",
            f"the codes {self.resolution} take {codes - add:+.1f} µs per row of their own, "
            f"their HNSW index {index - codes:+.1f} µs",
            f"{self.rows:,} rows of {self.dims:,} dimensions, {self.dataset}; {self.server}",
        ]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "dataset": self.dataset,
            "rows": self.rows,
            "dims": self.dims,
            "resolution": self.resolution,
            "server": self.server,
            "target": TARGET,
            "passed": self.passed,
            "contestants": [
                {
                    "name": each.name,
                    "rows_per_second": median(each.rates),
                    "row_us": each.row_us,
                    "seconds": list(each.seconds),
                    "versus_bare": None if each.versus is None else each.versus.as_json(),
                }
                for each in self.paces
            ],
        }


def compare_loads(
    url: str | None,
    dataset: Dataset,
    *,
    resolution: str = "128:f16",
    rounds: int = 5,
    say: Callable[[str], None] = lambda text: None,
) -> LoadBench:
    """Measure on the Postgres of `url`, or on one of our own in a temporary folder."""
    if url is None:
        say("starting a server")
        with hosted(dataset) as own:
            return compare_loads(own, dataset, resolution=resolution, rounds=rounds, say=say)
    with connected(url) as connection, workspace(connection) as schema:
        contestants = _Contestants(url, connection, schema, dataset, resolution)
        seconds: dict[str, list[float]] = {name: [] for name in contestants.runs}
        with contestants.opened():
            names = list(contestants.runs)
            for turn in range(-1, rounds):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    say(f"{'warm-up' if turn < 0 else f'round {turn + 1} of {rounds}'}: {name}")
                    took = contestants.run(name)
                    if turn >= 0:
                        seconds[name].append(took)
        row = connection.execute("select current_setting('server_version')").fetchone()
    counts = {name: len(contestants.rows(name)) for name in seconds}
    rates = {name: [counts[name] / each for each in of] for name, of in seconds.items()}
    paces = tuple(
        Pace(name, counts[name], tuple(of), ratio(rates[name], rates[_BARE]))
        for name, of in seconds.items()
    )
    return LoadBench(
        dataset.name, len(dataset.rows), dataset.dims, resolution,
        f"PostgreSQL {row[0] if row else '?'}", paces,
    )  # fmt: skip


class _Contestants:
    """A table and a way to fill it for each name."""

    def __init__(
        self, url: str, connection: Connection, schema: str, dataset: Dataset, resolution: str
    ) -> None:
        self._url, self._connection, self._schema = url, connection, schema
        self._vectors, self._resolution = dataset.rows, resolution
        self._tables: dict[str, PostgresTable] = {}
        self._encoded: list[bytes] = []
        self.runs: dict[str, Callable[[PostgresTable], object]] = {
            _BARE: self._row_by_row,
            _BLOCKS: self._blocks,
            _ADD: self._add,
            _LOAD: self._load,
            _CODES: self._add,
            _INDEX: self._add_few,
            _NEW: self._upsert,
            _THERE: self._upsert,
        }

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the tables, all alike but for codes and index."""
        from pgvector.psycopg import register_vector

        from funnelvec.engines.postgres.adapt import quoted

        register_vector(self._connection)
        with entry.connect(self._url) as engine:
            for number, name in enumerate(self.runs):
                table: Any = engine.create(
                    f"{self._schema}.rows_{number}", dims=self._vectors.shape[1]
                )
                if name in (_CODES, _INDEX):
                    table.add_resolution(self._resolution, index=name == _INDEX)
                self._tables[name] = table
            self._regclass = {n: quoted(t.schema, t.name) for n, t in self._tables.items()}
            yield

    def run(self, name: str) -> float:
        """Fill the table of one contestant anew; seconds."""
        if name != _THERE:
            self._connection.execute(f"truncate {self._regclass[name]}")
        elif not len(self._tables[name]):
            self._add(self._tables[name])
        started = time.perf_counter()
        self.runs[name](self._tables[name])
        return time.perf_counter() - started

    def rows(self, name: str) -> npt.NDArray[Any]:
        """What is loaded."""
        return self._vectors[:_INDEXED_ROWS] if name == _INDEX else self._vectors

    def _add_few(self, table: PostgresTable) -> None:
        rows = self.rows(_INDEX)
        table.add(range(len(rows)), rows)

    def _ids(self) -> range:
        return range(len(self._vectors))

    def _row_by_row(self, table: PostgresTable) -> None:
        with (
            self._connection.cursor() as cursor,
            cursor.copy(
                f"copy {self._regclass[_BARE]} (id, embedding) from stdin with (format binary)"
            ) as copy,
        ):
            copy.set_types(["int8", "vector"])
            for key, vector in enumerate(self._vectors):
                copy.write_row((key, vector))

    def _blocks(self, table: PostgresTable) -> None:
        if not self._encoded:
            self._encode()
        with (
            self._connection.cursor() as cursor,
            cursor.copy(
                f"copy {self._regclass[_BLOCKS]} (id, embedding) from stdin with (format binary)"
            ) as copy,
        ):
            for block in self._encoded:
                copy.write(block)

    def _encode(self) -> None:
        from funnelvec.engines.postgres import wire

        ids = wire.field(self._ids(), "bigint", what="id", encoding="utf-8", first=0)
        fields = [ids, wire.vectors(self._vectors)]
        blocks = (bytes(block) for _, block in wire.blocks(fields, len(self._vectors)))
        self._encoded = [wire.HEADER, *blocks, wire.TRAILER]

    def _add(self, table: PostgresTable) -> None:
        table.add(self._ids(), self._vectors)

    def _load(self, table: PostgresTable) -> None:
        table.load(self._vectors, ids=self._ids(), batch_size=_LOAD_BATCH, resume=False)

    def _upsert(self, table: PostgresTable) -> None:
        table.upsert(self._ids(), self._vectors)
