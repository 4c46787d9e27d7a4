"""One basis of `bench peers`: load, build, turn the knobs, measure in turns, build again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

from funnelvec import entry
from funnelvec.bench import langchain, library, published, stage
from funnelvec.bench.contestants import PLAIN_TABLE
from funnelvec.bench.crowd import take_turns_together
from funnelvec.bench.data import Dataset
from funnelvec.bench.entrants import Entrant, SqlEntrant
from funnelvec.bench.knobs import Setting, Tried, turn
from funnelvec.bench.oracle import Oracle
from funnelvec.bench.peers_report import BasisReport, Reading
from funnelvec.bench.recipes import Recipe, our_recipe, peers
from funnelvec.bench.report import Standing, Times
from funnelvec.bench.run import settle, standing, take_turns
from funnelvec.errors import CapabilityError, MissingDependency
from funnelvec.fitting.measure import bytes_of
from funnelvec.resolution import Resolution

__all__ = ["Plan", "Run", "templates"]

#: Queries whose pages are counted: they differ little, and exact search takes long.
_COUNTED = 5


def templates(dims: int, basis: str) -> list[tuple[str, str]]:
    """Funnels that are tried where none are named, each with a storage."""
    narrow, middle, full = min(128, dims // 2), min(512, dims // 2), f"{dims}:f32"
    signs = f"{dims}:bit~random"
    wide = middle > narrow  # or a stage between them is worth nothing
    if basis == "own":
        found = [(f"{narrow}:f16 > {full}", "column"), (f"{signs} > {full}", "column")]
        if wide:
            three = f"{narrow}:f16 > {middle}:f16 > {full}"
            found += [(three, "column"), (three, "side")]
            found.append((f"{signs} > {middle}:f16 > {full}", "column"))
        return found
    found = [(f"{signs} > {full}", "column"), (f"{dims}:bit > {full}", "column")]
    if wide:
        third = min(384, middle)
        found += [
            (f"{narrow}:f16~pca > {middle}:f16~pca > {full}", "column"),
            (f"{dims}:bit > {third}:f16~pca > {full}", "column"),
            (f"{middle}:bit~pcar > {third}:f16~pca > {full}", "column"),
        ]
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What `compare_peers` was asked for."""

    funnels: tuple[str, ...]
    target: float
    k: int
    rounds: int
    builds: int
    clients: int
    grown_from: int | None


@dataclass(slots=True, eq=False)
class _Best:
    """An entrant at its best setting, and what was measured of it on every build."""

    entrant: Entrant
    lane: stage.Runner
    tried: Tried[Setting]
    trace: tuple[Tried[Setting], ...]
    oracle: Oracle
    seconds: list[float]
    recalls: list[float] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    pages: float | None = None


