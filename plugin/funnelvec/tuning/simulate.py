"""What each funnel would find on the sample, for every keep at once; no database is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.tuning.candidates import Template
from funnelvec.tuning.cost import Prices
from funnelvec.tuning.world import World

__all__ = ["Losses", "Simulated", "best", "ladder", "shares", "simulate"]

_KEEPS = (
    10, 12, 15, 20, 25, 30, 35, 40, 50, 60, 70, 80, 100, 120, 140, 160, 180, 200, 250, 300, 350,
    400, 500, 600, 700, 800, 1000,
)  # fmt: skip
#: From so many wanted rows on it is faster to sort each piece of a list than to compare all pairs.
_MANY = 20
#: With fewer of them than so many left, keeps are so many times the shortest.
_FEWEST, _BEYOND = 5, (1.2, 1.5, 2, 3, 4)
#: What an index of pgvector's default parameters loses, times the length of the list: of 50,000
#: rows 0.032 at 50, 0.019 at 80, 0.008 at 200 (docs/benchmark.md, index parameters).
_LOSS = 1.5


def ladder(k: int, least: int = 0) -> tuple[int, ...]:
    """Keeps that are tried for answers of k rows, none shorter than `least`."""
    found = tuple(keep for keep in _KEEPS if keep > k and keep >= least)
    if len(found) >= _FEWEST:
        return found
    shortest = max(k + 1, least)
    return (shortest, *(int(times * shortest) for times in _BEYOND))


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A template's recall for every keep.

    Attributes
    ----------
    keeps
        What was tried, for each stage but the last.
    recall
        (len(keeps),) or, with a stage between, (len(keeps), len(keeps)): the first stage keeps
        more than the second.
    first
        (len(keeps),) share of the true answers that the first stage alone lets through.
    """

    template: Template
    keeps: tuple[int, ...]
    recall: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]

    def at(self, keeps: Sequence[int]) -> float:
        """Recall with these keeps, which are among those that were tried."""
        return float(self.recall[tuple(self.keeps.index(keep) for keep in keeps)])


def simulate(world: World, template: Template, *, stretch: float = 1.0) -> Simulated:
    """Run the sample's queries through a funnel with exact shortlists.

    Parameters
    ----------
    stretch
        How many times longer lists have to be in the table than in the sample.
    """
    keeps = ladder(world.k, world.least)
    kept, first = shares(world, template, stretch=stretch)
    return Simulated(template, keeps, kept.mean(axis=0), first.mean(axis=0))


def shares(
    world: World, template: Template, *, stretch: float = 1.0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """For every query and keeps the share of the true answers: of the funnel, and of its start.

    Returns
    -------
    (m, keeps) or, with a stage between, (m, keeps, keeps); and (m, keeps).
    """
    keeps = ladder(world.k, world.least)
    lengths = np.minimum(np.floor(np.array(keeps) / stretch), world.longest).astype(np.int64)
    ranks = world.ranks(template.first)
    inside = ranks[:, np.newaxis, :] < lengths[:, np.newaxis]  # (m, lists, k)
    first = inside.mean(axis=2, dtype=np.float32)
    if template.middle is None:
        return first, first
    order, scores = world.order(template.first), world.scores(template.middle)
    wanted = np.take_along_axis(scores, world.truth, axis=1)
    found = np.empty((len(order), len(keeps), len(keeps)), np.float32)
    for i, some in enumerate(order):
        places = _places(scores[i, some], wanted[i], lengths)
        kept = places[:, np.newaxis, :] < lengths[np.newaxis, :, np.newaxis]
        found[i] = (kept & inside[i][:, np.newaxis, :]).mean(axis=2)
    return found, first


def _places(
    some: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(lists, k) how many of the first rows of a list score above each wanted one."""
    if len(wanted) < _MANY:
        before = np.cumsum(some[:, np.newaxis] > wanted, axis=0, dtype=np.int64)
        counted: npt.NDArray[np.int64] = before[np.maximum(lengths, 1) - 1]
        return counted
    found = np.empty((len(lengths), len(wanted)), np.int64)
    above, start = np.zeros(len(wanted), np.int64), 0
    for place, length in enumerate(lengths.tolist()):
        part = np.sort(some[start:length])
        above += len(part) - np.searchsorted(part, wanted, side="right")
        found[place], start = above, length
    return found


class Losses:
    """What an index loses of what its codes hold, by the length of the list.

    Before it is built nobody knows; the loss of usual indexes is taken then. Afterwards each
    measurement says so for its list, and for others in inverse proportion to their length.
    """

    def __init__(self, *, indexed: bool, loss: float | None = None) -> None:
        self._usual = 0.0 if not indexed else _LOSS if loss is None else loss
        self._seen: dict[int, float] = {}

    def learn(self, keep: int, loss: float) -> None:
        """Take note of what was measured."""
        self._seen[keep] = max(0.0, loss)

    def at(self, keep: int) -> float:
        """The share that is lost with a list of `keep`."""
        if not self._seen:
            return min(0.5, self._usual / keep)
        nearest = min(self._seen, key=lambda each: abs(np.log(each / keep)))
        return min(0.5, self._seen[nearest] * nearest / keep)


def best(
    found: Simulated, prices: Prices, *, rows: int, target: float, losses: Losses,
    scale: float = 1.0, within: float | None = None,
) -> tuple[tuple[int, ...], float, float] | None:  # fmt: skip
    """The cheapest keeps that reach a recall; with `within`, the recall's best in that time.

    Returns
    -------
    The keeps, their recall and their milliseconds, or None where no keeps do.
    """
    chosen: tuple[tuple[int, ...], float, float] | None = None
    for keeps in _settings(found):
        recall = found.at(keeps) * (1.0 - losses.at(keeps[0]))
        cost = scale * prices.milliseconds(found.template, keeps, rows)
        if within is not None:
            better = cost <= within and (
                chosen is None or (recall, -cost) > (chosen[1], -chosen[2])
            )
        else:
            better = recall >= target and (chosen is None or cost < chosen[2])
        if better:
            chosen = keeps, recall, cost
    return chosen


def _settings(found: Simulated) -> Iterable[tuple[int, ...]]:
    if found.template.middle is None:
        yield from ((keep,) for keep in found.keeps)
    else:
        yield from ((k1, k2) for k1 in found.keeps for k2 in found.keeps if k2 < k1)
