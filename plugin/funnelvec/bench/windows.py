"""Searches with a range in their filter: windows, filtering afterwards, pgvector's iterating.

All three search one table, which has an index on the column of the range. They take turns, case by
case.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from funnelvec import entry
from funnelvec.bench import stage
from funnelvec.bench.contestants import Contestant, default_funnel
from funnelvec.bench.ranges import Case, RangeSet, Truth
from funnelvec.bench.report import Section
from funnelvec.bench.run import take_turns
from funnelvec.bench.stats import Ratio, ratio
from funnelvec.funnel import Funnel

if TYPE_CHECKING:
    Connection = Any

__all__ = ["IndexCost", "WindowReport", "WindowRow", "measure_windows"]

_TABLE, _FUNCTION, _BY = "ranged", "ranged_search", "place"
# The most that one scan of pgvector's HNSW can return, and its default list.
_MOST, _LEAST = 1000, 40


@dataclass(frozen=True, slots=True)
class WindowRow:
    """All cases of one width: median milliseconds and mean recall of each way.

    `share` is the mean share of the rows that match. `ways` counts how our first stage went about
    it: by a window, by the index of all rows, or comparing all rows that match.
    """

    aim: float
    share: float
    cases: int
    windows_ms: float
    post_ms: float
    iterative_ms: float
    windows_recall: float
    post_recall: float
    iterative_recall: float
    oversampled: int
    ways: dict[str, int]
    versus_post: Ratio | None
    versus_iterative: Ratio | None


@dataclass(frozen=True, slots=True)
class IndexCost:
    """What was built: seconds and bytes."""

    name: str
    count: int
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class WindowReport:
    """Everything that one run found."""

    dataset: str
    rows: int
    dims: int
    funnel: str
    k: int
    rounds: int
    measured: tuple[WindowRow, ...]
    built: tuple[IndexCost, ...]

    def sections(self) -> tuple[Section, Section]:
        """The tables to print."""
        head = (
            *("range holds", "cases", "windows ms", "post ms", "iterative ms"),
            *("recall", "post", "iterative", "ours / post", "ours / iterative", "our way"),
        )
        rows = tuple(
            (
                f"{each.share:.2%}",
                str(each.cases),
                *(f"{ms:.2f}" for ms in (each.windows_ms, each.post_ms, each.iterative_ms)),
                f"{each.windows_recall:.3f}",
                f"{each.post_recall:.3f}",
                f"{each.iterative_recall:.3f}",
                _text(each.versus_post),
                _text(each.versus_iterative),
                ", ".join(f"{count} {way}" for way, count in sorted(each.ways.items())),
            )
            for each in self.measured
        )
        costs = tuple(
            (each.name, str(each.count), f"{each.seconds:.1f}", f"{each.bytes / 1e6:.1f}")
            for each in self.built
        )
        return (
            Section(f"Ranges: recall@{self.k} and time", head, rows),
            Section("What was built", ("index", "number", "seconds", "MB"), costs),
        )

    def lines(self) -> list[str]:
        """What to say below the tables."""
        least = min(each.windows_recall for each in self.measured)
        return [
            f"data: {self.dataset}; {self.rows:,} rows x {self.dims:,} dimensions, "
            f"{self.rounds} rounds; k {self.k}; funnel {self.funnel}; least recall of ours "
            f"{least:.3f}",
            "post: full HNSW, the nearest 2 k / share of the rows (at most "
            f"{_MOST:,}, all that one scan returns), then the filter",
            "iterative: full HNSW with hnsw.iterative_scan = relaxed_order, its list as long as "
            "our first keep, the planner free to go by the index on the column",
            "each ratio is of medians, round by round; the column of the range has a B-tree index",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        rows = [
            {
                **asdict(each),
                "versus_post": each.versus_post and each.versus_post.as_json(),
                "versus_iterative": each.versus_iterative and each.versus_iterative.as_json(),
            }
            for each in self.measured
        ]
        return {**asdict(self), "format": 1, "measured": rows}


def _text(value: Ratio | None) -> str:
    return "-" if value is None else value.text()


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
    """One table, and all that is asked of it."""

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

    @property
    def _name(self) -> str:
        return f"{self._schema}.{_TABLE}"

    def build(self, levels: int | None) -> tuple[IndexCost, ...]:
        """Load the table and make every index, one after the other."""
        data, first = self._ranges.data, str(self._funnel.stages[0].resolution)
        self._say(f"loading {len(data.rows):,} vectors")
        with entry.connect(self._url) as engine:
            table = engine.create(self._name, dims=data.dims, columns={_BY: "integer"})
            values = [int(value) for value in self._ranges.values]
            table.add(range(len(data.rows)), data.rows, columns={_BY: values})
            for each in dict.fromkeys(str(s.resolution) for s in self._funnel.stages):
                if each != f"{data.dims}:f32":
                    table.add_resolution(each, allow_rewrite=True)
        if levels is None and len(data.rows) < 2 * self._one("select funnelvec._window_floor()"):
            levels = 2
        self._connection.execute("set maintenance_work_mem = '512MB'")
        self._connection.execute("set max_parallel_maintenance_workers = 0")
        approximate = str(self._funnel.last.resolution) != f"{data.dims}:f32"
        costs = (
            self._timed(
                f"first stage {first}",
                f"select funnelvec.add_resolution('{self._name}', 'embedding', '{first}',"
                " index => true, allow_rewrite => true)",
            ),
            self._timed(
                f"windows of {first}",
                f"select funnelvec.add_window('{self._name}', 'embedding', '{first}', '{_BY}',"
                f" levels => {'null' if levels is None else levels}, allow_rewrite => true)",
            ),
            self._timed(
                "full HNSW",
                f"create index on {self._name} using hnsw (embedding vector_cosine_ops)",
            ),
            self._timed("B-tree", f"create index on {self._name} ({_BY})"),
        )
        self._connection.execute(
            f"select funnelvec.create_funnel('{_FUNCTION}', '{self._name}', 'embedding',"
            f" '{self._funnel}', approximate => {approximate})"
        )
        self._connection.execute(f"vacuum analyze {self._name}")
        return costs

    def _timed(self, name: str, statement: str) -> IndexCost:
        self._say(f"building {name}")
        count, size = self._indexes()
        started = time.perf_counter()
        self._connection.execute(statement)
        seconds = time.perf_counter() - started
        after, grown = self._indexes()
        return IndexCost(name, after - count, seconds, grown - size)

    def _indexes(self) -> tuple[int, int]:
        row = self._connection.execute(
            "select count(*), coalesce(sum(pg_relation_size(indexrelid)), 0)::bigint"
            " from pg_index where indrelid = %s::regclass",
            [self._name],
        ).fetchone()
        return row[0], row[1]

    def _one(self, query: str, *values: object) -> Any:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else row[0]

    def measure(self, aim: float, truth: Truth) -> WindowRow:
        """Ask all cases of one width of all three, in turns."""
        self._say(f"ranges made to hold {aim:.2%} of the rows")
        numbers = [i for i, case in enumerate(self._ranges.cases) if case.aim == aim]
        cases = [self._ranges.cases[i] for i in numbers]
        asked = [(self._queries[case.query], case) for case in cases]
        share = fmean(case.share for case in cases)
        oversampled = min(_MOST, max(_LEAST, math.ceil(2 * self._k / max(share, 1e-9))))
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
        return WindowRow(
            aim=aim,
            share=share,
            cases=len(cases),
            windows_ms=median(medians[0]),
            post_ms=median(medians[1]),
            iterative_ms=median(medians[2]),
            windows_recall=recall[0],
            post_recall=recall[1],
            iterative_recall=recall[2],
            oversampled=oversampled,
            ways=self._ways(asked),
            versus_post=ratio(medians[0], medians[1]),
            versus_iterative=ratio(medians[0], medians[2]),
        )

    @contextlib.contextmanager
    def _lanes(self, oversampled: int) -> Iterator[list[_RangeLane]]:
        keep = self._funnel.stages[0].keep or _LEAST
        where = f"{_BY} between %(low)s and %(high)s"
        near = f"select id, {_BY}, embedding <=> %(query)s as distance from {self._name}"
        # The planner sees the values of each case, as it does behind our function.
        custom = ("plan_cache_mode", "force_custom_plan")
        ways = (
            (
                "windows",
                f"select id from {self._schema}.{_FUNCTION}"
                "(%(query)s, %(k)s, filter => %(filter)s::jsonb)",
                (),
            ),
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
                    ("hnsw.ef_search", str(min(keep, _MOST))),
                ),
            ),
        )
        with contextlib.ExitStack() as stack:
            lanes = []
            for name, statement, settings in ways:
                contestant = Contestant(
                    name=name,
                    label=name,
                    table=_TABLE,
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
                    f"{self._schema}.{_FUNCTION}",
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
