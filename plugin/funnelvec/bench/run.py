"""The comparison: the same queries to every contestant in turns, in one run."""

from __future__ import annotations

import bisect
import contextlib
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from funnelvec.bench import overhead, stage
from funnelvec.bench.contestants import (
    EF_SEARCH,
    FILTER_COLUMN,
    FUNNEL_NAME,
    Contestant,
    default_funnel,
    exact_scan,
    full_hnsw,
    our_funnel,
)
from funnelvec.bench.data import Dataset
from funnelvec.bench.oracle import Oracle
from funnelvec.bench.report import BenchReport, Standing, Times
from funnelvec.calibration.listed import DEPTH
from funnelvec.engines import checks
from funnelvec.errors import InvalidInput
from funnelvec.funnel import Funnel

__all__ = ["compare", "settle", "standing", "take_turns"]

# Exact search takes long, as long for any query, and its recall is known: it answers every
# twentieth query of a round.
_EXACT_EVERY = 20
# Pairs differ little from query to query, so that these are enough.
_OVERHEAD_QUERIES = 50


def compare(
    url: str | None,
    dataset: Dataset,
    *,
    funnel: Funnel | str | None = None,
    k: int = 10,
    rounds: int = 5,
    builds: int = 1,
    with_overhead: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Measure a funnel beside full-vector HNSW and exact search on the same vectors.

    Parameters
    ----------
    url
        A Postgres with funnelvec; None starts a server for this run. Tables are made in a schema
        of their own, which is dropped at the end.
    funnel
        What to measure; None takes `contestants.default_funnel`.
    rounds
        How often all queries are asked; ratios get their spread from this.
    builds
        How often each index is built.
    with_overhead
        Also measure the funnel's function against the bare SQL in it.
    say
        Told what is being done.

    Raises
    ------
    InvalidInput
        For counts below 1, or a funnel that does not fit the vectors.
    EngineError
        If a contestant's index is not used.
    """
    checks.check_k(k)
    if rounds < 1 or builds < 1:
        raise InvalidInput(f"rounds and builds must be at least 1, not {rounds} and {builds}")
    chosen = _checked(funnel, dataset, k)
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if url is None:
            say("starting a server")
            url = stack.enter_context(stage.hosted(dataset))
        run = _Run(stack, url, dataset, k=k, rounds=rounds, builds=builds, say=say)
        report = run.report(chosen, with_overhead=with_overhead)
    return replace(report, seconds=time.perf_counter() - started)


def _checked(funnel: Funnel | str | None, dataset: Dataset, k: int) -> Funnel:
    if funnel is None:
        chosen = default_funnel(dataset.dims)
    else:
        chosen = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
    # Whether the last stage is exact shows in the recall, so nothing has to be admitted here.
    chosen.check(dims=dataset.dims, code="f32", approximate=True)
    keeps = [each.keep for each in chosen.stages if each.keep is not None]
    if keeps and k > min(keeps):
        raise InvalidInput(f"k={k} is more than {chosen} keeps; ask for at most {min(keeps)}")
    return chosen


class _Run:
    """One run; the server, the schema and the connections live as long as `stack`."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        url: str,
        dataset: Dataset,
        *,
        k: int,
        rounds: int,
        builds: int,
        say: Callable[[str], None],
    ) -> None:
        self._stack, self._url, self._dataset = stack, url, dataset
        self._k, self._rounds, self._builds, self._say = k, rounds, builds, say
        self._queries = stage.parameters(dataset.queries)
        self._notes: list[str] = []

    def report(self, funnel: Funnel, *, with_overhead: bool) -> BenchReport:
        """Load, build, measure."""
        dataset = self._dataset
        connection = self._stack.enter_context(stage.connected(self._url))
        schema = self._stack.enter_context(stage.workspace(connection))
        self._say(f"loading {len(dataset.rows):,} vectors of {dataset.dims:,} dimensions, twice")
        stage.load(self._url, connection, schema, dataset)
        contestants = self._contestants(schema, funnel)
        seconds, said = stage.build(
            connection, schema, contestants, dataset=dataset, builds=self._builds, say=self._say
        )
        self._notes += said
        settle(connection)
        standings = self._standings(schema, contestants, seconds)
        overheads: tuple[overhead.Overhead, ...] = ()
        if with_overhead:
            overheads = self._overheads(connection, schema, funnel)
        return BenchReport(
            dataset=dataset.name,
            note=dataset.note,
            rows=len(dataset.rows),
            dims=dataset.dims,
            queries=len(dataset.queries),
            k=self._k,
            rounds=self._rounds,
            server=_describe_server(connection),
            standings=standings,
            overheads=overheads,
            notes=(*self._notes, *self._access(connection, schema)),
        )

    def _contestants(self, schema: str, funnel: Funnel) -> list[Contestant]:
        dims = self._dataset.dims
        contestants = [our_funnel(schema, funnel, dims=dims)]
        if dims <= 4000:
            contestants.append(full_hnsw(schema, dims=dims, ef_search=EF_SEARCH[0]))
        else:
            self._notes.append("no full HNSW: pgvector indexes 4,000 dimensions at most")
        return [*contestants, exact_scan(schema, every=_EXACT_EVERY)]

    def _standings(
        self,
        schema: str,
        contestants: list[Contestant],
        seconds: dict[tuple[str, ...], tuple[float, ...]],
    ) -> tuple[Standing, ...]:
        self._say("exact answers")
        oracle = Oracle.of(self._dataset.rows, self._dataset.queries, k=self._k)
        lanes = [self._lane(contestant) for contestant in contestants]
        self._match(lanes, schema, oracle)
        recalls = [self._recall(lane, oracle) for lane in lanes]
        times = take_turns(lanes, self._queries, rounds=self._rounds, say=self._say)
        return tuple(
            standing(lane, schema, recall, each, seconds.get(lane.contestant.build, ()))
            for lane, recall, each in zip(lanes, recalls, times, strict=True)
        )

    def _overheads(
        self, connection: Any, schema: str, funnel: Funnel
    ) -> tuple[overhead.Overhead, ...]:
        self._say("overhead of the function")
        function, queries = f"{schema}.{FUNNEL_NAME}", self._queries[:_OVERHEAD_QUERIES]
        bare = overhead.measure(
            connection,
            function,
            queries,
            keep=funnel.stages[0].keep or self._k,
            k=self._k,
            rounds=self._rounds,
            filter={FILTER_COLUMN: {"$lt": 50}},
        )
        if (funnel.narrowest_keep or 0) < DEPTH:
            self._notes.append(f"relevance not timed: the funnel keeps fewer than {DEPTH} rows")
            return bare
        self._say("overhead of relevance")
        calibrated = f"{function}_calibrated"
        # A model of its own, so that the calibration is not that of the other funnel.
        connection.execute(
            "select funnelvec.create_funnel(%s, table_name, column_name, funnel,"
            " approximate => true, model => 'relevance') from funnelvec._funnel(%s)",
            [f"{FUNNEL_NAME}_calibrated", function],
        )
        return bare + overhead.measure_relevance(
            connection, function, calibrated, queries, k=self._k, rounds=self._rounds
        )

    def _lane(self, contestant: Contestant) -> stage.Lane:
        lane = self._stack.enter_context(stage.open_lane(self._url, contestant, k=self._k))
        stage.check_plan(lane, self._queries[0])
        return lane

    def _match(self, lanes: list[stage.Lane], schema: str, oracle: Oracle) -> None:
        """Add full HNSW with the shortest list that finds as much as ours, after the default."""
        mine = self._recall(lanes[0], oracle)
        for place, lane in enumerate(lanes):
            if lane.contestant.ours or not lane.contestant.index:
                continue
            self._say(f"looking for the ef_search at which full HNSW reaches recall {mine:.4f}")
            position = bisect.bisect_left(
                EF_SEARCH, True, key=lambda length: self._recall_at(lane, length, oracle) >= mine
            )
            reached = position < len(EF_SEARCH)
            found = EF_SEARCH[min(position, len(EF_SEARCH) - 1)]
            lane.change("hnsw.ef_search", str(EF_SEARCH[0]))
            if not reached:
                self._notes.append(f"full HNSW does not reach our recall with ef_search {found}")
            if found == EF_SEARCH[0]:
                self._notes.append(f"full HNSW reaches our recall with ef_search {found} already")
                return
            note = " (as good as ours)" if reached else " (its best)"
            matched = full_hnsw(schema, dims=self._dataset.dims, ef_search=found, note=note)
            lanes.insert(place + 1, self._lane(matched))
            return

    def _recall_at(self, lane: stage.Lane, ef_search: int, oracle: Oracle) -> float:
        lane.change("hnsw.ef_search", str(ef_search))
        return self._recall(lane, oracle)

    def _recall(self, lane: stage.Lane, oracle: Oracle) -> float:
        """Recall on all queries, or on those it answers; this warms caches up, too."""
        return fmean(
            oracle.recall(i, [row[0] for row in lane.search(query)])
            for i, query in enumerate(self._queries)
            if i % lane.contestant.every == 0
        )

    def _access(self, connection: Any, schema: str) -> list[str]:
        """Say so if our own first stage has no index to start from."""
        row = (
            stage.binary_cursor(connection)
            .execute(
                "select e.access from funnelvec.explain(%s, %s, %s) as e order by e.stage limit 1",
                [f"{schema}.{FUNNEL_NAME}", self._queries[0], self._k],
            )
            .fetchone()
        )
        access = str(row[0]) if row else "nothing"
        if access.startswith("index"):
            return []
        return [f"the funnel's first stage is answered by {access}, not by its index"]


