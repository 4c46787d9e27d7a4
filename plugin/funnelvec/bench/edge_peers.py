"""Funnels beside full-dimension HNSW and Qdrant's own quantizations, on Edge, in one run.

Every contestant is built in a process of its own, one after the other with one thread, and
searched in another one. A recipe's knobs are turned until it reaches the recall at the least
median time; the best of each family then asks the same queries in turns, one at a time. What is
resident is looked at in a fresh process that has opened the collection and asked every query.
"""

from __future__ import annotations

import bisect
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np

from funnelvec.bench import edge_recipes
from funnelvec.bench.data import Dataset, rotated
from funnelvec.bench.edge_recipes import Recipe, Setting, funnel_recipe, peers
from funnelvec.bench.edge_report import EdgeBasis, EdgeReport, EdgeStanding
from funnelvec.bench.edge_worker import Answer, Built, Process
from funnelvec.bench.knobs import Tried
from funnelvec.bench.layers import Layer, measure_layers
from funnelvec.bench.oracle import Oracle
from funnelvec.bench.peers import BASES
from funnelvec.engines import checks
from funnelvec.errors import InvalidInput

__all__ = ["compare_edge"]

Say = Callable[[str], None]


def compare_edge(
    dataset: Dataset,
    *,
    funnels: Sequence[str] = (),
    target: float = 0.99,
    k: int = 10,
    rounds: int = 5,
    bases: Sequence[str] = BASES,
    quick: bool = False,
    url: str | None = None,
    say: Say = lambda text: None,
) -> EdgeReport:
    """Measure funnels beside what Qdrant has, and what this package costs over plain requests.

    Parameters
    ----------
    funnels
        Templates, funnels without keeps; empty takes those of `edge_recipes.templates`.
    target
        Recall@k that every recipe has to reach, 0 to 1.
    quick
        Leave out recipes that are seldom the best of their family.
    url
        A Qdrant server on which the cost of this package is measured too, in a collection of its
        own that is dropped at the end.

    Raises
    ------
    InvalidInput
        For a recall or a basis that does not exist, or rounds below 1.
    """
    checks.check_k(k)
    if not 0 < target <= 1:
        raise InvalidInput(f"a recall is above 0 and at most 1, unlike {target}")
    if unknown := set(bases) - set(BASES):
        raise InvalidInput(f"there is no basis {min(unknown)!r}; there are {', '.join(BASES)}")
    if rounds < 1:
        raise InvalidInput(f"rounds must be at least 1, not {rounds}")
    started = time.perf_counter()
    found: list[EdgeBasis] = []
    for basis in bases:
        turned = dataset if basis == "own" else rotated(dataset)
        chosen = [
            funnel_recipe(each)
            for each in funnels or edge_recipes.templates(dataset.dims, basis, quick=quick)
        ]
        with _Run(turned, [*chosen, *peers(quick=quick)], target=target, k=k, say=say) as run:
            found.append(run.report(basis, rounds=rounds))
    layers: tuple[Layer, ...] = measure_layers(dataset, url=url, k=k, rounds=rounds, say=say)
    return EdgeReport(
        dataset=dataset.name,
        note=dataset.note,
        rows=len(dataset.rows),
        dims=dataset.dims,
        queries=len(dataset.queries),
        k=k,
        target=target,
        rounds=rounds,
        bases=tuple(found),
        layers=layers,
        seconds=time.perf_counter() - started,
    )


@dataclass(slots=True)
class _Best:
    """A recipe at its best setting, with the process that has it open."""

    recipe: Recipe
    process: Process
    setting: Setting
    recall: float
    ms: float


