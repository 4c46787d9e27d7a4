"""Asking the table itself: recall and time of a funnel, one by one or in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.funnel import Funnel
from funnelvec.tuning.calls import Call, Steps
from funnelvec.tuning.candidates import Template
from funnelvec.tuning.ground import Ground
from funnelvec.tuning.sure import interval

__all__ = ["Asked", "Measured", "ask", "measure", "take_turns"]

Floats = npt.NDArray[np.float64]

#: Queries that tell at least whether lists are much too short.
_GLANCE = 30


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Queries with what their answers must score.

    Attributes
    ----------
    own
        The key of the row that a query is, which is no answer to it; None where it is none.
    worst
        (m,) score of the k-th true answer; `tie` is how far below still counts.
    """

    queries: npt.NDArray[np.float32]
    own: Sequence[Any]
    worst: Floats
    k: int
    tie: float = 1e-6

    def __len__(self) -> int:
        return len(self.queries)

    def first(self, count: int) -> Asked:
        """The first of them."""
        return replace(self, queries=self.queries[:count], worst=self.worst[:count])

    @property
    def limit(self) -> int:
        """How many rows to ask for."""
        return self.k + any(each is not None for each in self.own)

    def right(self, query: int, hits: Sequence[Any]) -> float:
        """Share of the true answers among the hits."""
        own, worst = self.own[query], self.worst[query]
        scores = [hit.score for hit in hits if own is None or hit.id != own][: self.k]
        least = worst - self.tie * max(1.0, abs(worst))
        return sum(bool(score >= least) for score in scores) / self.k


@dataclass(slots=True, eq=False)
class Measured:
    """A funnel that was asked: a share of the true answers and milliseconds for each query."""

    template: Template
    keeps: tuple[int, ...]
    shares: Floats
    times: Floats
    forecast: float = 1.0
    certificate: Any = None
    shown: float | None = None
    turns: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def funnel(self) -> Funnel:
        """The funnel, with its keeps."""
        return self.template.funnel(self.keeps)

    @property
    def recall(self) -> float:
        """Mean share of the true answers."""
        return float(self.shares.mean())

    @property
    def milliseconds(self) -> float:
        """Median time of a search, from the turns where it took part in some."""
        return float(np.median(self.turns if len(self.turns) else self.times))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the recall."""
        return interval(self.shares)


def measure(
    ground: Ground, asked: Asked, template: Template, keeps: tuple[int, ...], *, forecast: float,
    least: float = 0.0,
) -> Steps[Measured]:  # fmt: skip
    """Ask every query once through one funnel, which is dropped by whoever ends the run.

    Where a third of them say that it finds less than `least`, the others are not asked.
    """
    name = ground.names.trial(0)
    yield from create(ground, name, template.funnel(keeps))
    options = {"k": asked.limit, "funnel": name}
    yield Call("search", (asked.queries[0],), options, on=ground.on)  # what a session does once
    shares, times = yield from ask(ground, asked, name, least=least)
    return Measured(template, keeps, shares, times, forecast)


def create(ground: Ground, name: str, funnel: Funnel) -> Steps[None]:
    """Make a funnel of the run's own, or make it anew."""
    there = (name in ground.funnels or name in ground.made) and name not in ground.gone
    # With the model it scores as the funnel will that is made in the end.
    options = {"replace": there, "model": ground.model}
    yield Call("create_funnel", (name, funnel), options, on=ground.on)
    ground.made.add(name)
    ground.gone.discard(name)


def ask(
    ground: Ground, asked: Asked, name: str, *, least: float = 0.0
) -> Steps[tuple[Floats, Floats]]:
    """Ask every query once; (m,) shares of the true answers, and milliseconds.

    Fewer than m where the first third is below `least` by three standard errors.
    """
    shares, times = np.empty(len(asked)), np.empty(len(asked))
    options = {"k": asked.limit, "funnel": name}
    glance = max(_GLANCE, len(asked) // 3)
    for i, query in enumerate(asked.queries):
        hits, times[i] = yield Call("search", (query,), options, on=ground.on, timed=True)
        shares[i] = asked.right(i, hits)
        if i + 1 == glance:
            seen = shares[:glance]
            if seen.mean() + 3 * seen.std() / glance**0.5 < least:
                return seen.copy(), times[:glance].copy()
    return shares, times


def take_turns(
    ground: Ground, asked: Asked, finalists: Sequence[Measured], *, rounds: int
) -> Steps[None]:
    """Let funnels answer the same queries in turns, so that a busy machine slows all alike."""
    names = [ground.names.trial(number) for number in range(1, len(finalists) + 1)]
    for name, each in zip(names, finalists, strict=True):
        yield from create(ground, name, each.funnel)
        options = {"k": asked.limit, "funnel": name}
        yield Call("search", (asked.queries[0],), options, on=ground.on)
    times = np.empty((len(finalists), rounds, len(asked)))
    for turn in range(rounds):
        for i, query in enumerate(asked.queries):
            for place in range(len(finalists)):
                number = (place + turn + i) % len(finalists)
                options = {"k": asked.limit, "funnel": names[number]}
                _, times[number, turn, i] = yield Call(
                    "search", (query,), options, on=ground.on, timed=True
                )
    for each, spent in zip(finalists, times, strict=True):
        each.turns = np.median(spent, axis=0)
