"""Which funnels are worth building, which keeps they need, and which of them is the best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from funnelvec.resolution import Resolution
from funnelvec.tuning.calls import Say, Steps
from funnelvec.tuning.forecast import Forecast, affordable, order, sizes
from funnelvec.tuning.measure import Asked, Measured, ask, create, measure, take_turns
from funnelvec.tuning.simulate import Losses, Simulated, best, ladder
from funnelvec.tuning.wanted import Wanted

if TYPE_CHECKING:
    from funnelvec.tuning.run import Outcome

__all__ = ["check", "finals", "survivors", "tune_keeps"]

#: Funnels that are built at most, and how far a forecast may lie above the best one.
_BUILT, _NEAR, _NEAR_READY = 3, 1.35, 2.0
#: Times that keeps are measured for one funnel, and funnels that answer in turns.
_TRIES, _FINALISTS, _ROUNDS = 6, 4, 2
#: Times that what lies between two first lists is halved.
_HALVINGS = 3
#: How far above the best time a finalist may lie.
_CLOSE = 1.3
#: Recalls that the winner is also measured at, to show what more or less would cost.
_SHOWN = (0.9, 0.95, 0.98, 0.99, 0.995)
_STEPS_UP = 3
#: Queries that finalists answer in turns, and that the winner is asked at other recalls.
_TIMED, _SHOWING = 150, 100
#: Others that are timed beside the winner, with so many queries.
_ALIGNED, _FEW = 10, 40


def survivors(forecasts: list[Forecast], wanted: Wanted) -> list[Forecast]:
    """The few that are worth building, and those that stand and may be as good."""
    ranked = sorted(forecasts, key=lambda each: order(each, wanted))
    reaching = [each for each in ranked if each.reaches] or ranked[:1]
    least = min(each.milliseconds for each in reaching)
    found: list[Forecast] = []
    built, firsts = 0, dict[Resolution, int]()
    alike: set[object] = set()
    graphs: dict[Resolution, object] = {}
    for each in reaching:
        if graphs.get(each.template.first, each.graph) != each.graph:
            continue  # a resolution has one index
        # Of funnels that differ in their rotations alone, and keep the same, one is enough.
        shape = each.keeps, tuple((stage.dims, stage.code) for stage in each.template.stages)
        if shape in alike and not each.ready:
            continue
        slow = each.milliseconds > least * (_NEAR_READY if each.ready else _NEAR)
        if wanted.budget.latency is None and slow:
            continue
        first = each.template.first
        if (
            firsts.get(first, 0) >= 2
            or len(found) >= 2 * _BUILT
            or (not each.ready and built >= _BUILT)
        ):
            continue
        alike.add(shape)
        graphs[each.template.first] = each.graph
        built += not each.ready
        firsts[first] = firsts.get(first, 0) + 1
        found.append(each)
    return found


def tune_keeps(found: Outcome, chosen: Iterable[Forecast], asked: Asked) -> Steps[None]:
    """Find the keeps of each funnel on the table itself, led by the simulation."""
    losses: dict[Resolution, Losses] = {}
    chosen = list(chosen)
    for number, each in enumerate(chosen):
        yield Say(f"measuring {each.template}", 55 + 20 * number // len(chosen))
        if each.simulated is None:
            found.measured.append((yield from _measure(found, each, (), asked)))
            continue
        known = losses.setdefault(each.template.first, each.losses(found.prices))
        goals = [found.wanted.recall]
        if found.wanted.max_miss is not None:
            goals = sorted({*_SHOWN, found.wanted.recall})
        for goal in goals:
            yield from _settle(found, each, asked, known, goal)
        if goals == [found.wanted.recall] and found.wanted.budget.latency is None:
            yield from _narrow(found, each, asked)


def _settle(
    found: Outcome, chosen: Forecast, asked: Asked, losses: Losses, goal: float
) -> Steps[None]:
    """Measure the keeps that should do, learn what the index loses, and so on until they do."""
    assert chosen.simulated is not None
    tried = {each.keeps: each for each in found.measured if each.template == chosen.template}
    margin, within = 0.3 * (1.0 - goal), found.wanted.budget.latency
    for _ in range(_TRIES):
        scale = _scale(found, chosen)
        pick = best(
            chosen.simulated, chosen.prices(found.prices), rows=found.ground.rows, losses=losses,
            scale=scale,
            target=min(goal + margin, 0.9999), within=within,
        )  # fmt: skip
        keeps = pick[0] if pick is not None else _most(chosen, within is not None)
        if keeps in tried:
            break
        least = goal if within is None else 0.0
        measured = yield from _measure(found, chosen, keeps, asked, least=least)
        tried[keeps] = measured
        found.measured.append(measured)
        held = chosen.simulated.at(keeps)
        losses.learn(keeps[0], 1.0 - measured.recall / held if held else 0.0)
        margin = _error(measured)


def _narrow(found: Outcome, chosen: Forecast, asked: Asked) -> Steps[None]:
    """Halve what lies between the first list that does and the longest that cannot.

    The guesses come down from long lists in steps that a lucky measurement ends early: one that
    finds everything says nothing of how short a list may be.
    """
    assert chosen.simulated is not None
    goal = found.wanted.recall
    for _ in range(_HALVINGS):
        own = [each for each in found.measured if each.template == chosen.template]
        keeps = _between(chosen.simulated, own, goal)
        if keeps is None:
            return
        found.measured.append((yield from _measure(found, chosen, keeps, asked, least=goal)))


def _between(simulated: Simulated, measured: list[Measured], goal: float) -> tuple[int, ...] | None:
    """The keeps in the middle; None where nothing lies between, or none has reached the goal."""
    good = [each for each in measured if each.recall - _error(each) >= goal]
    if not good:
        return None
    shortest, *rest = min(each.keeps for each in good)
    failed = [
        each.keeps[0] for each in measured if each not in good and each.keeps[1:] >= tuple(rest)
    ]
    between = [
        keep
        for keep in simulated.keeps
        if max([0, *rest, *failed]) < keep < shortest and simulated.at((keep, *rest)) >= goal
    ]
    return (between[len(between) // 2], *rest) if between else None


def _measure(
    found: Outcome, chosen: Forecast, keeps: tuple[int, ...], asked: Asked, *, least: float = 0.0
) -> Steps[Measured]:
    prices = chosen.prices(found.prices)
    expected = prices.milliseconds(chosen.template, keeps, found.ground.rows)
    measured = yield from measure(
        found.ground, asked, chosen.template, keeps, forecast=expected, least=least
    )
    return measured


def _most(chosen: Forecast, fastest: bool) -> tuple[int, ...]:
    """The longest lists, or the shortest where there is a budget of time."""
    assert chosen.simulated is not None
    simulated, depth = chosen.simulated, chosen.simulated.recall.ndim
    keeps = simulated.keeps[:depth] if fastest else simulated.keeps[-depth:]
    return keeps[::-1]


def _scale(found: Outcome, chosen: Forecast) -> float:
    """What this funnel took over what was forecast for it, as last measured."""
    seen = [each for each in found.measured if each.template == chosen.template]
    return seen[-1].milliseconds / seen[-1].forecast if seen else 1.0


def _error(measured: Measured) -> float:
    """Standard error of the recall."""
    return float(measured.shares.std() / max(1, len(measured.shares)) ** 0.5)


def _good(found: Outcome) -> list[Measured]:
    """What may be chosen: what reaches the target by more than chance, else what comes nearest."""
    wanted = found.wanted
    if wanted.max_miss is not None:
        return [each for each in found.measured if each.certificate is not None]
    measured = _affordable(found)
    if wanted.budget.latency is not None:
        fast = [each for each in measured if each.milliseconds <= wanted.budget.latency]
        if not fast:
            return [min(measured, key=lambda each: each.milliseconds)]
        most = max(each.recall for each in fast)
        return [each for each in fast if each.recall >= most - _error(each)]
    for slack in (1.0, 0.0):
        good = [e for e in measured if e.recall - slack * _error(e) >= wanted.recall]
        if good:
            return good
    return [max(measured, key=lambda each: each.recall)]


def _affordable(found: Outcome) -> list[Measured]:
    """What keeps to the budget as it was built; sizes were forecasts before."""
    kept = []
    for each in found.measured:
        chosen = next(e for e in found.forecasts if e.template == each.template)
        taken = sizes(found.ground, chosen.prices(found.prices), each.template)
        if affordable(taken, found.wanted):
            kept.append(each)
    if not kept:
        found.notes.append("what was built takes more than was forecast, and than the budget")
    return kept or found.measured


def finals(found: Outcome, asked: Asked) -> Steps[None]:
    """Let the fastest of each funnel answer in turns, and take the best."""
    by_template: dict[object, Measured] = {}
    for each in sorted(_shortest(_good(found)), key=lambda each: each.milliseconds):
        by_template.setdefault(each.template, each)
    ranked = sorted(by_template.values(), key=lambda each: each.milliseconds)
    close = [each for each in ranked if each.milliseconds <= _CLOSE * ranked[0].milliseconds]
    others = [each for each in _fastest(found) if each.template not in by_template]
    found.finalists = (close[:_FINALISTS] or ranked[:1]) + ranked[len(close) : len(close) + 1]
    if len(found.finalists) == 1:
        found.finalists += others[:1]
    yield from take_turns(found.ground, asked.first(_TIMED), found.finalists, rounds=_ROUNDS)
    good = [each for each in found.finalists if each in by_template.values()]
    found.winner = min(good, key=lambda each: each.milliseconds)
    if found.wanted.budget.latency is not None:
        found.winner = max(good, key=lambda each: (each.recall, -each.milliseconds))
    yield from _neighbours(found, found.winner, asked)
    yield from _align(found, found.winner, asked)


def _shortest(good: list[Measured]) -> list[Measured]:
    """Leave out what another of the same stages does with lists that are nowhere longer.

    Both were asked at other moments, so on a busy machine the longer lists may seem the faster.
    """

    def shorter(one: Measured, other: Measured) -> bool:
        pairs = zip(one.keeps, other.keeps, strict=True)
        return one.keeps != other.keeps and all(mine <= theirs for mine, theirs in pairs)

    return [
        each
        for each in good
        if not any(other.template == each.template and shorter(other, each) for other in good)
    ]


def _align(found: Outcome, winner: Measured, asked: Asked) -> Steps[None]:
    """Time what was measured at different moments once more in turns, to be comparable."""
    others = [each for each in _fastest(found) if each not in found.finalists][:_ALIGNED]
    if not others:
        return
    kept = winner.turns
    yield from take_turns(found.ground, asked.first(_FEW), [winner, *others], rounds=1)
    pace = float(np.median(kept) / np.median(winner.turns))
    for each in others:
        each.turns = each.turns * pace
    winner.turns = kept


def _fastest(found: Outcome) -> list[Measured]:
    return sorted(found.measured, key=lambda each: (-round(each.recall, 2), each.milliseconds))


def _neighbours(found: Outcome, winner: Measured, asked: Asked) -> Steps[None]:
    """Measure the winner's stages at other recalls too."""
    chosen = next(each for each in found.forecasts if each.template == winner.template)
    if chosen.simulated is None or found.wanted.max_miss is not None:
        return
    losses, prices = chosen.losses(found.prices), chosen.prices(found.prices)
    held = chosen.simulated.at(winner.keeps)
    losses.learn(winner.keeps[0], 1.0 - winner.recall / held if held else 0.0)
    for goal in _SHOWN:
        pick = best(chosen.simulated, prices, rows=found.ground.rows, target=goal, losses=losses)
        tried = {each.keeps for each in found.measured if each.template == winner.template}
        if pick is not None and pick[0] not in tried:
            found.measured.append(
                (yield from _measure(found, chosen, pick[0], asked.first(_SHOWING)))
            )


