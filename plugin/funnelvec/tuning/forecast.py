"""Every funnel that could be made, at its cheapest keeps, before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from funnelvec.resolution import Resolution
from funnelvec.tuning.calls import Compute, Say, Steps
from funnelvec.tuning.candidates import Template, first_stages, middle_stages
from funnelvec.tuning.cost import Prices
from funnelvec.tuning.graphs import DENSE, LIGHT, Graph
from funnelvec.tuning.ground import Ground
from funnelvec.tuning.simulate import Losses, Simulated, best, simulate
from funnelvec.tuning.wanted import Wanted
from funnelvec.tuning.world import World
from funnelvec.types import Storage

__all__ = ["Forecast", "Sizes", "affordable", "forecast", "nearest", "order", "sizes"]

#: First stages that are looked at with stages between: those that are cheapest without.
_DEEPENED = 6
#: How many times e finer times are told apart: 3 % are alike.
_ALIKE = 30
#: Seconds that fitting a rotation of 1,536 dimensions takes, about.
_FIT_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that searches go through, bytes on disk that come on top, seconds to build them."""

    memory: int
    storage: int
    build: float


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """A template at the keeps that the simulation likes best.

    Attributes
    ----------
    reaches
        Whether it is expected to reach the recall, and in the time of the budget.
    ready
        Whether the table has all it needs.
    graph
        Settings of the index that it would be built with; None is the usual one.
    """

    template: Template
    simulated: Simulated | None
    keeps: tuple[int, ...]
    recall: float
    milliseconds: float
    sizes: Sizes
    reaches: bool
    ready: bool
    graph: Graph | None = None
    kind: Storage = "column"

    def prices(self, known: Prices) -> Prices:
        """The prices with its index, where its codes stand."""
        known = known.of(self.kind)
        return known if self.graph is None else self.graph.of(known)

    def losses(self, known: Prices) -> Losses:
        """What its index is taken to lose before it was asked."""
        loss = None if self.graph is None else self.graph.loss
        return Losses(indexed=known.indexed, loss=loss)


