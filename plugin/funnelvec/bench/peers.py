"""Every recipe at its best setting for a recall, side by side, in one run.

A recipe's knobs are turned until it reaches the recall at the least median time; the best of each
family then answers the same queries in turns. Vectors count in two bases: as they are, and under a
random orthogonal matrix, which leaves every cosine as it is and takes from a prefix what it knew.
"""

from __future__ import annotations

import bisect
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import numpy as np

from funnelvec import entry
from funnelvec.bench import stage
from funnelvec.bench.contestants import PLAIN_TABLE
from funnelvec.bench.data import Dataset
from funnelvec.bench.mapping import Mapper
from funnelvec.bench.oracle import Oracle
from funnelvec.bench.peers_report import BasisReport, PeersReport
from funnelvec.bench.recipes import Recipe, Setting, our_recipe, peers
from funnelvec.bench.run import standing, take_turns
from funnelvec.engines import checks
from funnelvec.errors import InvalidInput
from funnelvec.fitting.axes import random_orthogonal

__all__ = ["BASES", "compare_peers", "templates"]

#: As they are; and under a random orthogonal matrix.
BASES = ("own", "rotated")

Say = Callable[[str], None]


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


def compare_peers(
    url: str | None,
    dataset: Dataset,
    *,
    funnels: Sequence[str] = (),
    target: float = 0.99,
    k: int = 10,
    rounds: int = 5,
    bases: Sequence[str] = BASES,
    grown_from: int | None = None,
    say: Say = lambda text: None,
) -> PeersReport:
    """Measure funnels beside the recipes of pgvector's manual.

    Parameters
    ----------
    url
        As for `compare`.
    funnels
        Templates, funnels without keeps; empty takes those of `templates`.
    target
        Recall@k that every recipe has to reach, 0 to 1.
    grown_from
        Also run the best funnel on so many of the rows.

    Raises
    ------
    InvalidInput
        For a recall or a basis that does not exist, or a template that is none.
    """
    checks.check_k(k)
    if not 0 < target <= 1:
        raise InvalidInput(f"a recall is above 0 and at most 1, unlike {target}")
    if unknown := set(bases) - set(BASES):
        raise InvalidInput(f"there is no basis {min(unknown)!r}; there are {', '.join(BASES)}")
    if rounds < 1:
        raise InvalidInput(f"rounds must be at least 1, not {rounds}")
    if grown_from is not None and not k < grown_from < len(dataset.rows):
        raise InvalidInput(
            f"the smaller table must have more than k={k} and fewer than {len(dataset.rows):,} "
            f"rows, not {grown_from:,}"
        )
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if url is None:
            say("starting a server")
            url = stack.enter_context(stage.hosted(dataset, tables=6))
        found, notes = [], []
        for basis in bases:
            turned = dataset if basis == "own" else _rotated(dataset)
            run = _Run(url, turned, target=target, k=k, rounds=rounds, say=say)
            found.append(run.report(basis, funnels, grown_from=grown_from))
            notes += run.notes
    return PeersReport(
        dataset=dataset.name,
        note=dataset.note,
        rows=len(dataset.rows),
        dims=dataset.dims,
        queries=len(dataset.queries),
        k=k,
        target=target,
        rounds=rounds,
        grown_from=grown_from,
        bases=tuple(found),
        notes=tuple(dict.fromkeys(notes)),
        seconds=time.perf_counter() - started,
    )


def _rotated(dataset: Dataset) -> Dataset:
    turn = random_orthogonal(dataset.dims, 0).astype(np.float32)
    return replace(dataset, rows=dataset.rows @ turn, queries=dataset.queries @ turn)


@dataclass(slots=True)
class _Best:
    """A recipe's lane at its best setting."""

    recipe: Recipe
    lane: stage.Lane
    setting: Setting
    recall: float
    ms: float