def check(found: Outcome, choosing: Asked, checking: Asked) -> Steps[None]:
    """Ask the winner queries that nothing was chosen by; lengthen its lists where it falls short.

    The recall that is stated is that of these queries.
    """
    winner = found.winner
    assert winner is not None
    name = found.ground.names.trial(0)
    for step in range(_STEPS_UP + 1):
        yield from create(found.ground, name, winner.funnel)
        shares, times = yield from ask(found.ground, checking, name)
        found.checked = Measured(winner.template, winner.keeps, shares, times)
        found.looks = step + 1
        short = found.checked.recall < found.wanted.recall
        fixed = found.wanted.max_miss is not None or found.wanted.budget.latency is not None
        longer = _longer(winner, found)
        if not short or fixed or step == _STEPS_UP or longer == winner.keeps:
            break
        found.notes.append(
            f"'{winner.funnel}' found {found.checked.recall:.4f} of the checking queries' answers, "
            "so its lists were lengthened"
        )
        chosen = next(each for each in found.forecasts if each.template == winner.template)
        winner = yield from _measure(found, chosen, longer, choosing)
        found.measured.append(winner)
    if winner is not found.winner:
        others = [each for each in found.finalists if each.template != winner.template][:1]
        few = choosing.first(_TIMED)
        yield from take_turns(found.ground, few, [winner, *others], rounds=_ROUNDS)
        found.finalists, found.winner = [winner, *others], winner


def _longer(winner: Measured, found: Outcome) -> tuple[int, ...]:
    keeps = np.array(ladder(found.wanted.k, found.ground.rule.least))
    return tuple(
        int(keeps[min(len(keeps) - 1, int(np.searchsorted(keeps, keep, side="right")))])
        for keep in winner.keeps
    )
