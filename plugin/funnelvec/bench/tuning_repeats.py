"""Recall drawn again and again: choose with some queries, check with others, ask the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from funnelvec.bench.tuning_report import Repeats
from funnelvec.resolution import Resolution
from funnelvec.tuning.candidates import Template
from funnelvec.tuning.cost import Prices
from funnelvec.tuning.simulate import ladder, shares
from funnelvec.tuning.sure import interval, queries_needed
from funnelvec.tuning.world import World

__all__ = ["repeat"]

_REPEATS = 20


def repeat(world: World, funnel: str, prices: Prices, *, target: float) -> Repeats | None:
    """Choose and check with other queries, twenty times, by simulation."""
    stages = [Resolution.parse(each.partition("@")[0].strip()) for each in funnel.split(">")]
    if len(stages) < 2:
        return None
    template = Template(tuple(stages))
    kept, _ = shares(world, template)
    costs = _costs(template, prices, world)
    # Few to check with and many that are fresh: else the recall of the fresh ones strays as far
    # from the truth as the interval does.
    part = min(len(world) // 3, max(queries_needed(target), len(world) // 9))
    inside = reached = above = 0
    for seed in range(_REPEATS):
        order = np.random.default_rng(seed).permutation(len(world))
        choose, check, fresh = order[:part], order[part : 2 * part], order[2 * part :]
        place = _choice(kept[choose], costs, target)
        looks = 1
        while _shares(kept, check, place).mean() < target and looks < 4:
            longer = tuple(min(kept.shape[1] - 1, each + 1) for each in place)
            if longer == place:
                break
            place, looks = longer, looks + 1
        low, high = interval(
            _shares(kept, check, place), looks=looks, others=_shares(kept, choose, place)
        )
        recall = float(_shares(kept, fresh, place).mean())
        inside += low <= recall <= high
        above += recall >= low
        reached += recall >= target
    return Repeats(_REPEATS, inside, above, reached, part, len(world) - 2 * part)


def _costs(template: Template, prices: Prices, world: World) -> Any:
    """Milliseconds for every keep; infinite where a later list would be the longer one."""
    keeps, rows = ladder(world.k, world.least), len(world.rows)
    if template.middle is None:
        return np.array([prices.milliseconds(template, (keep,), rows) for keep in keeps])
    return np.array(
        [
            [prices.milliseconds(template, (a, b), rows) if b < a else np.inf for b in keeps]
            for a in keeps
        ]
    )


def _shares(kept: Any, queries: Any, place: tuple[int, ...]) -> Any:
    """What some queries find with the keeps at a place."""
    found = kept[queries]
    for each in place:
        found = found[:, each]
    return found.astype(np.float64)


def _choice(kept: Any, costs: Any, target: float) -> tuple[int, ...]:
    """The cheapest keeps that reach the target by a standard error, as the tuner chooses."""
    error = kept.std(axis=0) / len(kept) ** 0.5
    good = (kept.mean(axis=0) - error >= target) & np.isfinite(costs)
    best = np.where(good, costs, np.inf).argmin() if good.any() else kept.mean(axis=0).argmax()
    return tuple(int(each) for each in np.unravel_index(int(best), costs.shape))
