"""Searches with a range in their filter: windows, filtering afterwards, pgvector's iterating.

The funnel with windows has a table of its own; the same funnel without them, and both ways over
full HNSW, share another. Both tables have an index on the column of the range. All take turns,
case by case.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from funnelvec import entry
from funnelvec.bench import stage
from funnelvec.bench.contestants import Contestant, default_funnel
from funnelvec.bench.ranges import Case, RangeSet, Truth
from funnelvec.bench.run import take_turns
from funnelvec.bench.stats import ratio
from funnelvec.bench.windowed import MOST, IndexCost, WindowReport, WindowRow
from funnelvec.funnel import Funnel

if TYPE_CHECKING:
    Connection = Any

__all__ = ["measure_windows"]

_RANGED, _BARE, _BY = "ranged", "bare", "place"
# The default of hnsw.ef_search.
_LEAST = 40


@dataclass(frozen=True, slots=True)
class _RangeLane(stage.Lane):
    """A lane that is asked cases: (query as the driver takes it, the range)."""

    def search(self, query: object) -> list[tuple[Any, ...]]:
        """Run one case."""
        assert isinstance(query, tuple)
        vector, case = query
        given = {
            "query": vector,
            "k": self.k,
            "low": case.low,
            "high": case.high,
            "filter": json.dumps({_BY: {"$gte": case.low, "$lte": case.high}}),
        }
        return self.cursor.execute(self.contestant.statement, given, prepare=True).fetchall()


def measure_windows(
    url: str | None,
    ranges: RangeSet,
    *,
    funnel: Funnel | str | None = None,
    k: int = 10,
    rounds: int = 3,
    levels: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> WindowReport:
    """Measure the cases of `ranges`; see `compare` for the other arguments.

    Parameters
    ----------
    levels
        Of the windows; None leaves it to `add_window`, or is 2 where the table is too small for it.
    """
    dataset = ranges.data
    chosen = default_funnel(dataset.dims) if funnel is None else Funnel.parse(str(funnel))
    chosen.check(dims=dataset.dims, code="f32", approximate=True)
    with contextlib.ExitStack() as stack:
        if url is None:
            say("starting a server")
            url = stack.enter_context(stage.hosted(dataset))
        connection = stack.enter_context(stage.connected(url))
        schema = stack.enter_context(stage.workspace(connection))
        run = _Run(url, connection, schema, ranges, chosen, k=k, rounds=rounds, say=say)
        built = run.build(levels)
        say("searching exhaustively for the truth")
        truth = ranges.truth(k)
        aims = sorted({case.aim for case in ranges.cases})
        measured = tuple(run.measure(aim, truth) for aim in aims)
    return WindowReport(
        dataset=f"{dataset.name}, {dataset.note}",
        rows=len(dataset.rows),
        dims=dataset.dims,
        funnel=str(chosen),
        k=k,
        rounds=rounds,
        measured=measured,
        built=built,
    )


class _Run:
    """Both tables, and all that is asked of them."""

    def __init__(
        self,
        url: str,
        connection: Connection,
        schema: str,
        ranges: RangeSet,
        funnel: Funnel,
        *,
        k: int,
        rounds: int,
        say: Callable[[str], None],
    ) -> None:
        self._url, self._connection, self._schema = url, connection, schema
        self._ranges, self._funnel, self._k, self._rounds, self._say = (
            ranges, funnel, k, rounds, say,
        )  # fmt: skip
        self._queries = stage.parameters(ranges.data.queries)

    def build(self, levels: int | None) -> tuple[IndexCost, ...]:
        """Load the tables and make every index, one after the other."""
        data, first = self._ranges.data, str(self._funnel.stages[0].resolution)
        self._say(f"loading {len(data.rows):,} vectors, twice")
        with entry.connect(self._url) as engine:
            for table in (_RANGED, _BARE):
                self._load(engine, f"{self._schema}.{table}")
        if levels is None and len(data.rows) < 2 * self._one("select funnelvec._window_floor()"):
            levels = 2
        self._connection.execute("set maintenance_work_mem = '512MB'")
        self._connection.execute("set max_parallel_maintenance_workers = 0")
        ranged, bare = f"{self._schema}.{_RANGED}", f"{self._schema}.{_BARE}"
        index = (
            f"select funnelvec.add_resolution('{{}}', 'embedding', '{first}',"
            " index => true, allow_rewrite => true)"
        )
        costs = (
            self._timed(f"first stage {first}", ranged, index.format(ranged)),
            self._timed(
                f"windows of {first}",
                ranged,
                f"select funnelvec.add_window('{ranged}', 'embedding', '{first}', '{_BY}',"
                f" levels => {'null' if levels is None else levels}, allow_rewrite => true)",
            ),
            self._timed(
                "full HNSW",
                bare,
                f"create index on {bare} using hnsw (embedding vector_cosine_ops)",
            ),
            self._timed("B-tree", ranged, f"create index on {ranged} ({_BY})"),
        )
        self._connection.execute(index.format(bare))
        self._connection.execute(f"create index on {bare} ({_BY})")
        approximate = str(self._funnel.last.resolution) != f"{data.dims}:f32"
        for table in (_RANGED, _BARE):
            self._connection.execute(
                f"select funnelvec.create_funnel('{table}_search', '{self._schema}.{table}',"
                f" 'embedding', '{self._funnel}', approximate => {approximate})"
            )
            self._connection.execute(f"vacuum analyze {self._schema}.{table}")
        return costs

    def _load(self, engine: Any, name: str) -> None:
        data = self._ranges.data
        table = engine.create(name, dims=data.dims, columns={_BY: "integer"})
        values = [int(value) for value in self._ranges.values]
        table.add(range(len(data.rows)), data.rows, columns={_BY: values})
        for each in dict.fromkeys(str(part.resolution) for part in self._funnel.stages):
            if each != f"{data.dims}:f32":
                table.add_resolution(each, allow_rewrite=True)

    def _timed(self, name: str, table: str, statement: str) -> IndexCost:
        self._say(f"building {name}")
        count, size = self._indexes(table)
        started = time.perf_counter()
        self._connection.execute(statement)
        seconds = time.perf_counter() - started
        after, grown = self._indexes(table)
        return IndexCost(name, after - count, seconds, grown - size)

    def _indexes(self, table: str) -> tuple[int, int]:
        row = self._connection.execute(
            "select count(*), coalesce(sum(pg_relation_size(indexrelid)), 0)::bigint"
            " from pg_index where indrelid = %s::regclass",
            [table],
        ).fetchone()
        return row[0], row[1]

    def _one(self, query: str) -> Any:
        row = self._connection.execute(query).fetchone()
        return None if row is None else row[0]

    def measure(self, aim: float, truth: Truth) -> WindowRow:
        """Ask all cases of one width, every way in turns."""
        self._say(f"ranges made to hold {aim:.2%} of the rows")
        numbers = [i for i, case in enumerate(self._ranges.cases) if case.aim == aim]
        cases = [self._ranges.cases[i] for i in numbers]
        asked = [(self._queries[case.query], case) for case in cases]
        share = fmean(case.share for case in cases)
        oversampled = min(MOST, max(_LEAST, math.ceil(2 * self._k / max(share, 1e-9))))
        with self._lanes(oversampled) as lanes:
            recall = [
                fmean(
                    truth.recall(number, [int(row[0]) for row in lane.search(each)])
                    for number, each in zip(numbers, asked, strict=True)
                )
                for lane in lanes
            ]
            times = take_turns(lanes, asked, rounds=self._rounds)
        medians = [[median(each.values()) for each in lane] for lane in times]
        windows, without, post, iterative = medians
        return WindowRow(
            aim=aim,
            share=share,
            cases=len(cases),
            windows_ms=median(windows),
            without_ms=median(without),
            post_ms=median(post),
            iterative_ms=median(iterative),
            windows_recall=recall[0],
            without_recall=recall[1],
            post_recall=recall[2],
            iterative_recall=recall[3],
            oversampled=oversampled,
            ways=self._ways(asked),
            versus_without=ratio(windows, without),
            versus_post=ratio(windows, post),
            versus_iterative=ratio(windows, iterative),
        )

    @contextlib.contextmanager
    def _lanes(self, oversampled: int) -> Iterator[list[_RangeLane]]:
        keep = self._funnel.stages[0].keep or _LEAST
        where = f"{_BY} between %(low)s and %(high)s"
        bare = f"{self._schema}.{_BARE}"
        near = f"select id, {_BY}, embedding <=> %(query)s as distance from {bare}"
        # The planner sees the values of each case, as it does behind our function.
        custom = ("plan_cache_mode", "force_custom_plan")
        funnel = "select id from {}.{}_search(%(query)s, %(k)s, filter => %(filter)s::jsonb)"
        ways = (
            ("windows", funnel.format(self._schema, _RANGED), ()),
            ("without", funnel.format(self._schema, _BARE), ()),
            (
                "post",
                f"with near as materialized ({near} order by distance limit {oversampled})"
                f" select id from near where {where} order by distance + 0 limit %(k)s",
                (custom, ("hnsw.ef_search", str(oversampled)), ("enable_seqscan", "off")),
            ),
            (
                "iterative",
                f"with near as materialized ({near} where {where} order by distance limit %(k)s)"
                " select id from near order by distance + 0",
                (
                    custom,
                    ("hnsw.iterative_scan", "relaxed_order"),
                    ("hnsw.ef_search", str(min(keep, MOST))),
                ),
            ),
        )
        with contextlib.ExitStack() as stack:
            lanes = []
            for name, statement, settings in ways:
                contestant = Contestant(
                    name=name,
                    label=name,
                    table=_RANGED if name == "windows" else _BARE,
                    statement=statement,
                    settings=settings,
                    ours=name == "windows",
                )
                lane = stack.enter_context(stage.open_lane(self._url, contestant, k=self._k))
                lanes.append(_RangeLane(lane.contestant, lane.connection, lane.cursor, lane.k))
            yield lanes

    def _ways(self, asked: Sequence[tuple[object, Case]]) -> dict[str, int]:
        """How our first stage went about some of the cases."""
        cursor = stage.binary_cursor(self._connection)
        counted: Counter[str] = Counter()
        for vector, case in asked[:20]:
            row = cursor.execute(
                "select e.access from funnelvec.explain(%s, %s, %s, filter => %s::jsonb) as e"
                " where e.stage = 1",
                [
                    f"{self._schema}.{_RANGED}_search",
                    vector,
                    self._k,
                    json.dumps({_BY: {"$gte": case.low, "$lte": case.high}}),
                ],
            ).fetchone()
            access = str(row[0]) if row else ""
            indexed = access.startswith("index")
            counted["window" if indexed and ", window " in access
                    else "index" if indexed else "exact"] += 1  # fmt: skip
        return dict(counted)
