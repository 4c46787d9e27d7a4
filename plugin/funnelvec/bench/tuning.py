"""The tuner beside an exhaustive grid: does it find the fastest funnel, how soon, how surely?

On one table, in each basis: ``tune`` runs first, timed as a whole. Then every resolution that it
could have chosen is built, and every funnel of them is asked at every keep that is not longer than
it needs. The fastest of those which find as much as the tuner's funnel are asked other queries,
since of thousands of settings some seem to find more than they do on the queries they are picked
by; those that find as much there too, and the tuner's funnel, answer in turns. Recall is then
drawn again and again in numpy: choose with some queries, check with others, and see whether the
interval holds for the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from funnelvec import entry
from funnelvec.bench import stage
from funnelvec.bench.data import Dataset, rotated
from funnelvec.bench.peers import BASES
from funnelvec.bench.stats import Ratio, ratio
from funnelvec.bench.tuning_repeats import repeat
from funnelvec.bench.tuning_report import Cell, TuneBasis, TuneBench
from funnelvec.engines import checks
from funnelvec.errors import InvalidInput
from funnelvec.resolution import Resolution
from funnelvec.tuning.candidates import CHAIN, PCA, Template, first_stages, middle_stages
from funnelvec.tuning.measure import Asked
from funnelvec.tuning.sure import queries_needed
from funnelvec.tuning.world import Axes, World

__all__ = ["compare_tuning"]

Say = Callable[[str], None]

_TABLE = "tuned"
#: Of the grid, those that answer in turns beside the tuner's funnel.
_FINALISTS = 4
#: Keeps of the grid, and the longest of a stage between; those of one that is looked at quickly.
_COARSE = (12, 25, 60, 150, 400)
_KEEPS = (12, 15, 20, 30, 40, 60, 80, 100, 140, 200, 300, 400, 600, 1000)
_SECOND = 140
#: Settings that are asked the other queries at most.
_TRIED = 60


def compare_tuning(
    url: str | None,
    dataset: Dataset,
    *,
    target: float = 0.99,
    k: int = 10,
    rounds: int = 5,
    grid_queries: int = 100,
    coarse: bool = False,
    bases: Sequence[str] = BASES,
    say: Say = lambda text: None,
) -> TuneBench:
    """Measure the tuner beside an exhaustive grid.

    Parameters
    ----------
    url
        As for `compare`.
    target
        Recall@k to tune for.
    grid_queries
        Queries that every setting of the grid is asked, of those that the tuner has not seen. The
        others of these say which settings find as much as the tuner's funnel.
    coarse
        Ask every third keep: the tuner's own are then closer together than the grid's.

    Raises
    ------
    InvalidInput
        If the queries are too few: the tuner takes half or what it needs, the comparison the rest.
    """
    checks.check_k(k)
    needed = 3 * queries_needed(target)
    if len(dataset.queries) < needed:
        raise InvalidInput(
            f"{len(dataset.queries)} queries are too few for recall {target:g}: two thirds are to "
            f"tune with and the others to compare with; it takes {needed}"
        )
    if unknown := set(bases) - set(BASES):
        raise InvalidInput(f"there is no basis {min(unknown)!r}; there are {', '.join(BASES)}")
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if url is None:
            say("starting a server")
            url = stack.enter_context(stage.hosted(dataset, tables=4))
        found = []
        for basis in bases:
            turned = dataset if basis == "own" else rotated(dataset)
            run = _Run(
                url, turned, target=target, k=k, rounds=rounds, grid=grid_queries,
                keeps=[keep for keep in (_COARSE if coarse else _KEEPS) if keep > k], say=say,
            )  # fmt: skip
            found.append(run.report(basis))
    return TuneBench(
        dataset=dataset.name,
        rows=len(dataset.rows),
        dims=dataset.dims,
        queries=len(dataset.queries),
        k=k,
        target=target,
        rounds=rounds,
        bases=tuple(found),
        seconds=time.perf_counter() - started,
        coarse=coarse,
    )


class _Held(NamedTuple):
    """Settings of the grid on queries that they were not picked by.

    `recall` is that of the tuner's funnel there, `cells` find as much, `tried` were asked; `ahead`
    was the fastest by the grid's own queries.
    """

    asked: Asked
    recall: float
    cells: list[Cell]
    tried: int
    ahead: Cell


class _Turns(NamedTuple):
    """Our milliseconds in turns, the fastest that held, and our time over its and the first's."""

    ours: float
    best: Cell
    latency: Ratio | None
    untested: Ratio | None


