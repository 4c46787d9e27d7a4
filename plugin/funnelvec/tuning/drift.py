"""Whether funnels still fit their table: recall on rows old and new, coverage, lists too short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from funnelvec.doctor.fit import Fit, Found, Tuned
from funnelvec.doctor.prefixes import TARGET
from funnelvec.doctor.stages import rounded
from funnelvec.doctor.values import share
from funnelvec.errors import FunnelvecError
from funnelvec.funnel import Funnel
from funnelvec.reports import ResolutionStatus
from funnelvec.tuning.calls import Call, Steps
from funnelvec.tuning.ground import KeptFunnel, Names

if TYPE_CHECKING:
    from funnelvec.doctor.diagnosis import Diagnosis

__all__ = ["fits", "judged"]

#: Below this share of the list that the sample asks for, a first stage has been outgrown; lists
#: are estimates, and a tuned one may be shorter since a lower recall was asked for.
_SHORT = 0.5
_COVERED = 0.99
#: How much less has to be found of new rows than of all before it is more than chance and taste.
_LESS = 0.02
#: Share of new rows from which on a recall that nobody could measure is worth a new run.
_MANY = 0.5
#: Rows that are asked for, at first to see how long that takes; then in so many milliseconds.
_PROBED, _FEWEST, _MOST, _PATIENCE = 5, 20, 100, 5_000.0
#: An exact search that takes longer is left to whoever wants it.
_SLOWEST = 1_500.0


def fits(found: Diagnosis, *, seed: int) -> Steps[tuple[Fit, ...]]:
    """Measure every funnel of the table, and say which want to be tuned again, and why."""
    kept: Mapping[str, KeptFunnel] = yield Call("_funnels_now")
    tuned: Mapping[str, Tuned] = yield Call("_tuned_now")
    status: Sequence[ResolutionStatus] = yield Call("status")
    own = f"{Names(found.table).prefix}_"
    judgements = []
    for name, each in sorted(kept.items()):
        if name.startswith(own):  # what a run that was stopped has left
            continue
        everywhere, recent, notes = yield from _recalls(name, each, tuned.get(name), seed)
        standing = Fit(
            name, each.funnel, tuned.get(name), everywhere, recent, _coverage(each, status),
            notes=notes,
        )  # fmt: skip
        judgements.append(judged(found, standing))
    return tuple(judgements)


def _recalls(
    name: str, kept: KeptFunnel, tuned: Tuned | None, seed: int
) -> Steps[tuple[Found, Found, tuple[str, ...]]]:
    """Recall on rows of all, and on those that came since."""
    funnel = Funnel.parse(kept.funnel)
    most = funnel.narrowest_keep
    k = tuned.k if tuned is not None else 10
    if most is None:
        return Found(), Found(), ()
    k = max(1, min(k, most - 1))
    everywhere = recent = Found()
    try:
        probe = yield _asked(name, recent=False, sample=_PROBED, k=k, seed=seed)
        if probe.ms is not None and probe.ms > _SLOWEST:
            text = (
                f"an exact search takes {probe.ms / 1e3:.1f} s here, so recall was not measured; "
                f"measure_recall(funnel={name!r}) does"
            )
            return Found(), Found(), (text,)
        count = int(min(_MOST, max(_FEWEST, _PATIENCE / max(probe.ms or 1.0, 1e-3))))
        everywhere = yield _asked(name, recent=False, sample=count, k=k, seed=seed)
        recent = yield _asked(name, recent=True, sample=count, k=k, seed=seed)
    except FunnelvecError as error:
        return everywhere, recent, (f"recall was not measured: {error}",)
    untold = not recent.queries and recent.decided is not None and recent.since != 0
    return everywhere, recent, (f"rows since: {recent.decided}",) if untold else ()


def _asked(name: str, *, recent: bool, sample: int, k: int, seed: int) -> Call:
    return Call(
        "_recall_since", (name,), {"recent": recent, "sample": sample, "k": k, "seed": seed}
    )


def _coverage(kept: KeptFunnel, status: Sequence[ResolutionStatus]) -> dict[str, float]:
    there = {each.resolution: each.coverage for each in status if each.storage != "window"}
    stages = [str(stage.resolution) for stage in Funnel.parse(kept.funnel).stages[:-1]]
    return {each: there.get(each, 1.0) for each in stages}


def judged(found: Diagnosis, fit: Fit) -> Fit:
    """Say what is to be done about a funnel, by what was measured of it."""
    said = [
        f"{1 - part:.1%} of the rows have no {name}, so it cannot find them; backfill, or see "
        "status"
        for name, part in fit.coverage.items()
        if part < _COVERED
    ]
    said += _lost(fit)
    said += _outgrown(found, fit)
    return replace(fit, advice=tuple(said))


def _lost(fit: Fit) -> list[str]:
    """Recall below what was tuned for, or lower on new rows than on all."""
    everywhere, recent, tuned = fit.everywhere, fit.recent, fit.tuned
    since = "" if fit.since is None else f", {share(fit.since)} of the rows,"
    new = "rows that came since it was tuned" if tuned is not None else "the newest tenth"
    unlike = (
        recent.recall is not None
        and recent.high is not None
        and everywhere.recall is not None
        and everywhere.low is not None
        and recent.high < everywhere.low
        and recent.recall < everywhere.recall - _LESS
    )
    if unlike:
        return [
            f"of {new}{since} it finds {recent}, of all {everywhere}: they are unlike those that "
            "its stages were chosen by; tune again"
        ]
    if tuned is not None:
        for which, each in ((new + since, recent), ("the rows", everywhere)):
            if each.high is not None and each.high < tuned.target:
                return [
                    f"of {which} it finds {each}, and it was tuned for {tuned.target:g}; tune again"
                ]
        if not recent.queries and fit.since is not None and fit.since >= _MANY:
            return [f"{share(fit.since)} of the rows came since it was tuned; tune again"]
    return []


def _outgrown(found: Diagnosis, fit: Fit) -> list[str]:
    """A list shorter than the table needs by now."""
    prefixes, first = found.measures.prefixes, Funnel.parse(fit.funnel).stages[0]
    if prefixes is None or first.keep is None:
        return []
    known = {stage.resolution: stage for stage in prefixes.stages}.get(str(first.resolution))
    if known is None:
        return []
    needed = rounded(known.keep_at(prefixes.rows, found.rows))
    if first.keep >= _SHORT * needed:
        return []
    measured = fit.everywhere
    if measured.low is not None and measured.low >= TARGET:
        return []  # it was asked, and loses next to nothing: an estimate says no more
    return [
        f"keeps {first.keep:,} rows of {first.resolution}, and for {TARGET:g} of the top 10 of "
        f"{found.rows:,} rows this sample asks for {needed:,}; measure_recall(), and tune again"
    ]
