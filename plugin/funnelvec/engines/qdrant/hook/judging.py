"""Relevance of what a search through the hook finds, where it was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.calibration import StoredCalibration
from funnelvec.engines.qdrant.correcting import Correction
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.hook.known import Hook
from funnelvec.engines.qdrant.vectors import Stored
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import InvalidInput, NotCalibrated

__all__ = ["Judge", "judge_of"]


@dataclass(frozen=True, slots=True)
class Judge:
    """The calibration of a search, and what its hits are told to be worth.

    Attributes
    ----------
    key
        Of the payload, for relevance; None where it is not told.
    cutoff
        The lowest score of an answer; None where all pass, +inf where none does.
    correction
        What the scores of the hits are less; None where they are Qdrant's own.
    """

    query: npt.NDArray[np.float32]
    last: Stored
    calibration: StoredCalibration | None
    key: str | None
    cutoff: float | None
    correction: Correction | None = None

    def _score(self, raw: float) -> float:
        return self.last.score(raw) if self.correction is None else raw

    def threshold(self, given: float | None) -> float | None:
        """The stricter of two score thresholds: the application's, and that of the cutoff."""
        if self.cutoff is None or self.cutoff == np.inf:
            return given
        ours = (self.correction or self.last).threshold(self.cutoff)
        if given is None:
            return ours
        return min(given, ours) if self.last.falls else max(given, ours)

    def passed(self, hits: Iterable[models.ScoredPoint]) -> list[models.ScoredPoint]:
        """Leave out what lies below the cutoff by less than Qdrant can tell; mark the rest."""
        cutoff = self.cutoff
        kept = [hit for hit in hits if cutoff is None or self._score(hit.score) >= cutoff]
        if self.key is not None:
            self._mark(kept, self.key)
        return kept

    def _mark(self, hits: list[models.ScoredPoint], key: str) -> None:
        worth: list[float | None] = [None] * len(hits)
        if self.calibration is not None and hits:
            scores = [self._score(hit.score) for hit in hits]
            worth = [float(each) for each in self.calibration.apply(self.query, scores)]
        for hit, value in zip(hits, worth, strict=True):
            if key in (hit.payload or {}):
                raise InvalidInput(
                    f"point {hit.id} has a payload field {key!r} of its own, where its relevance "
                    "would stand; choose another with fv.hook(client, relevance='...')"
                )
            hit.payload = {**(hit.payload or {}), key: value}


def judge_of(
    hook: Hook,
    vector: Vector,
    named: NamedFunnel | None,
    query: npt.NDArray[np.float32],
    correction: Correction | None,
) -> Judge | None:
    """Return what judges the hits of a search; None where the hook was not asked to.

    `correction` is what their scores are less.

    Raises
    ------
    NotCalibrated
        If the hook has a least relevance, and the funnel has no calibration.
    """
    if hook.relevance is None and hook.min_relevance is None:
        return None
    corrected = correction is not None
    calibration = None if named is None else vector.calibration(named, corrected=corrected)
    if calibration is None and hook.min_relevance is not None:
        name = "its funnel" if named is None else f"funnel {named.name!r}"
        raise NotCalibrated(
            f"{name} has no calibration, so min_relevance means nothing; "
            "fv.wrap(client).table(name).calibrate(judgments) makes one"
        )
    cutoff = None
    if calibration is not None and hook.min_relevance is not None:
        cutoff = calibration.cutoff(query, hook.min_relevance)
    last = vector.column.stored(vector.column.base)
    least = None if cutoff == -np.inf else cutoff
    return Judge(query, last, calibration, hook.relevance, least, correction)