def forecast(
    ground: Ground, wanted: Wanted, world: World, prices: Prices, *, indexed: bool
) -> Steps[tuple[list[Forecast], list[Forecast]]]:
    """Simulate what could be built; the most promising first.

    Returns
    -------
    What fits the budget, and what would do with a larger one.
    """
    fitted = world.axes.width() if ground.can_fit else 0
    base = ground.about.base
    firsts = first_stages(base, metric=ground.about.metric, there=ground.stored, fitted=fitted)
    firsts = [each for each in firsts if _possible(ground, each, indexed=indexed)]
    # What takes something off scores needs a list to put into another order.
    found = [] if ground.rule.needs_list else [_exact(ground, wanted, prices)]
    stretches: dict[Resolution, float] = {}
    for number, first in enumerate(firsts):
        yield Say(f"simulating {first}", 20 + 12 * number // len(firsts))
        template = Template((first, base))
        each = yield Compute(partial(_two, ground, wanted, world, prices, template, stretches))
        found.append(_suited(ground, wanted, prices, each))
    # A stage more takes more room and time to build, so what breaks a budget breaks it with one.
    beyond = [each for each in found if not affordable(each.sizes, wanted)]
    found = [each for each in found if affordable(each.sizes, wanted)]
    found.sort(key=lambda each: order(each, wanted))
    deepened = [each.template.first for each in found if each.simulated is not None][:_DEEPENED]
    for template in _deeper(ground, deepened, fitted):
        yield Say(f"simulating {template}", 36)
        stretch = stretches[template.first]
        each = yield Compute(partial(_three, ground, wanted, world, prices, template, stretch))
        found.append(_suited(ground, wanted, prices, each))
    beyond += [each for each in found if not affordable(each.sizes, wanted)]
    kept = [each for each in found if affordable(each.sizes, wanted)]
    return tuple(sorted(some, key=lambda each: order(each, wanted)) for some in (kept, beyond))  # type: ignore[return-value]


def _suited(ground: Ground, wanted: Wanted, prices: Prices, found: Forecast) -> Forecast:
    """The same with an index of fewer links where a budget wants it, or of more for the recall."""
    if not prices.indexed or found.simulated is None:
        return found
    if ground.ready(found.template.first, first=True, indexed=True):
        return found  # its index stands, and stays
    if not affordable(found.sizes, wanted):
        light = _at_best(ground, wanted, prices, found.simulated, LIGHT)
        return light if affordable(light.sizes, wanted) else found
    if not found.reaches and wanted.budget.latency is None and prices.m < DENSE.m:
        dense = _at_best(ground, wanted, prices, found.simulated, DENSE)
        return dense if dense.reaches and affordable(dense.sizes, wanted) else found
    return found


def _deeper(ground: Ground, firsts: list[Resolution], fitted: int) -> Iterator[Template]:
    base = ground.about.base
    for first in firsts:
        for middle in middle_stages(first, base, there=ground.stored, fitted=fitted):
            if _possible(ground, middle, indexed=False):
                yield Template((first, middle, base))


def _possible(ground: Ground, resolution: Resolution, *, indexed: bool) -> bool:
    """Whether the column has it, or can get it without leaving something behind for good."""
    status = ground.stored.get(resolution)
    if status is not None:
        # An index over the user's own codes could not be dropped again without the codes.
        usable = not indexed or status.index is not None or resolution in ground.ours
        return usable and status.coverage > 0
    kept = (ground.rotations or {}).get(resolution.rotation or "")
    if kept is not None:
        return resolution.dims == kept.width or (kept.cuttable and resolution.dims < kept.width)
    return True


def _two(
    ground: Ground, wanted: Wanted, world: World, prices: Prices, template: Template,
    stretches: dict[Resolution, float],
) -> Forecast:  # fmt: skip
    first = template.first
    more = ground.rows / max(1, len(world.rows))
    stretch = more ** world.growth(first, wanted.recall) if more > 1 else 1.0
    stretches[first] = stretch
    simulated = simulate(world, template, stretch=stretch)
    if first not in middle_candidates(ground, world):
        world.forget(first)
    return _at_best(ground, wanted, prices, simulated)


def _three(
    ground: Ground, wanted: Wanted, world: World, prices: Prices, template: Template, stretch: float
) -> Forecast:
    return _at_best(ground, wanted, prices, simulate(world, template, stretch=stretch))


def middle_candidates(ground: Ground, world: World) -> set[Resolution]:
    """Resolutions whose scores are needed again, as stages between."""
    none = Resolution(1, "bit")
    fitted = world.axes.width() if ground.can_fit else 0
    return set(middle_stages(none, ground.about.base, there=ground.stored, fitted=fitted))


def _at_best(
    ground: Ground, wanted: Wanted, prices: Prices, simulated: Simulated, graph: Graph | None = None
) -> Forecast:
    losses = Losses(indexed=prices.indexed, loss=None if graph is None else graph.loss)
    kind = _kind(ground, wanted, simulated.template)
    prices = prices.of(kind)
    prices = prices if graph is None else graph.of(prices)
    within = wanted.budget.latency
    chosen = best(
        simulated, prices, rows=ground.rows, target=wanted.recall, losses=losses, within=within
    )
    reaches = chosen is not None
    if chosen is None:  # what finds most, or what is fastest
        depth = simulated.recall.ndim
        keeps = simulated.keeps[-depth:] if within is None else simulated.keeps[:depth]
        keeps = keeps[::-1]
        recall = simulated.at(keeps) * (1.0 - losses.at(keeps[0]))
        cost = prices.milliseconds(simulated.template, keeps, ground.rows)
        chosen = keeps, recall, cost
    keeps, recall, cost = chosen
    template = simulated.template
    ready = all(
        ground.ready(each, first=place == 0, indexed=prices.indexed)
        for place, each in enumerate(template.stages[:-1])
    )
    found = sizes(ground, prices, template)
    return Forecast(template, simulated, keeps, recall, cost, found, reaches, ready, graph, kind)


def _kind(ground: Ground, wanted: Wanted, template: Template) -> Storage:
    """Where the codes of a template stand, or will: one stage beside the table has rows joined."""
    kinds = {
        ground.stored[each].storage if each in ground.stored else wanted.storage
        for each in template.stages[:-1]
    }
    return "side" if "side" in kinds else "column"


def _exact(ground: Ground, wanted: Wanted, prices: Prices) -> Forecast:
    """The column itself, row by row: best for small tables."""
    template = Template((ground.about.base,))
    cost = prices.milliseconds(template, (), ground.rows)
    fast = wanted.budget.latency is None or cost <= wanted.budget.latency
    return Forecast(template, None, (), 1.0, cost, Sizes(0, 0, 0.0), fast, ready=True)


def sizes(ground: Ground, prices: Prices, template: Template) -> Sizes:
    """What a template takes, as measured where it is built and by the prices elsewhere."""
    memory, storage, build, rows = 0, 0, 0.0, ground.rows
    for place, each in enumerate(template.stages[:-1]):
        status = ground.stored.get(each)
        code = prices.code_bytes(each, rows)
        if status is not None and status.code_bytes is not None:
            code = status.code_bytes
        index = 0
        if place == 0:
            index = prices.index_bytes(each, rows)
            if status is not None and status.index_bytes:
                index = status.index_bytes
        # A first stage is read through its index, a later one from the rows.
        memory += index if index else code
        storage += index + code
        if not ground.ready(each, first=place == 0, indexed=prices.indexed):
            build += prices.build(each, rows, index=place == 0, stored=status is not None)
    rotations = set(filter(None, (ground.rotation_of(each) for each in template.stages[:-1])))
    fitting = _FIT_SECONDS * (ground.about.base.dims / 1536) ** 1.5
    return Sizes(memory, storage, build + fitting * len(rotations))


def affordable(taken: Sizes, wanted: Wanted) -> bool:
    """Whether this keeps to the budget."""
    budget = wanted.budget
    pairs = (
        (taken.memory, budget.memory),
        (taken.storage, budget.storage),
        (taken.build, budget.build),
    )
    return all(limit is None or spent <= limit for spent, limit in pairs)


def order(found: Forecast, wanted: Wanted) -> tuple[bool, float, float]:
    """What reaches the target by its time, the others by what they find.

    With a budget of time, all that keep to it by what they find, the others by their time; of those
    that take about as long, by what they find.
    """
    if wanted.budget.latency is None:
        return (not found.reaches, found.milliseconds if found.reaches else -found.recall, 0.0)
    if found.reaches:
        return False, -found.recall, found.milliseconds
    return True, float(round(_ALIKE * math.log(found.milliseconds))), -found.recall


def nearest(beyond: list[Forecast], wanted: Wanted) -> str:
    """Say which funnel breaks a budget that nothing keeps to by least."""
    found = [each for each in beyond if each.reaches] or beyond
    if not found:
        return ""

    def excess(each: Forecast) -> float:
        pairs = (
            (each.sizes.memory, wanted.budget.memory),
            (each.sizes.storage, wanted.budget.storage),
            (each.sizes.build, wanted.budget.build),
        )
        return max(spent / limit for spent, limit in pairs if limit is not None)

    least = min(found, key=excess)
    return (
        f"; '{least.template.funnel(least.keeps)}' comes nearest, with "
        f"{least.sizes.memory / 1e6:.1f} MB of memory, {least.sizes.storage / 1e6:.1f} MB of "
        f"storage, {least.sizes.build:.0f} s"
    )