class _Run:
    """One basis; its schema and connections live as long as `report` runs."""

    def __init__(
        self, url: str, dataset: Dataset, *, target: float, k: int, rounds: int, say: Say
    ) -> None:
        self._url, self._dataset = url, dataset
        self._target, self._k, self._rounds, self._say = target, k, rounds, say
        self._queries = stage.parameters(dataset.queries)
        self._oracle = Oracle.of(dataset.rows, dataset.queries, k=k)
        self.notes: list[str] = []
        self._schema = ""
        self._mappers: dict[str, Mapper | None] = {}

    def report(self, basis: str, funnels: Sequence[str], *, grown_from: int | None) -> BasisReport:
        """Load, build, turn the knobs, measure."""
        dataset, say = self._dataset, self._say
        chosen = [(each, "column") for each in funnels] or templates(dataset.dims, basis)
        tables = [f"ours_{i}" for i in range(len(chosen))]
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(stage.connected(self._url))
            schema = self._schema = stack.enter_context(stage.workspace(connection))
            ours = [
                our_recipe(schema, text, table=table, dims=dataset.dims, storage=storage)
                for table, (text, storage) in zip(tables, chosen, strict=True)
            ]
            recipes = [*ours, *peers(schema, dims=dataset.dims)]
            say(f"basis {basis}: loading {len(dataset.rows):,} vectors {1 + len(tables)} times")
            stage.load(self._url, connection, schema, dataset, tables=tables)
            seconds = self._build(connection, schema, recipes)
            best = [self._best(stack, each) for each in recipes]
            finalists = self._finalists(best)
            lanes = [each.lane for each in finalists]
            if grown_from is not None:
                lanes.append(self._smaller(stack, connection, schema, finalists[0], grown_from))
            times = take_turns(lanes, self._queries, rounds=self._rounds, say=say)
            standings = [
                replace(
                    standing(lane, schema, found.recall, each, seconds[lane.contestant.build]),
                    mapping_ms=self._mapping_ms(lane),
                )
                for lane, found, each in zip(lanes, finalists, times, strict=False)
            ]
            growth = None
            if grown_from is not None:
                growth = standing(
                    lanes[-1], schema, self._smaller_recall(lanes[-1], grown_from), times[-1], ()
                )
        tried = tuple(
            (each.recipe.name, _shown(each.recipe, each.setting), each.recall, each.ms)
            for each in best
        )
        return BasisReport(basis, tuple(standings), growth, tried)

    def _smaller_recall(self, lane: stage.Lane, rows: int) -> float:
        few = self._dataset.rows[:rows]
        oracle = Oracle.of(few, self._dataset.queries, k=self._k)
        return fmean(self._recalls(lane, oracle)[0])

    def _build(
        self, connection: Any, schema: str, recipes: list[Recipe]
    ) -> dict[tuple[str, ...], tuple[float, ...]]:
        """Fit what has to be fitted and build every index; seconds of both together."""
        fitted = {each.at(each.dearest()).build: self._fit(schema, each) for each in recipes}
        self.notes += [
            f"{each.name}: fitting took {fitted[each.at(each.dearest()).build]:.1f} s, which "
            "counts as building"
            for each in recipes
            if each.fitted
        ]
        seconds, said = stage.build(
            connection,
            schema,
            [each.at(each.dearest()) for each in recipes],
            dataset=self._dataset,
            builds=1,
            say=self._say,
        )
        self.notes += said
        self._time_maps(connection, schema)
        return {
            build: tuple(fitted[build] + each for each in times) for build, times in seconds.items()
        }

    def _mapping_ms(self, lane: stage.Lane) -> float:
        """Median milliseconds of mapping one query in Python; 0 where nothing is mapped."""
        if lane.mapper is None:
            return 0.0
        found = []
        for query in self._queries:
            started = time.perf_counter_ns()
            lane.mapper.parameters(query)
            found.append((time.perf_counter_ns() - started) / 1e6)
        return median(found)

    def _time_maps(self, connection: Any, schema: str) -> None:
        """Note what mapping one query costs; the functions for it stand in the schema."""
        cursor = stage.binary_cursor(connection)
        for (name,) in connection.execute(
            "select p.proname from pg_proc p"
            " where p.pronamespace = %s::regnamespace"
            " and obj_description(p.oid, 'pg_proc') like 'rotation %%' order by p.proname",
            [schema],
        ).fetchall():
            in_sql = []
            for query in self._queries[:40]:
                started = time.perf_counter_ns()
                cursor.execute(f"select {schema}.{name}(%s) is null", [query], prepare=True)
                in_sql.append((time.perf_counter_ns() - started) / 1e6)
            self.notes.append(f"mapping a query by {name}: {median(in_sql):.2f} ms in SQL")

    def _fit(self, schema: str, recipe: Recipe) -> float:
        """Fit what rotations the recipe names; seconds."""
        started = time.perf_counter()
        with entry.connect(self._url) as engine:
            table = engine.table(f"{schema}.{recipe.at(recipe.dearest()).table}")
            for name, dims, chain in recipe.fitted:
                table.fit_rotation(name, dims=dims, then=chain)
        return time.perf_counter() - started if recipe.fitted else 0.0

    def _finalists(self, best: list[_Best]) -> list[_Best]:
        """The best of each family, ours first."""
        families: dict[str, list[_Best]] = {}
        for each in best:
            families.setdefault(each.recipe.family, []).append(each)
        return [min(members, key=self._rank) for members in families.values()]

    def _rank(self, found: _Best) -> tuple[bool, float]:
        """Those that reach the recall by their time, the others by how much they find."""
        reached = found.recall >= self._target
        return (not reached, found.ms if reached else -found.recall)

    def _best(self, stack: contextlib.ExitStack, recipe: Recipe) -> _Best:
        """Turn the knobs: halve the last one for every value of those before."""
        self._say(f"turning the knobs of {recipe.name}")
        lane = stack.enter_context(
            stage.open_lane(self._url, recipe.at(recipe.dearest()), k=self._k)
        )
        best: _Best | None = None
        last = recipe.knobs[-1][1]
        for start in recipe.starts():
            values = [v for v in last if v >= self._k and (not start or v <= start[-1])]
            recall, _ = self._at(lane, recipe, (*start, values[-1]))
            if recall < self._target:
                continue
            position = bisect.bisect_left(
                values,
                True,
                key=lambda value: self._at(lane, recipe, (*start, value))[0] >= self._target,
            )
            setting = (*start, values[min(position, len(values) - 1)])
            recall, ms = self._at(lane, recipe, setting)
            if best is not None and ms > best.ms:
                break  # a longer list takes longer, whatever comes after it
            best = _Best(recipe, lane, setting, recall, ms)
        if best is None:
            setting = recipe.dearest()
            best = _Best(recipe, lane, setting, *self._at(lane, recipe, setting))
        best.lane = self._set(lane, recipe, best.setting)
        stage.check_plan(best.lane, self._queries[0])
        return best

    def _at(self, lane: stage.Lane, recipe: Recipe, setting: Setting) -> tuple[float, float]:
        """Mean recall and median milliseconds at a setting."""
        recalls, milliseconds = self._recalls(self._set(lane, recipe, setting), self._oracle)
        return fmean(recalls), median(milliseconds)

    def _set(self, lane: stage.Lane, recipe: Recipe, setting: Setting) -> stage.Lane:
        turned = replace(lane, contestant=recipe.at(setting))
        for statement in turned.contestant.ready:
            lane.connection.execute(statement)
        for name, value in turned.contestant.settings:
            lane.change(name, value)
        return self._mapping(turned) if recipe.fitted else turned

    def _mapping(self, lane: stage.Lane) -> stage.Lane:
        """Let the client map its queries, as ours does."""
        table, statement = lane.contestant.table, lane.contestant.statement
        if table not in self._mappers:
            self._mappers[table] = Mapper.of(
                lane.connection, schema=self._schema, table=table, funnel=f"{table}_search"
            )
        mapper = self._mappers[table]
        assert mapper is not None  # the funnel was made of fitted resolutions
        given = statement.replace("%(k)s", f"%(k)s{mapper.arguments}")
        return replace(lane, contestant=replace(lane.contestant, statement=given), mapper=mapper)

    def _recalls(self, lane: stage.Lane, oracle: Oracle) -> tuple[list[float], list[float]]:
        recalls, milliseconds = [], []
        for i, query in enumerate(self._queries):
            started = time.perf_counter_ns()
            rows = lane.search(query)
            milliseconds.append((time.perf_counter_ns() - started) / 1e6)
            recalls.append(oracle.recall(i, [row[0] for row in rows]))
        return recalls, milliseconds

    def _smaller(
        self,
        stack: contextlib.ExitStack,
        connection: Any,
        schema: str,
        found: _Best,
        rows: int,
    ) -> stage.Lane:
        """The same funnel over the first rows, on a table of its own."""
        self._say(f"the same over {rows:,} rows")
        table = f"{found.lane.contestant.table}_less"
        with entry.connect(self._url) as engine:
            engine.create(f"{schema}.{table}", dims=self._dataset.dims)
        connection.execute(
            f"insert into {schema}.{table} select id, embedding from {schema}.{PLAIN_TABLE} "
            f"where id < {rows} order by id"
        )
        assert found.recipe.elsewhere is not None  # ours come first
        smaller = found.recipe.elsewhere(table)
        self._fit(schema, smaller)
        built = smaller.at(found.setting)
        stage.build(
            connection, schema, [built], dataset=self._dataset, builds=1, say=lambda text: None
        )
        lane = stack.enter_context(stage.open_lane(self._url, built, k=self._k))
        return self._set(lane, smaller, found.setting)


def _shown(recipe: Recipe, setting: Setting) -> str:
    return ", ".join(
        f"{name} {value}" for (name, _), value in zip(recipe.knobs, setting, strict=True)
    )
