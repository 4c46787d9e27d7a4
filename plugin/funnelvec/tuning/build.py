"""Building what a run measures, and removing again what did not win.

Before something is built a funnel with a telling name is made, which ends in the column and needs
nothing. So a run that was stopped, however, leaves word of what it had begun.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from funnelvec.errors import Conflict, FunnelvecError
from funnelvec.funnel import Funnel, Stage
from funnelvec.resolution import Resolution
from funnelvec.tuning.asking import Drawn
from funnelvec.tuning.calls import Call, Say, Steps
from funnelvec.tuning.candidates import CHAIN, PCA, Template
from funnelvec.tuning.forecast import Forecast
from funnelvec.tuning.ground import Ground
from funnelvec.tuning.measure import create
from funnelvec.tuning.wanted import Wanted

__all__ = ["clean", "drop_losers", "provide"]

#: Rows that a rotation is fitted to: what the simulation took, and those that it holds out.
_FIT = 5_500
_WIDEST = 512
#: Queries that a rotation is measured with; the run measures what it is worth in a funnel.
_MEASURED = 50


def provide(
    ground: Ground, wanted: Wanted, forecasts: Iterable[Forecast], asked: Drawn, *, indexed: bool
) -> Steps[float]:
    """Store and index what some funnels need and the table does not have; seconds that it took.

    Rotations are fitted to rows; queries that are none tell what they are worth.
    """
    forecasts = list(forecasts)
    chosen = [each.template for each in forecasts]
    graphs = {each.template.first: each.graph for each in forecasts}
    firsts = list(dict.fromkeys(each.first for each in chosen))
    needed = list(dict.fromkeys(r for each in chosen for r in each.stages[:-1]))
    spent = 0.0
    for rotation in dict.fromkeys(filter(None, map(ground.rotation_of, needed))):
        spent += yield from _fit(ground, rotation, needed, asked.strangers(_MEASURED))
    missing = [each for each in needed if not ground.ready(each, first=False, indexed=indexed)]
    if missing:
        spent += yield from _store(ground, wanted, missing)
    for resolution in firsts:
        if indexed and not ground.ready(resolution, first=True, indexed=True):
            yield Say(f"indexing {resolution}", 50)
            options = _options(wanted) | {"index": True}
            graph = graphs[resolution]
            if graph is not None:
                options |= {"m": graph.m, "ef_construction": graph.ef_construction}
            spent += yield from _spent(ground, wanted, "add_resolution", resolution, options)
    status = yield Call("status", on=ground.on)
    ground.stored = {
        Resolution.parse(each.resolution): each
        for each in status
        if each.storage not in ("window", "base")
    }
    return spent / 1e3


def _fit(ground: Ground, rotation: str, needed: list[Resolution], asked: Any) -> Steps[float]:
    widths = [each.dims for each in needed if each.rotation == rotation]
    chain = "random" if rotation == CHAIN else None
    dims = max(widths) if chain else min(_WIDEST, ground.about.base.dims, max(widths))
    yield Say(f"fitting the rotation {rotation} of {dims} dimensions", 45)
    yield from create(ground, ground.names.mark_rotation(rotation), _marker(ground))
    options = {
        "dims": dims, "then": chain, "sample": max(_FIT, 3 * dims),
        "metric": ground.about.metric, "queries": asked,
    }  # fmt: skip
    _, spent = yield Call("fit_rotation", (rotation,), options, on=ground.on, timed=True)
    ground.fitted_here.append(rotation)
    return float(spent)


def _store(ground: Ground, wanted: Wanted, missing: list[Resolution]) -> Steps[float]:
    """Store codes, all at once: one more at a time would write the table anew for each."""
    yield Say(f"storing {', '.join(map(str, missing))}", 47)
    for resolution in missing:
        if resolution not in ground.ours:
            yield from create(ground, ground.names.mark(resolution), _marker(ground))
            ground.ours.append(resolution)
    stages = [*(Stage(each, 1) for each in missing), Stage(ground.about.base)]
    options = _options(wanted) | {"index": False}
    spent = yield from _spent(ground, wanted, "add_resolutions", Funnel(tuple(stages)), options)
    return spent


def _spent(
    ground: Ground, wanted: Wanted, method: str, what: Any, options: dict[str, Any]
) -> Steps[float]:
    """Call something that builds, and finish what it leaves; milliseconds."""
    _, spent = yield Call(method, (what,), options, on=ground.on, timed=True)
    if wanted.storage == "side":
        _, filled = yield Call("backfill", on=ground.on, timed=True)
        spent += filled
    return float(spent)


def _options(wanted: Wanted) -> dict[str, Any]:
    return {"allow_rewrite": wanted.allow_rewrite, "storage": wanted.storage}


def drop_losers(ground: Ground, winner: Template | None) -> Steps[tuple[list[str], list[str]]]:
    """Remove what runs have built and the winner does not use; what the user has stays.

    Returns
    -------
    What was dropped, and what could not be, with the reason.
    """
    kept = set() if winner is None else set(winner.stages)
    dropped, stayed = [], []
    for resolution in ground.ours:
        if resolution in kept:
            continue
        try:
            yield Call("drop_resolution", (resolution,), on=ground.on)
            dropped.append(str(resolution))
            ground.stored.pop(resolution, None)
        except FunnelvecError as error:
            stayed.append(f"{resolution} stays: {error}")
    for rotation in ground.fitted_here:
        if rotation in {each.rotation for each in kept}:
            continue
        try:
            yield Call("drop_rotation", (rotation,), on=ground.on)
            dropped.append(f"rotation {rotation}")
        except Conflict as error:
            stayed.append(f"rotation {rotation} stays: {error}")
    return dropped, stayed


def clean(ground: Ground, *, marks: bool) -> Steps[None]:
    """Drop the run's own funnels; with `marks`, also the word of what was built."""
    signs = {ground.names.mark(each) for each in ground.ours}
    signs |= {ground.names.mark_rotation(each) for each in (PCA, CHAIN)}
    before = {name for name in ground.funnels if name.startswith(f"{ground.names.prefix}_")}
    for name in sorted((before | ground.made) - ground.gone):
        if marks or name not in signs:
            yield Call("drop_funnel", (name,), on=ground.on)
            ground.gone.add(name)


def _marker(ground: Ground) -> Funnel:
    return Funnel((Stage(ground.about.base),))