class _Run:
    """One basis: a folder of collections, and a process for each."""

    def __init__(
        self, dataset: Dataset, recipes: Sequence[Recipe], *, target: float, k: int, say: Say
    ) -> None:
        self._dataset, self._recipes = dataset, recipes
        self._target, self._k, self._say = target, k, say
        self._oracle = Oracle.of(dataset.rows, dataset.queries, k=k)
        self._stack = contextlib.ExitStack()
        self._traces: dict[str, list[Tried[Setting]]] = {each.name: [] for each in recipes}

    def __enter__(self) -> _Run:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        need = 3 * self._dataset.rows.nbytes * len(self._recipes)
        if (free := shutil.disk_usage(self._folder).free) < need:
            self._stack.close()
            raise InvalidInput(
                f"this takes about {need / 1e9:.0f} GB in {self._folder.parent}, which has "
                f"{free / 1e9:.0f} GB left; take fewer --rows, or set TMPDIR"
            )
        np.save(self._folder / "rows.npy", self._dataset.rows)
        np.save(self._folder / "queries.npy", self._dataset.queries)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def report(self, basis: str, *, rounds: int) -> EdgeBasis:
        """Build, turn the knobs, measure."""
        built = [self._build(basis, each, number) for number, each in enumerate(self._recipes)]
        best = [self._best(each, number) for number, each in enumerate(self._recipes)]
        families: dict[str, list[int]] = {}
        for number, each in enumerate(best):
            families.setdefault(each.recipe.family, []).append(number)
        finalists = [
            min(members, key=lambda number: self._rank(best[number]))
            for members in families.values()
        ]
        answers = self._turns([best[number] for number in finalists], rounds=rounds)
        standings = tuple(
            EdgeStanding(
                name=best[number].recipe.name,
                family=best[number].recipe.family,
                setting=best[number].recipe.shown(best[number].setting),
                recall=best[number].recall,
                times=tuple(tuple(each.milliseconds) for each in asked),
                cpu_seconds=tuple(each.cpu_seconds for each in asked),
                memory=self._memory(best[number], number),
                built=built[number],
            )
            for number, asked in zip(finalists, answers, strict=True)
        )
        tried = tuple(
            (
                each.recipe.name,
                each.recipe.shown(each.setting),
                each.recall,
                each.ms,
                built[number].seconds,
            )
            for number, each in enumerate(best)
        )
        traces = tuple(
            (each.name, each.family, tuple(self._traces[each.name])) for each in self._recipes
        )
        return EdgeBasis(basis, standings, tried, traces)

    def _place(self, number: int) -> str:
        return str(self._folder / str(number))

    def _build(self, basis: str, recipe: Recipe, number: int) -> Built:
        self._say(f"basis {basis}: building {recipe.name}")
        with Process() as process:
            found: Built = process.call(
                "build", recipe, self._place(number), str(self._folder / "rows.npy")
            )
        return found

    def _opened(self, stack: contextlib.ExitStack, recipe: Recipe, number: int) -> Process:
        process = stack.enter_context(Process())
        process.call("open", recipe, self._place(number), str(self._folder / "queries.npy"))
        return process

    def _best(self, recipe: Recipe, number: int) -> _Best:
        """Turn the knobs: halve the last one for every value of those before."""
        self._say(f"turning the knobs of {recipe.name}")
        process = self._opened(self._stack, recipe, number)
        most = self._at(process, recipe, tuple(values[-1] for _, values in recipe.knobs))
        if most.recall < self._target:
            return most  # what the largest values of all do not find, none do
        best: _Best | None = None
        last = [each for each in recipe.knobs[-1][1] if not recipe.ours or each >= self._k]
        for start in recipe.starts():
            if recipe.ours and start and start[-1] < self._k:
                continue
            values = [each for each in last if not recipe.ours or not start or each >= start[0]]
            position = bisect.bisect_left(
                values,
                True,
                key=lambda value, start=start: (  # type: ignore[misc]
                    self._at(process, recipe, (*start, value)).recall >= self._target
                ),
            )
            if position == len(values):
                continue
            found = self._at(process, recipe, (*start, values[position]))
            if best is None or found.ms < best.ms:
                best = found
            elif found.ms > 2 * best.ms:
                break  # a longer list takes longer, whatever comes after it
        return best or most

    def _at(self, process: Process, recipe: Recipe, setting: Setting) -> _Best:
        answer: Answer = process.call("ask", setting, self._k)
        recall = fmean(self._oracle.recall(i, ids) for i, ids in enumerate(answer.ids))
        ms = median(answer.milliseconds)
        self._traces[recipe.name].append(Tried(setting, recall, ms))
        return _Best(recipe, process, setting, recall, ms)

    def _rank(self, found: _Best) -> tuple[bool, float]:
        """Those that reach the recall by their time, the others by how much they find."""
        reached = found.recall >= self._target
        return (not reached, found.ms if reached else -found.recall)

    def _turns(self, best: Sequence[_Best], *, rounds: int) -> list[list[Answer]]:
        """Every contestant asks all queries, round by round, in rotating order."""
        answers: list[list[Answer]] = [[] for _ in best]
        order = list(range(len(best)))
        for turn in range(-1, rounds):  # the first is to warm up
            self._say("warming up" if turn < 0 else f"round {turn + 1} of {rounds}")
            shift = turn % len(order)
            for number in order[shift:] + order[:shift]:
                found: Answer = best[number].process.call("ask", best[number].setting, self._k)
                if turn >= 0:
                    answers[number].append(found)
        return answers

    def _memory(self, found: _Best, number: int) -> tuple[int, int]:
        found.process.call("close")  # a folder is open in one process at a time
        with contextlib.ExitStack() as stack:
            process = self._opened(stack, found.recipe, number)
            process.call("ask", found.setting, self._k)
            memory = process.call("memory")
            return memory.anonymous, memory.file