class _Run:
    """One basis; its schema lives as long as `report` runs."""

    def __init__(
        self, url: str, dataset: Dataset, *, target: float, k: int, rounds: int, grid: int,
        keeps: Sequence[int], say: Say,
    ) -> None:  # fmt: skip
        self._url, self._dataset, self._target = url, dataset, target
        self._k, self._rounds, self._say = k, rounds, say
        self._keeps = keeps
        # Half tunes, or what that takes; the grid has a part of the others, and no more than half.
        queries = len(dataset.queries)
        self._part = max(queries // 2, 2 * queries_needed(target))
        self._split = self._part + min(grid, (queries - self._part) // 2)

    def report(self, basis: str) -> TuneBasis:
        """Tune, build and measure the grid, compare, repeat."""
        dataset, say = self._dataset, self._say
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(stage.connected(self._url))
            schema = stack.enter_context(stage.workspace(connection))
            engine = stack.enter_context(entry.connect(self._url))
            say(f"basis {basis}: loading {len(dataset.rows):,} vectors")
            table: Any = engine.create(f"{schema}.{_TABLE}", dims=dataset.dims)
            table.add(range(len(dataset.rows)), dataset.rows)
            connection.execute(f"vacuum analyze {schema}.{_TABLE}")
            say("tuning")
            began = time.perf_counter()
            report = table.tune(
                self._target, k=self._k, queries=dataset.queries[: self._part], on_step=say
            )
            tuned = time.perf_counter() - began
            began = time.perf_counter()
            say("building the grid")
            templates = self._build(table)
            connection.execute(f"vacuum analyze {schema}.{_TABLE}")
            built = time.perf_counter() - began
            world = self._world(dataset)
            asked = self._asked(world, slice(self._part, self._split))
            chosen = self._measured(table, asked, report.funnel)
            cells = [*self._grid(table, asked, templates, chosen.recall), chosen]
            grid = time.perf_counter() - began
            held = self._held(table, world, chosen, cells)
            compared = self._turns(table, held.asked, chosen, held)
        say("repeating with other queries")
        repeats = repeat(world, report.funnel, report.prices, target=self._target)
        return TuneBasis(
            basis=basis, funnel=report.funnel, recall=report.recall, low=report.low,
            high=report.high, checked=report.checked, met=report.met,
            chosen=replace(chosen, milliseconds=compared.ours), best=compared.best,
            latency=compared.latency, luckiest=held.ahead, untested=compared.untested,
            held=held.recall, tried=held.tried, fresh=len(held.asked), tune_seconds=tuned,
            grid_seconds=grid, build_seconds=built, settings=len(cells) - 1, repeats=repeats,
            grid=tuple(cells[:-1]),
        )  # fmt: skip

    def _world(self, dataset: Dataset) -> World:
        axes = Axes(dataset.rows, metric="cosine", kept={})
        return World(
            dataset.rows, dataset.queries, np.full(len(dataset.queries), -1),
            base=Resolution(dataset.dims, "f32"), metric="cosine", k=self._k, axes=axes,
        )  # fmt: skip

    def _asked(self, world: World, part: slice) -> Asked:
        """Queries that the tuner has not seen."""
        queries = self._dataset.queries[part]
        return Asked(queries, [None] * len(queries), world.worst[part], self._k)

    def _build(self, table: Any) -> list[Template]:
        """Build all that the tuner could have chosen, and say which funnels that makes."""
        base = Resolution(self._dataset.dims, "f32")
        fitted = min(512, len(self._dataset.rows) // 3)
        firsts = first_stages(base, metric="cosine", there=[], fitted=fitted)
        templates = [Template((base,))]
        for first in firsts:
            templates.append(Template((first, base)))
            between = middle_stages(first, base, there=[], fitted=fitted)
            templates += [Template((first, middle, base)) for middle in between]
        needed = list(dict.fromkeys(r for each in templates for r in each.stages[:-1]))
        there = {each.rotation: each.width for each in table.rotations()}
        for name in (PCA, CHAIN):
            widths = [each.dims for each in needed if each.rotation == name]
            if widths and there.get(name, 0) < max(widths):
                # What the tuner has fitted may be narrower than the grid asks for.
                needed, templates = _renamed(needed, templates, name, there)
                table.fit_rotation(
                    name if name not in there else f"{name}2", dims=max(widths),
                    then="random" if name == CHAIN else None, sample=max(5_500, 3 * max(widths)),
                )  # fmt: skip
        for resolution in needed:
            table.add_resolution(resolution)
        for template in templates[1:]:
            table.add_resolution(template.first, index=True)
            self._say(f"built {template.first}") if template.middle is None else None
        return templates

    def _grid(
        self, table: Any, asked: Asked, templates: list[Template], recall: float
    ) -> Iterator[Cell]:
        """Ask every funnel at every keep, up to the first that finds as much as is needed."""
        keeps = self._keeps
        for template in templates:
            self._say(f"measuring {template}")
            if template.first == template.stages[-1]:
                yield self._measured(table, asked, str(template.funnel(())))
                continue
            seconds: list[tuple[int, ...]] = [()]
            if template.middle is not None:
                seconds = [(keep,) for keep in keeps if keep <= _SECOND]
            for second in seconds:
                for first in keeps:
                    if second and first <= second[0]:
                        continue
                    cell = self._measured(table, asked, str(template.funnel((first, *second))))
                    yield cell
                    if cell.recall >= recall:
                        break
                else:
                    continue
                if second and first == min(f for f in keeps if f > second[0]):
                    break  # the shortest first list does already: a longer second one only costs

    def _measured(self, table: Any, asked: Asked, funnel: str) -> Cell:
        name = f"{_TABLE}_cell"
        table.create_funnel(name, funnel, replace=name in table._funnels_now())
        table.search(asked.queries[0], k=self._k, funnel=name)
        found, times = [], []
        for i, query in enumerate(asked.queries):
            began = time.perf_counter()
            hits = table.search(query, k=self._k, funnel=name)
            times.append(1e3 * (time.perf_counter() - began))
            found.append(asked.right(i, hits))
        return Cell(funnel, float(np.mean(found)), median(times))

    def _held(self, table: Any, world: World, chosen: Cell, cells: Sequence[Cell]) -> _Held:
        """The fastest that find as much as ours on queries that nothing was picked by."""
        asked = self._asked(world, slice(self._split, None))
        self._say(f"asking the fastest of the grid {len(asked)} other queries")
        good = [e for e in cells if e.recall >= chosen.recall and e.funnel != chosen.funnel]
        ranked = sorted(good, key=lambda each: each.milliseconds)
        ours = self._measured(table, asked, chosen.funnel).recall
        held: list[Cell] = []
        tried = 0
        for each in ranked[:_TRIED]:
            tried += 1
            again = self._measured(table, asked, each.funnel)
            if again.recall >= ours:
                held.append(again)
            if len(held) == _FINALISTS:
                break
        return _Held(asked, ours, held, tried, ranked[0] if ranked else chosen)

    def _turns(self, table: Any, asked: Asked, chosen: Cell, held: _Held) -> _Turns:
        """Let those that held, and what was ahead before, answer beside the tuner's funnel."""
        ahead = [] if held.ahead.funnel in {e.funnel for e in held.cells} else [held.ahead]
        lanes = [replace(chosen, recall=held.recall), *held.cells, *ahead]
        names = [f"{_TABLE}_turn{number}" for number in range(len(lanes))]
        for name, lane in zip(names, lanes, strict=True):
            table.create_funnel(name, lane.funnel)
            table.search(asked.queries[0], k=self._k, funnel=name)
        times = np.empty((len(lanes), self._rounds, len(asked)))
        for turn in range(self._rounds):
            for i, query in enumerate(asked.queries):
                for place in range(len(lanes)):
                    number = (place + turn + i) % len(lanes)
                    began = time.perf_counter()
                    table.search(query, k=self._k, funnel=names[number])
                    times[number, turn, i] = 1e3 * (time.perf_counter() - began)
        medians = np.median(times, axis=2)

        def beside(place: int) -> Ratio | None:
            return ratio(medians[0].tolist(), medians[place].tolist())

        # Where nothing else held, ours is the best of the grid that finds as much.
        others = np.median(medians, axis=1)[1 : 1 + len(held.cells)]
        best = 1 + int(others.argmin()) if held.cells else 0
        first = next(i for i, each in enumerate(lanes) if each.funnel == held.ahead.funnel)
        won = replace(lanes[best], milliseconds=float(np.median(medians[best])))
        return _Turns(float(np.median(medians[0])), won, beside(best), beside(first))


def _renamed(
    needed: list[Resolution], templates: list[Template], name: str, there: dict[str, int]
) -> tuple[list[Resolution], list[Template]]:
    """The same by another rotation, where one of that name is there and too narrow."""
    if name not in there:
        return needed, templates

    def other(each: Resolution) -> Resolution:
        return replace(each, rotation=f"{name}2") if each.rotation == name else each

    return (
        [other(each) for each in needed],
        [Template(tuple(map(other, each.stages))) for each in templates],
    )