def take_turns(
    lanes: Sequence[stage.Runner],
    queries: Sequence[object],
    *,
    rounds: int,
    say: Callable[[str], None] = lambda text: None,
) -> list[list[Times]]:
    """Time every lane on every query, `rounds` times; milliseconds per lane, round and query.

    The lanes take turns query by query, so that a busy machine slows all of them alike, and the
    order rotates, so that nobody always follows the same one.
    """
    times: list[list[Times]] = [[{} for _ in range(rounds)] for _ in lanes]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            say(f"round {turn + 1} of {rounds}")
            for i, query in enumerate(queries):
                for shift in range(len(lanes)):
                    place = (i + turn + shift) % len(lanes)
                    lane = lanes[place]
                    if i % lane.contestant.every:
                        continue
                    started = time.perf_counter_ns()
                    lane.search(query)
                    times[place][turn][i] = (time.perf_counter_ns() - started) / 1e6
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return times


def standing(
    lane: stage.Runner,
    schema: str,
    recall: float,
    times: list[Times],
    build_seconds: tuple[float, ...],
) -> Standing:
    """The figures of one lane; sizes are asked for here."""
    contestant = lane.contestant
    sizes = lane.sizes(schema)
    return Standing(
        name=contestant.name,
        label=contestant.label,
        ours=contestant.ours,
        settings=", ".join(
            [*(f"{name} {value}" for name, value in contestant.settings), contestant.remark]
        ).strip(", "),
        statement=contestant.statement.replace(f"{schema}.", ""),
        recall=recall,
        times=tuple(times),
        index_bytes=sizes.index,
        total_bytes=sizes.total,
        build_seconds=build_seconds,
    )


def settle(connection: Any) -> None:
    """Write everything out, where the role may, or it happens while contestants are measured."""
    row = connection.execute(
        "select rolsuper from pg_roles where rolname = current_user"
    ).fetchone()
    if row and row[0]:
        connection.execute("checkpoint")


def _describe_server(connection: Any) -> dict[str, str]:
    row = connection.execute(
        "select current_setting('server_version'),"
        "       (select extversion from pg_extension where extname = 'vector'),"
        "       funnelvec.version(), current_setting('shared_buffers'),"
        "       current_setting('maintenance_work_mem'),"
        "       current_setting('max_parallel_maintenance_workers'),"
        "       current_setting('max_parallel_workers_per_gather'), current_setting('fsync'),"
        "       current_setting('jit')"
    ).fetchone()
    names = (
        *("PostgreSQL", "pgvector", "funnelvec", "shared_buffers", "maintenance_work_mem"),
        *("max_parallel_maintenance_workers", "max_parallel_workers_per_gather", "fsync", "jit"),
    )
    return {**dict(zip(names, row, strict=True)), "client CPUs": str(os.cpu_count())}