class Run:
    """One basis; its schema and connections live as long as `report` runs."""

    def __init__(
        self, url: str, dataset: Dataset, plan: Plan, *, own: bool, say: Callable[[str], None]
    ) -> None:
        self._url, self._dataset, self._plan, self._own = url, dataset, plan, own
        self._say = say
        self._queries = stage.parameters(dataset.queries)
        self._oracle = Oracle.of(dataset.rows, dataset.queries, k=plan.k)
        self.notes: list[str] = []
        self._connection: Any = None
        self._schema = ""
        self._loaded = 0.0
        self._client_shares: list[float] = []

    def report(self, basis: str) -> BasisReport:
        """Load, build, turn the knobs, measure."""
        with contextlib.ExitStack() as stack:
            self._connection = stack.enter_context(stage.connected(self._url))
            self._schema = stack.enter_context(stage.workspace(self._connection))
            best = self._at_their_best(stack, self._entrants(basis))
            self._time_maps()
            finalists = self._finalists(best)
            if self._plan.grown_from is not None:
                finalists.append(self._smaller(stack, finalists[0], self._plan.grown_from))
            rates = self._measure(finalists)
            standings = [self._standing(each) for each in finalists]
        growth = standings.pop() if self._plan.grown_from is not None else None
        bounds = {each.name for each in standings} & {
            each.lane.contestant.name for each in finalists if each.entrant.bound
        }
        if self._client_shares:
            self.notes.append(
                f"basis {basis}: the {self._plan.clients} clients took "
                f"{fmean(self._client_shares):.2f} of a core, beside what they asked"
            )
        return BasisReport(
            basis,
            tuple(each for each in standings if each.name not in bounds),
            growth,
            tuple(
                (b.entrant.name, b.entrant.shown(b.tried.setting), b.tried.recall, b.tried.ms)
                for b in best
            ),
            traces=tuple((b.entrant.name, b.entrant.family, b.trace) for b in best),
            bounds=tuple(each for each in standings if each.name in bounds),
            reading=self._reading(finalists[0].entrant, rates),
        )

    def _entrants(self, basis: str) -> list[Entrant]:
        """Load the tables, and name everybody who can take part."""
        dims = self._dataset.dims
        chosen = [(each, "column") for each in self._plan.funnels] or templates(dims, basis)
        tables = [f"ours_{i}" for i in range(len(chosen))]
        recipes = [
            our_recipe(self._schema, text, table=table, dims=dims, storage=storage)
            for table, (text, storage) in zip(tables, chosen, strict=True)
        ]
        (home,) = self._connection.execute("select funnelvec._vector_schema()").fetchone()
        recipes += peers(self._schema, dims=dims)
        recipes.append(published.adaptive(self._schema, dims=dims, home=home))
        missing = published.diskann_missing(self._connection, own=self._own)
        if missing is None:
            tables.append(published.SCALE_TABLE)
            recipes.append(published.diskann(self._schema))
        recipes.append(published.exact(self._schema))
        self._say(
            f"basis {basis}: loading {len(self._dataset.rows):,} vectors {1 + len(tables)} times"
        )
        self._loaded = stage.load(
            self._url, self._connection, self._schema, self._dataset, tables=tables
        )
        found = [*map(self._entrant, recipes), *self._others()]
        self.notes += [missing] if missing else []
        return found

    def _entrant(self, recipe: Recipe) -> Entrant:
        return SqlEntrant(
            recipe,
            url=self._url,
            connection=self._connection,
            schema=self._schema,
            dataset=self._dataset,
            k=self._plan.k,
            load_seconds=self._loaded,
            notes=self.notes,
        )

    def _others(self) -> list[Entrant]:
        """Those that need a package of their own."""
        k = self._plan.k

        def store(kind: type[langchain.NewStore] | type[langchain.OldStore]) -> Entrant:
            return kind(
                self._dataset,
                connection=self._connection,
                schema=self._schema,
                k=k,
                notes=self.notes,
            )

        found: list[Entrant] = []
        makers: list[Callable[[], Entrant]] = [
            lambda: store(langchain.NewStore),
            lambda: store(langchain.OldStore),
            lambda: library.Library(self._dataset, k=k),
        ]
        for make in makers:
            try:
                found.append(make())
            except (CapabilityError, MissingDependency) as error:
                self.notes.append(f"not measured: {error}")
        return found

    def _at_their_best(
        self, stack: contextlib.ExitStack, entrants: Sequence[Entrant]
    ) -> list[_Best]:
        found = []
        for entrant in entrants:
            try:
                found.append(self._best(stack, entrant))
            except Exception as error:
                if isinstance(entrant, SqlEntrant):
                    raise
                # Somebody else's package, which may not fit this server: not worth the whole run.
                self.notes.append(f"not measured: {entrant.name}: {type(error).__name__}: {error}")
        return found

    def _best(self, stack: contextlib.ExitStack, entrant: Entrant) -> _Best:
        """Build, and turn the knobs."""
        self._say(f"building {entrant.name}")
        seconds = entrant.build()
        self._say(f"turning the knobs of {entrant.name}")
        lane = entrant.open(stack)

        def measure(setting: tuple[int, ...]) -> tuple[float, float]:
            recalls, ms = self._recalls(entrant.turned(lane, setting), self._oracle)
            return fmean(recalls), median(ms)

        tried, trace = turn(entrant.knobs, measure, k=self._plan.k, target=self._plan.target)
        lane = entrant.turned(lane, tried.setting)
        entrant.check(lane, self._queries[0])
        return _Best(entrant, lane, tried, trace, self._oracle, [seconds])

    def _recalls(self, lane: stage.Runner, oracle: Oracle) -> tuple[list[float], list[float]]:
        recalls, milliseconds = [], []
        for i, query in enumerate(self._queries):
            if i % lane.contestant.every:
                continue
            started = time.perf_counter_ns()
            rows = lane.search(query)
            milliseconds.append((time.perf_counter_ns() - started) / 1e6)
            recalls.append(oracle.recall(i, [row[0] for row in rows]))
        return recalls, milliseconds

    def _finalists(self, best: list[_Best]) -> list[_Best]:
        """The best of each family, ours first."""
        families: dict[str, list[_Best]] = {}
        for each in best:
            families.setdefault(each.entrant.family, []).append(each)

        def rank(found: _Best) -> tuple[bool, float]:
            """Those that reach the recall by their time, the others by how much they find."""
            reached = found.tried.recall >= self._plan.target
            return (not reached, found.tried.ms if reached else -found.tried.recall)

        return [min(members, key=rank) for members in families.values()]

    def _measure(self, finalists: Sequence[_Best]) -> list[float]:
        """Take turns on every build; bytes a second at which memory is read, round by round."""
        rates = []
        for build in range(self._plan.builds):
            for each in finalists:
                if build:
                    self._say(f"build {build + 1} of {self._plan.builds}: {each.entrant.name}")
                    each.seconds.append(each.entrant.build())
                    each.lane = each.entrant.turned(each.lane, each.tried.setting)
                each.recalls.append(fmean(self._recalls(each.lane, each.oracle)[0]))
                if not build:
                    each.pages = each.entrant.pages(each.lane, self._queries[:_COUNTED])
            settle(self._connection)
            lanes = [each.lane for each in finalists]
            times = take_turns(lanes, self._queries, rounds=self._plan.rounds, say=self._say)
            for each, taken in zip(finalists, times, strict=True):
                each.times += taken
            rates += [library.read_rate() for _ in range(self._plan.rounds)]
            if self._plan.clients > 1:
                self._measure_together(finalists)
        return rates

    def _measure_together(self, finalists: Sequence[_Best]) -> None:
        with contextlib.ExitStack() as stack:
            clients = [
                [
                    each.entrant.turned(each.entrant.open(stack), each.tried.setting, ready=False)
                    for _ in range(self._plan.clients)
                ]
                for each in finalists
            ]
            found = take_turns_together(
                clients, self._queries, rounds=self._plan.rounds, say=self._say
            )
        for each, rates in zip(finalists, found.rates, strict=True):
            each.together += rates
        self._client_shares.append(found.client_share)

    def _standing(self, found: _Best) -> Standing:
        built = tuple(found.seconds) if any(found.seconds) else ()
        return replace(
            standing(found.lane, self._schema, fmean(found.recalls), found.times, built),
            mapping_ms=self._mapping_ms(found.lane),
            family=found.entrant.family,
            recalls=tuple(found.recalls),
            together=tuple(found.together),
            pages=found.pages,
            load_seconds=found.entrant.load_seconds,
            rows=len(found.oracle.rows),
        )

    def _mapping_ms(self, lane: stage.Runner) -> float:
        """Median milliseconds of mapping one query in Python; 0 where nothing is mapped."""
        if not isinstance(lane, stage.Lane) or lane.mapper is None:
            return 0.0
        found = []
        for query in self._queries:
            started = time.perf_counter_ns()
            lane.mapper.parameters(query)
            found.append((time.perf_counter_ns() - started) / 1e6)
        return median(found)

    def _reading(self, ours: Entrant, rates: list[float]) -> Reading | None:
        if not isinstance(ours, SqlEntrant):
            return None
        first = ours.name.partition(" >")[0]
        size = bytes_of(Resolution.parse(first)) * len(self._dataset.rows)
        return Reading(first, size, tuple(rates))

    def _time_maps(self) -> None:
        """Note what mapping one query costs; the functions for it stand in the schema."""
        cursor = stage.binary_cursor(self._connection)
        for (name,) in self._connection.execute(
            "select p.proname from pg_proc p"
            " where p.pronamespace = %s::regnamespace"
            " and obj_description(p.oid, 'pg_proc') like 'rotation %%' order by p.proname",
            [self._schema],
        ).fetchall():
            in_sql = []
            for query in self._queries[:40]:
                started = time.perf_counter_ns()
                cursor.execute(f"select {self._schema}.{name}(%s) is null", [query], prepare=True)
                in_sql.append((time.perf_counter_ns() - started) / 1e6)
            self.notes.append(f"mapping a query by {name}: {median(in_sql):.2f} ms in SQL")

    def _smaller(self, stack: contextlib.ExitStack, found: _Best, rows: int) -> _Best:
        """The same funnel over the first rows, on a table of its own."""
        self._say(f"the same over {rows:,} rows")
        assert isinstance(found.entrant, SqlEntrant)  # ours come first
        table = f"{found.entrant.table}_less"
        with entry.connect(self._url) as engine:
            engine.create(f"{self._schema}.{table}", dims=self._dataset.dims)
        self._connection.execute(
            f"insert into {self._schema}.{table} select id, embedding "
            f"from {self._schema}.{PLAIN_TABLE} where id < {rows} order by id"
        )
        entrant = found.entrant.elsewhere(table)
        seconds = entrant.build()
        lane = entrant.turned(entrant.open(stack), found.tried.setting)
        oracle = Oracle.of(self._dataset.rows[:rows], self._dataset.queries, k=self._plan.k)
        return replace(
            found, entrant=entrant, lane=lane, oracle=oracle, seconds=[seconds], recalls=[],
            times=[], together=[], pages=None,
        )  # fmt: skip
