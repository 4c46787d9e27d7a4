"""One tuning run: read, simulate, build the few that are worth it, measure, choose, check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from funnelvec.errors import EngineError, FunnelvecError, InvalidInput
from funnelvec.reports import Sample
from funnelvec.tuning import search
from funnelvec.tuning.asking import Drawn, draw
from funnelvec.tuning.build import clean, drop_losers, provide
from funnelvec.tuning.calls import Call, Compute, Say, Steps
from funnelvec.tuning.candidates import Template
from funnelvec.tuning.certifying import certify, check_promise
from funnelvec.tuning.cost import Prices
from funnelvec.tuning.explaining import report
from funnelvec.tuning.forecast import Forecast, forecast, nearest
from funnelvec.tuning.ground import About, Ground
from funnelvec.tuning.keeping import find_prices, packed
from funnelvec.tuning.measure import Asked, Measured, create
from funnelvec.tuning.report import TuningReport
from funnelvec.tuning.sure import interval
from funnelvec.tuning.wanted import Wanted
from funnelvec.tuning.world import Axes, World

__all__ = ["STEPS", "Outcome", "tune"]

#: What `Say` counts to.
STEPS = 100
#: Seconds that exact searches of a table may take where the sample is only a part of it.
_PATIENCE = 60.0


@dataclass(slots=True)
class Outcome:
    """What a run has come to know, for its report."""

    wanted: Wanted
    ground: Ground
    sample: int
    drawn: Drawn
    world: World
    checking: World
    prices: Prices
    forecasts: list[Forecast]
    beyond: list[Forecast] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    finalists: list[Measured] = field(default_factory=list)
    winner: Measured | None = None
    checked: Any = None
    looks: int = 0
    built_seconds: float = 0.0
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: frozenset[Any] = frozenset()
    applied: bool = False
    seconds: float = 0.0


def tune(about: About, wanted: Wanted) -> Steps[TuningReport]:
    """Choose a funnel; see `funnelvec.engines.tunable.Tunable.tune`."""
    started = perf_counter()
    yield Say("reading a sample", 1)
    count = wanted.sample if wanted.on_copy is None else wanted.on_copy
    sample = yield Call("sample", (count,), {"seed": wanted.seed})
    if len(sample.vectors) < 5 * wanted.k:
        raise InvalidInput(
            f"the table has {len(sample.vectors)} rows with a vector, too few to tune for the best "
            f"{wanted.k} of them; searching the column itself is exact and fast there"
        )
    ground = yield from _ground(about, sample.rows)
    if wanted.funnel in ground.funnels:
        ground.model = ground.funnels[wanted.funnel].model
    ground.rule = yield Call("_score_rule", (ground.model,))
    drawn = yield from draw(ground, wanted, sample)
    if wanted.on_copy is None or wanted.dry_run:
        found = yield from _run(ground, wanted, sample, drawn)
    else:
        name = ground.names.copy
        try:
            rule = ground.rule
            ground = yield from _copied(ground, sample)
            found = yield from _run(ground, wanted, sample, drawn)
            if rule.alpha:
                found.notes.append(
                    "the copy has no hub column, so this is for the plain order of the scores, and "
                    "not for that of the calibration"
                )
        finally:
            yield Call("_drop_scratch", (name,))
    found.seconds = perf_counter() - started
    return report(found)


def _ground(about: About, rows: int, on: Any = None) -> Steps[Ground]:
    funnels = yield Call("_funnels_now", on=on)
    rotations = yield Call("_rotations_now", on=on)
    status = yield Call("status", on=on)
    found = Ground.of(about, rows, funnels, rotations, status)
    found.on = on
    return found


def _copied(ground: Ground, sample: Sample) -> Steps[Ground]:
    """A table of the sample's rows, to build and measure on instead of the user's."""
    name = ground.names.copy
    yield Say(f"copying {len(sample.vectors):,} rows to {name}", 5)
    copy = yield Call("_scratch", (name,))
    if copy is None:
        raise InvalidInput(f"{ground.about.engine} has no place for a copy; leave on_copy out")
    yield Call("add", (range(len(sample.vectors)), sample.vectors), on=copy)
    about = About(
        copy.name, ground.about.vector, ground.about.base, ground.about.metric, copy.key,
        ground.about.engine,
    )  # fmt: skip
    found = yield from _ground(about, len(sample.vectors), on=copy)
    return found


def _run(ground: Ground, wanted: Wanted, sample: Sample, drawn: Drawn) -> Steps[Outcome]:
    indexed = ground.about.engine != "memory"
    whole = ground.on is not None or (sample.exact and len(sample.vectors) == sample.rows)
    try:
        yield Say("searching the sample exactly", 8)
        half = drawn.half
        world = yield Compute(lambda: _world(ground, wanted, sample, drawn, slice(0, half)))
        others = yield Compute(lambda: _world(ground, wanted, sample, drawn, slice(half, None)))
        prices = yield from find_prices(
            ground, wanted, sample.vectors, drawn.queries, indexed=indexed
        )
        yield Say("simulating funnels", 20)
        forecasts, beyond = yield from forecast(ground, wanted, world, prices, indexed=indexed)
        found = Outcome(
            wanted, ground, len(sample.vectors), drawn, world, others, prices, forecasts
        )
        found.beyond = beyond
        found.before = frozenset(each for each in ground.stored if each not in ground.ours)
        if not forecasts:
            raise InvalidInput(
                "no funnel keeps to this budget: give more memory, storage or time to build"
                + nearest(beyond, wanted)
            )
        if prices.kept:
            found.notes.append(
                f"what the engine charges was measured {prices.at} on this machine, and kept; "
                "measure_again (--measure-again) measures it anew"
            )
        if drawn.warning:
            found.notes.append(drawn.warning)
        if not whole:
            found.notes.append(
                f"simulated on {len(sample.vectors):,} of {ground.rows:,} rows, with longer lists "
                "for the whole table carried on from how they grew inside the sample"
            )
        if not wanted.dry_run:
            yield from _measured(found, sample, whole=whole, indexed=indexed)
        return found
    except BaseException as error:
        yield from clean(ground, marks=False)
        if isinstance(error, FunnelvecError) and not isinstance(error, EngineError):
            # Refused for good; else what was built stays, with its marks: another run goes on.
            yield from drop_losers(ground, None)
            yield from clean(ground, marks=True)
        raise


def _world(ground: Ground, wanted: Wanted, sample: Sample, drawn: Drawn, part: slice) -> World:
    about = ground.about
    axes = Axes(sample.vectors, metric=about.metric, kept=ground.rotations or {})
    less = None
    if ground.rule.alpha and sample.hubs is not None:
        less = ground.rule.alpha * sample.hubs.astype(np.float64)
    return World(
        sample.vectors,
        drawn.queries[part],
        drawn.itself[part],
        base=about.base,
        metric=about.metric,
        k=wanted.k,
        axes=axes,
        less=less,
        least=ground.rule.least,
    )


def _measured(found: Outcome, sample: Sample, *, whole: bool, indexed: bool) -> Steps[None]:
    ground, wanted = found.ground, found.wanted
    choosing, checking = yield from _asked(found, sample, whole=whole)
    if wanted.max_miss is not None:
        yield from check_promise(found)
    survivors = search.survivors(found.forecasts, found.wanted)
    found.built_seconds = yield from provide(
        ground, wanted, survivors, found.drawn, indexed=indexed
    )
    yield from search.tune_keeps(found, survivors, choosing)
    if wanted.max_miss is not None:
        yield from certify(found, choosing)
    yield Say("letting the best answer in turns", 80)
    yield from search.finals(found, choosing)
    yield Say("checking with other queries", 90)
    yield from search.check(found, choosing, checking)
    assert found.winner is not None  # `finals` has chosen one
    yield Say("cleaning up", 96)
    yield from _apply(found, found.winner)
    yield from clean(ground, marks=False)  # what was measured with would be in the way
    dropped, stayed = yield from drop_losers(ground, found.winner.template)
    found.dropped, found.notes = dropped, [*found.notes, *stayed]
    yield from clean(ground, marks=True)


def _asked(found: Outcome, sample: Sample, *, whole: bool) -> Steps[tuple[Asked, Asked]]:
    """The two halves of the queries, with what their answers must score in the table."""
    drawn, world, ground = found.drawn, found.world, found.ground
    ids: Sequence[Any] = range(len(sample.ids)) if ground.on is not None else sample.ids
    own = [None if row < 0 else ids[row] for row in drawn.itself]
    worst = np.concatenate([world.worst, found.checking.worst])
    half, count = drawn.half, len(drawn.queries)
    if not whole:
        yield Say("searching the table exactly", 40)
        worst, count = yield from _exact(found, own)
        half = min(half, count // 2)
        if count < len(drawn.queries):
            found.notes.append(
                f"an exact search takes so long here that {count} of {len(drawn.queries)} queries "
                "were measured with"
            )
    return tuple(  # type: ignore[return-value]
        Asked(drawn.queries[part], own[part], worst[part], found.wanted.k)
        for part in (slice(0, half), slice(half, count))
    )


def _exact(found: Outcome, own: Sequence[Any]) -> Steps[tuple[Any, int]]:
    """Scores of the k-th true answers, by exact searches while patience lasts."""
    ground, k = found.ground, found.wanted.k
    name = ground.names.trial(0)
    corrected = bool(ground.rule.alpha)  # which a funnel of one stage is not
    if not corrected:
        yield from create(ground, name, Template((ground.about.base,)).funnel(()))
    worst: list[float] = []
    spent = 0.0
    for query, itself in zip(found.drawn.queries, own, strict=True):
        if corrected:
            options = {"own": itself, "model": ground.model}
            least, took = yield Call("_worst", (query, k), options, on=ground.on, timed=True)
        else:
            options = {"k": k + 1, "funnel": name}
            hits, took = yield Call("search", (query,), options, on=ground.on, timed=True)
            least = [hit.score for hit in hits if hit.id != itself][:k][-1]
        worst.append(least)
        spent += took / 1e3
        if spent > _PATIENCE and len(worst) >= found.wanted.queries_needed:
            break
    return np.array(worst), len(worst)


def _apply(found: Outcome, winner: Measured) -> Steps[None]:
    """Make the funnel, in place of the one that had its name."""
    ground, wanted = found.ground, found.wanted
    if ground.on is not None:
        found.notes.append(
            "this was measured on a copy, and nothing was changed in the table; tune without "
            "on_copy builds it there"
        )
        return
    kept = ground.funnels.get(wanted.funnel)
    options: dict[str, Any] = {"replace": kept is not None}
    if kept is not None:
        options |= {"model": kept.model, "returns": kept.returns}
    yield Call("create_funnel", (wanted.funnel, winner.funnel), options)
    low, high = interval(found.checked.shares, looks=found.looks, others=winner.shares)
    yield Call(
        "_keep_tuned", (wanted.funnel,),
        {"target": wanted.recall, "k": wanted.k, "recall": found.checked.recall, "low": low,
         "high": high, "prices": packed(found.prices)},
    )  # fmt: skip
    if winner.certificate is not None:
        yield Call(
            "certify", (wanted.judgments,),
            {"max_miss": wanted.max_miss, "k": winner.certificate.k, "funnel": wanted.funnel},
        )  # fmt: skip
    found.applied = True
