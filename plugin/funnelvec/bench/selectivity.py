"""Filtered searches, from one row in ten thousand to all: a funnel, pgvector's own way, and exact.

All three search one table under one filter, on a column that says nothing about the vectors, once
without and once with an index on that column. They take turns, query by query.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from funnelvec import entry
from funnelvec.bench import stage
from funnelvec.bench.contestants import Contestant, default_funnel
from funnelvec.bench.data import Dataset
from funnelvec.bench.report import Section
from funnelvec.bench.run import take_turns
from funnelvec.bench.stats import Ratio, ratio
from funnelvec.funnel import Funnel

if TYPE_CHECKING:
    Connection = Any

__all__ = ["SHARES", "FilterReport", "FilterRow", "measure_filters"]

#: Shares of the rows that match.
SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)

_TABLE, _FUNCTION = "filtered", "filtered_search"
_COLUMNS = ("bare", "indexed")
# Exact search takes as long for any query, so that these are enough.
_EXACT_EVERY = 4


@dataclass(frozen=True, slots=True)
class FilterRow:
    """One filter: median milliseconds and recall of each way, and how ours went about it.

    `versus_iterative` and `versus_exact` are our time divided by theirs.
    """

    column: str
    share: float
    matching: int
    access: str
    funnel_ms: float
    iterative_ms: float
    exact_ms: float
    funnel_recall: float
    iterative_recall: float
    short: int
    iterative_short: int
    versus_iterative: Ratio | None
    versus_exact: Ratio | None


@dataclass(frozen=True, slots=True)
class FilterReport:
    """Everything that one run found."""

    dataset: str
    rows: int
    dims: int
    funnel: str
    k: int
    queries: int
    rounds: int
    measured: tuple[FilterRow, ...]

    def section(self) -> Section:
        """The table to print."""
        head = (
            *("filter on", "matches", "funnel ms", "iterative ms", "exact ms"),
            *("recall", "its recall", "its short"),
            *("ours / iterative", "ours / exact", "our way"),
        )
        rows = tuple(
            (
                f"{each.column} column",
                f"{each.share:.2%}",
                f"{each.funnel_ms:.2f}",
                f"{each.iterative_ms:.2f}",
                f"{each.exact_ms:.2f}",
                f"{each.funnel_recall:.3f}",
                f"{each.iterative_recall:.3f}",
                str(each.iterative_short),
                _text(each.versus_iterative),
                _text(each.versus_exact),
                each.access.partition(", about")[0],
            )
            for each in self.measured
        )
        return Section("Filters: from few rows to all", head, rows)

    def lines(self) -> list[str]:
        """What to say below the table."""
        return [
            f"data: {self.dataset}; {self.rows:,} rows x {self.dims:,} dimensions, {self.queries} "
            f"queries in turns, {self.rounds} rounds; k {self.k}; funnel {self.funnel}",
            "iterative: full HNSW with hnsw.iterative_scan = relaxed_order, its list as long as "
            "our first keep, the planner free to go without it; exact: every matching row compared",
            "short: queries that got fewer rows than match; ours had "
            f"{sum(each.short for each in self.measured)}",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        rows = [
            {
                **asdict(each),
                "versus_iterative": each.versus_iterative and each.versus_iterative.as_json(),
                "versus_exact": each.versus_exact and each.versus_exact.as_json(),
            }
            for each in self.measured
        ]
        return {**asdict(self), "format": 1, "measured": rows}


def _text(value: Ratio | None) -> str:
    return "-" if value is None else value.text()


def measure_filters(
    url: str | None,
    dataset: Dataset,
    *,
    funnel: Funnel | str | None = None,
    k: int = 10,
    rounds: int = 3,
    say: Callable[[str], None] = lambda text: None,
) -> FilterReport:
    """Measure filtered searches at every share of `SHARES`; see `compare` for the arguments."""
    chosen = default_funnel(dataset.dims) if funnel is None else Funnel.parse(str(funnel))
    chosen.check(dims=dataset.dims, code="f32", approximate=True)
    with contextlib.ExitStack() as stack:
        if url is None:
            say("starting a server")
            url = stack.enter_context(stage.hosted(dataset))
        connection = stack.enter_context(stage.connected(url))
        schema = stack.enter_context(stage.workspace(connection))
        say(f"loading {len(dataset.rows):,} vectors, building both indexes")
        _prepare(url, connection, schema, dataset, chosen)
        measured = []
        for column in _COLUMNS:
            for share in SHARES:
                say(f"filter on the {column} column, {share:.2%} of the rows")
                turn = _Turn(url, schema, dataset, chosen, k=k, rounds=rounds)
                measured.append(turn.measure(connection, column, share))
    return FilterReport(
        dataset=dataset.name,
        rows=len(dataset.rows),
        dims=dataset.dims,
        funnel=str(chosen),
        k=k,
        queries=len(dataset.queries),
        rounds=rounds,
        measured=tuple(measured),
    )


def _prepare(
    url: str, connection: Connection, schema: str, dataset: Dataset, funnel: Funnel
) -> None:
    rows, dims = len(dataset.rows), dataset.dims
    place = [int(i) for i in np.random.default_rng(0).permutation(rows)]
    name = f"{schema}.{_TABLE}"
    with entry.connect(url) as engine:
        table = engine.create(name, dims=dims, columns=dict.fromkeys(_COLUMNS, "integer"))
        table.add(range(rows), dataset.rows, columns=dict.fromkeys(_COLUMNS, place))
        connection.execute("set maintenance_work_mem = '512MB'")
        connection.execute("set max_parallel_maintenance_workers = 0")
        for number, resolution in enumerate(
            dict.fromkeys(str(stage.resolution) for stage in funnel.stages)
        ):
            if resolution != f"{dims}:f32" or number == 0:
                connection.execute(
                    "select funnelvec.add_resolution(%s, 'embedding', %s, index => %s,"
                    " allow_rewrite => true)",
                    [name, resolution, number == 0],
                )
        approximate = str(funnel.last.resolution) != f"{dims}:f32"
        table.create_funnel(_FUNCTION, funnel, approximate=approximate)
    cast = f"embedding::halfvec({dims})" if dims > 2000 else "embedding"
    opclass = "halfvec_cosine_ops" if dims > 2000 else "vector_cosine_ops"
    connection.execute(f"create index on {name} using hnsw (({cast}) {opclass})")
    connection.execute(f"create index on {name} ({_COLUMNS[1]})")
    connection.execute(f"vacuum analyze {name}")


class _Turn:
    """One filter, three ways."""

    def __init__(
        self, url: str, schema: str, dataset: Dataset, funnel: Funnel, *, k: int, rounds: int
    ) -> None:
        self._url, self._schema, self._dataset, self._funnel = url, schema, dataset, funnel
        self._k, self._rounds = k, rounds

    def measure(self, connection: Connection, column: str, share: float) -> FilterRow:
        """Ask all queries of all three in turns."""
        matching = max(1, round(share * len(self._dataset.rows)))
        filter = json.dumps({column: {"$lt": matching}})
        queries = stage.parameters(self._dataset.queries)
        with self._lanes(column, matching, filter) as lanes:
            truth = [{row[0] for row in lanes[2].search(query)} for query in queries]
            found = [
                [[row[0] for row in lane.search(query)] for query in queries] for lane in lanes[:2]
            ]
            times = take_turns(lanes, queries, rounds=self._rounds)
        wanted = min(self._k, matching)
        medians = [[median(each.values()) for each in lane] for lane in times]
        recall = [
            fmean(len(truth[i] & {*ids}) / wanted for i, ids in enumerate(answers))
            for answers in found
        ]
        short = [sum(len(ids) < wanted for ids in answers) for answers in found]
        return FilterRow(
            column=column,
            share=share,
            matching=matching,
            access=self._access(connection, filter),
            funnel_ms=median(medians[0]),
            iterative_ms=median(medians[1]),
            exact_ms=median(medians[2]),
            funnel_recall=recall[0],
            iterative_recall=recall[1],
            short=short[0],
            iterative_short=short[1],
            versus_iterative=ratio(medians[0], medians[1]),
            versus_exact=ratio(medians[0], medians[2]),
        )

    @contextlib.contextmanager
    def _lanes(self, column: str, matching: int, filter: str) -> Iterator[list[stage.Lane]]:
        name, dims = f"{self._schema}.{_TABLE}", self._dataset.dims
        cast = f"::halfvec({dims})" if dims > 2000 else ""
        distance = f"(embedding{cast}) <=> %(query)s{cast}"
        where = f"from {name} where {column} < {matching}"
        keep = self._funnel.stages[0].keep or 40
        contestants = (
            Contestant(
                name="funnel",
                label="funnel",
                table=_TABLE,
                statement=f"select id from {self._schema}.{_FUNCTION}"
                f"(%(query)s, %(k)s, filter => '{filter}')",
                ours=True,
            ),
            Contestant(
                name="iterative",
                label="iterative",
                table=_TABLE,
                statement=f"with near as materialized (select id, {distance} as distance {where} "
                "order by distance limit %(k)s) select id from near order by distance + 0",
                settings=(
                    ("hnsw.iterative_scan", "relaxed_order"),
                    ("hnsw.ef_search", str(min(keep, 1000))),
                ),
            ),
            Contestant(
                name="exact",
                label="exact",
                table=_TABLE,
                statement=f"select id {where} order by (embedding <=> %(query)s) + 0, id "
                "limit %(k)s",
                index=False,
                every=_EXACT_EVERY,
            ),
        )
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(stage.open_lane(self._url, each, k=self._k))
                for each in contestants
            ]

    def _access(self, connection: Connection, filter: str) -> str:
        query = stage.parameters(self._dataset.queries)[0]
        row = (
            stage.binary_cursor(connection)
            .execute(
                "select e.access from funnelvec.explain(%s, %s, %s, filter => %s::jsonb) as e "
                "where e.stage = 1",
                [f"{self._schema}.{_FUNCTION}", query, self._k, filter],
            )
            .fetchone()
        )
        return str(row[0]) if row else ""
