"""Stages and cutoff together: which measured funnels can carry a miss budget.

The budget covers all that is lost, by stages and by the cutoff. A funnel whose stages lose more
leaves less to the cutoff, which then has to let more rows through. So the fastest funnel is chosen
whose certified cutoff lets through hardly more rows than that of the funnel which loses least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from funnelvec.errors import CalibrationError
from funnelvec.tuning.calls import Call, Say, Steps
from funnelvec.tuning.candidates import Template
from funnelvec.tuning.measure import Asked, Measured, create

if TYPE_CHECKING:
    from funnelvec.tuning.run import Outcome

__all__ = ["certify", "check_promise"]

#: Rows more than with the funnel that loses least that the cutoff of a faster one may show.
_MORE = 1.1
_CERTIFIED, _ASKED = 12, 50


def check_promise(found: Outcome) -> Steps[None]:
    """Refuse, before anything is built, what not even an exact search could promise.

    Raises
    ------
    CalibrationError
        If the judged queries are too few, or there is nothing to promise.
    NotCalibrated
        If the funnel has no calibration.
    """
    wanted, ground = found.wanted, found.ground
    if ground.rule.needs_list:
        return  # a funnel of one stage has another calibration, or none; the built ones will say
    name = ground.names.trial(0)
    yield from create(ground, name, Template((ground.about.base,)).funnel(()))
    options = {"max_miss": wanted.max_miss, "k": wanted.k, "funnel": name}
    yield Call("certify", (wanted.judgments,), options, on=ground.on)


def certify(found: Outcome, asked: Asked) -> Steps[None]:
    """Certify what was measured, and keep the certificates of those that may be chosen.

    Raises
    ------
    CalibrationError
        If no funnel can carry the budget; the message is that of the funnel that loses least.
    NotCalibrated
        If the funnel has no calibration.
    """
    wanted, ground = found.wanted, found.ground
    by_recall = sorted(found.measured, key=lambda each: (-each.recall, each.milliseconds))
    refused: CalibrationError | None = None
    certified: list[Measured] = []
    for number, each in enumerate(by_recall[:_CERTIFIED]):
        yield Say(f"certifying '{each.funnel}'", 76)
        name = ground.names.trial(0)
        yield from create(ground, name, each.funnel)
        options = {"max_miss": wanted.max_miss, "k": wanted.k, "funnel": name}
        try:
            each.certificate = yield Call("certify", (wanted.judgments,), options, on=ground.on)
        except CalibrationError as error:
            refused = refused or (error if number == 0 else None)
            continue
        each.shown = yield from _shown(found, asked, name, wanted.k)
        certified.append(each)
    if not certified:
        assert refused is not None  # nothing was certified, so each was refused
        raise refused
    most = _MORE * certified[0].shown if certified[0].shown is not None else np.inf
    for each in certified:
        if each.shown is not None and each.shown > most:
            each.certificate = None


def _shown(found: Outcome, asked: Asked, name: str, k: int) -> Steps[float]:
    """Mean number of rows that the certified cutoff lets through."""
    counts = []
    for query in asked.queries[:_ASKED]:
        options = {"k": k, "cutoff": "certified", "funnel": name}
        hits = yield Call("search", (query,), options, on=found.ground.on)
        counts.append(len(hits))
    return float(np.mean(counts))
