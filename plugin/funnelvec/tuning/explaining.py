"""From what a run has found to its report: the frontier, and the reasons in sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from funnelvec.tuning.forecast import Forecast, sizes
from funnelvec.tuning.measure import Measured
from funnelvec.tuning.report import Option, TuningReport
from funnelvec.tuning.sure import interval, ratio_interval

if TYPE_CHECKING:
    from funnelvec.tuning.run import Outcome

__all__ = ["report"]

#: What takes more than this share of the time, or of the memory, is not told apart.
_SHOWS = 0.97
#: Fewer bytes are printed as 0.0 MB.
_PRINTED = 50_000
#: Funnels of the simulation that are shown beside those that were measured.
_SHOWN = 12


def report(found: Outcome) -> TuningReport:
    """Write down what a run has found."""
    options = _frontier(_options(found))
    best = found.forecasts[0]
    winner = found.winner
    funnel = best.template.funnel(best.keeps) if winner is None else winner.funnel
    recall, milliseconds = best.recall, best.milliseconds
    low, high, checked = recall, recall, 0
    if best.simulated is not None and winner is None:
        low, high = _simulated_interval(found, best)
    if winner is not None:
        recall, milliseconds = found.checked.recall, winner.milliseconds
        checked = len(found.checked.shares)
        low, high = interval(found.checked.shares, looks=found.looks, others=winner.shares)
    second, ratio = _runner_up(found)
    about, wanted = found.ground.about, found.wanted
    built = [str(each) for each in found.ground.ours if each in found.ground.stored]
    return TuningReport(
        table=about.name, vector=about.vector, engine=about.engine, rows=found.ground.rows,
        sample=found.sample, name=wanted.funnel, funnel=str(funnel), target=wanted.recall,
        k=wanted.k, recall=recall, low=low, high=high, checked=checked,
        met=_met(found, recall, milliseconds), latency=wanted.budget.latency,
        milliseconds=milliseconds, runner_up=second,
        ratio=ratio[0], ratio_low=ratio[1], ratio_high=ratio[2],
        losses=_losses(found), options=options, advice=tuple(_advice(found, options, str(funnel))),
        source=found.drawn.source, queries=found.drawn.half, index=_index_of(_chosen(found)),
        built=tuple(built) if winner is not None else (), dropped=tuple(found.dropped),
        applied=found.applied, dry_run=wanted.dry_run,
        certificate=None if winner is None else winner.certificate, prices=found.prices,
        notes=tuple(found.notes), seconds=found.seconds,
    )  # fmt: skip


def _chosen(found: Outcome) -> Forecast:
    """The forecast of what was chosen."""
    if found.winner is None:
        return found.forecasts[0]
    return next(e for e in found.forecasts if e.template == found.winner.template)


def _met(found: Outcome, recall: float, milliseconds: float) -> bool:
    if found.wanted.max_miss is not None:
        return found.winner is None or found.winner.certificate is not None
    if found.wanted.budget.latency is not None:
        return milliseconds <= found.wanted.budget.latency
    return recall >= found.wanted.recall


def _simulated_interval(found: Outcome, best: Forecast) -> tuple[float, float]:
    ranks = found.world.ranks(best.template.first)
    shares = (ranks < best.keeps[0]).mean(axis=1)
    low, high = interval(shares)
    off = best.recall - float(shares.mean())
    return max(0.0, low + off), min(1.0, high + off)


def _options(found: Outcome) -> list[Option]:
    options = [_measured_option(found, each) for each in found.measured]
    seen = {each.template for each in found.measured}
    others = [each for each in found.forecasts if each.template not in seen]
    pace = _pace(found)
    for each in others[:_SHOWN]:
        shown = Option(
            funnel=str(each.template.funnel(each.keeps)),
            recall=each.recall,
            low=None,
            high=None,
            milliseconds=pace * each.milliseconds,
            memory=each.sizes.memory,
            storage=each.sizes.storage,
            build=each.sizes.build,
            measured=False,
            index=_index_of(each),
        )
        options.append(shown)
    return options


def _pace(found: Outcome) -> float:
    """What searches took over what was forecast for them, so that both can stand side by side."""
    return median(e.milliseconds / e.forecast for e in found.measured) if found.measured else 1.0


def _index_of(each: Forecast) -> str:
    return "" if each.graph is None else str(each.graph)


def _measured_option(found: Outcome, each: Measured) -> Option:
    chosen = next(e for e in found.forecasts if e.template == each.template)
    taken = sizes(found.ground, chosen.prices(found.prices), each.template)
    low, high = each.interval
    return Option(
        funnel=str(each.funnel), recall=each.recall, low=low, high=high,
        milliseconds=each.milliseconds, memory=taken.memory, storage=taken.storage,
        build=taken.build, measured=True, index=_index_of(chosen),
    )  # fmt: skip


def _frontier(options: Iterable[Option]) -> tuple[Option, ...]:
    """Mark what nothing beats in recall, time and memory at once; in the order of time."""
    found = sorted(options, key=lambda each: each.milliseconds)

    def beaten(one: Option) -> bool:
        return any(
            other.recall >= one.recall
            and other.milliseconds <= one.milliseconds
            and other.memory <= one.memory
            and (other.recall, other.milliseconds, other.memory)
            != (one.recall, one.milliseconds, one.memory)
            for other in found
        )

    return tuple(replace(each, best=not beaten(each)) for each in found)


def _runner_up(
    found: Outcome,
) -> tuple[str | None, tuple[float | None, float | None, float | None]]:
    winner = found.winner
    others = [
        each for each in found.finalists if winner is not None and each.template != winner.template
    ]
    if winner is None or not others:
        return None, (None, None, None)
    second = min(others, key=lambda each: each.milliseconds)
    return str(second.funnel), ratio_interval(winner.turns, second.turns)


def _losses(found: Outcome) -> tuple[tuple[str, float], ...]:
    """What each stage of the choice loses: codes by the simulation, the index by the rest."""
    best = _chosen(found)
    keeps = best.keeps if found.winner is None else found.winner.keeps
    simulated = best.simulated
    if simulated is None or not keeps:
        return ()
    first = float(simulated.first[simulated.keeps.index(keeps[0])])
    lost = [(str(best.template.first), 1.0 - first)]
    if best.template.middle is not None:
        lost.append((str(best.template.middle), first - simulated.at(keeps)))
    if found.winner is not None and found.prices.indexed:
        lost.append((f"index of {best.template.first}", simulated.at(keeps) - found.winner.recall))
    return tuple((name, max(0.0, round(share, 5))) for name, share in lost)


def _advice(found: Outcome, options: tuple[Option, ...], funnel: str) -> Iterable[str]:
    chosen = next((each for each in options if each.funnel == funnel), None)
    if chosen is None:
        return
    yield _why(found, chosen)
    yield from _settings(found)
    yield from _rule(found)
    lost = [f"{name} {share:.4f}" for name, share in _losses(found)]
    if lost:
        yield f"Share of the true answers lost by each stage: {', '.join(lost)}."
    yield from _larger_budget(found)
    enough = chosen.recall - 0.001
    if found.wanted.budget.latency is None:
        enough = min(enough, found.wanted.recall)
    yield from _more_memory(options, chosen, enough, limited=bool(found.beyond))
    yield from _more_recall(options, chosen)
    second, (ratio, low, high) = _runner_up(found)
    if second is not None and ratio is not None and low is not None and high is not None:
        sure = "a clear choice" if high < 0.95 else "about as fast, so take either"
        sure = sure if ratio <= 1 else "which is faster and finds less, or costs more"
        times = f"{ratio:.2f} of the time ({low:.2f} to {high:.2f})"
        if high - low > ratio:
            times, sure = f"{low:.2f} to {high:.2f} of the time", "which tells nothing"
        yield f"Beside the runner-up '{second}' it takes {times}: {sure}."
    if found.winner is not None and found.winner.certificate is not None:
        promise = found.winner.certificate
        yield (
            f"Certified: stages and cutoff together lose at most {promise.level:g} of the relevant "
            f"rows among the exact top {promise.k}; the cutoff shows {found.winner.shown:.1f} of "
            f"{promise.k} rows."
        )


def _why(found: Outcome, chosen: Option) -> str:
    wanted = found.wanted
    looked = f"{len(found.forecasts)} funnels were simulated"
    if found.winner is not None:
        looked += f" and {len(found.measured)} settings measured"
    if wanted.max_miss is not None:
        best = f"the fastest whose stages and cutoff lose at most {wanted.max_miss:g} together"
    elif wanted.budget.latency is not None:
        best = f"what finds most within {wanted.budget.latency:g} ms"
        if chosen.milliseconds > wanted.budget.latency:
            best = f"the fastest, and nothing was as fast as {wanted.budget.latency:g} ms"
    elif chosen.recall >= wanted.recall:
        best = f"the fastest that reaches recall {wanted.recall:g}"
    else:
        best = f"what comes nearest to recall {wanted.recall:g}"
    return f"{looked}; '{chosen.funnel}' is {best} ({chosen.milliseconds:.2f} ms)."


def _rule(found: Outcome) -> Iterable[str]:
    """What the calibration made of the choice."""
    rule = found.ground.rule
    if rule.alpha:
        yield (
            f"Tuned for the order of the calibration in force, which takes {rule.alpha:.6g} times "
            "its hub off the score of a row: recall is of the exact top rows in that order."
        )
    if rule.least > found.wanted.k:
        yield (
            f"Lists keep at least {rule.least} rows before the last stage: the calibration in "
            "force looks at so many, and a funnel that keeps fewer would lose it."
        )


def _settings(found: Outcome) -> Iterable[str]:
    """Why the index is not the usual one."""
    chosen = _chosen(found)
    if chosen.graph is None:
        return
    if chosen.graph.m < found.prices.m:
        first, rows = chosen.template.first, found.ground.rows
        size = found.prices.index_bytes(first, rows) / 1e6
        seconds = found.prices.build(first, rows, index=True, stored=True)
        yield (
            f"Its index has {chosen.graph}: the usual one was expected to take {size:.1f} MB and "
            f"{seconds:.0f} s to build, which the budget has no room for."
        )
    else:
        yield (
            f"Its index has {chosen.graph}: no list through the usual one was expected to reach "
            f"{found.wanted.recall:g}."
        )


def _larger_budget(found: Outcome) -> Iterable[str]:
    """What the next larger budget would save: by forecasts on both sides, since it is not built."""
    chosen = _chosen(found)
    better = [
        each
        for each in found.beyond
        if each.reaches
        and (
            each.recall > chosen.recall + 0.001
            if found.wanted.budget.latency is not None or not chosen.reaches
            else each.milliseconds < _SHOWS * chosen.milliseconds
        )
    ]
    if not better:
        if found.beyond:
            yield "A larger budget would buy no time here, as far as the simulation says."
        return
    best = min(better, key=lambda each: (each.sizes.memory, each.sizes.storage, each.sizes.build))
    more = (
        ("MB of memory", (best.sizes.memory - chosen.sizes.memory) / 1e6),
        ("MB of storage", (best.sizes.storage - chosen.sizes.storage) / 1e6),
        ("s to build", best.sizes.build - chosen.sizes.build),
    )
    said = ", ".join(f"{size:.1f} {unit}" for unit, size in more if size > 0.05)
    yield (
        f"Beyond the budget, {said} more would save "
        f"{_pace(found) * (chosen.milliseconds - best.milliseconds):.2f} ms a search and find "
        f"{best.recall:.4f}: '{best.template.funnel(best.keeps)}' (simulated)."
    )


def _more_memory(
    options: tuple[Option, ...], chosen: Option, enough: float, *, limited: bool
) -> Iterable[str]:
    """What the next larger one that is faster would save, and what a smaller one would cost."""
    faster = [
        each
        for each in options
        if each.memory > chosen.memory + _PRINTED
        and each.recall >= enough
        and each.milliseconds < _SHOWS * chosen.milliseconds
    ]
    if faster:
        best = min(faster, key=lambda each: each.memory)
        yield (
            f"{(best.memory - chosen.memory) / 1e6:.1f} MB more would save "
            f"{chosen.milliseconds - best.milliseconds:.2f} ms a search: '{best.funnel}'"
            f"{'' if best.measured else ' (simulated)'}."
        )
    elif not limited:
        yield "More memory would buy no time here."
    smaller = [
        each
        for each in options
        if chosen.memory - each.memory > max(_PRINTED, (1 - _SHOWS) * chosen.memory)
        and each.recall >= enough
    ]
    if smaller:
        less = min(smaller, key=lambda each: each.milliseconds)
        yield (
            f"{(chosen.memory - less.memory) / 1e6:.1f} MB less would cost "
            f"{_cost(less, chosen)}: '{less.funnel}'{'' if less.measured else ' (simulated)'}."
        )


def _cost(other: Option, chosen: Option) -> str:
    if _SHOWS * other.milliseconds <= chosen.milliseconds:
        return "no time that shows"
    return f"{other.milliseconds - chosen.milliseconds:.2f} ms"


def _more_recall(options: tuple[Option, ...], chosen: Option) -> Iterable[str]:
    more = [e for e in options if e.measured and e.recall > chosen.recall + 0.001]
    if more:
        best = min(more, key=lambda each: each.milliseconds)
        yield (
            f"Recall {best.recall:.4f} instead of {chosen.recall:.4f} (of the queries it was "
            f"chosen by) would cost {_cost(best, chosen)}: '{best.funnel}'."
        )
