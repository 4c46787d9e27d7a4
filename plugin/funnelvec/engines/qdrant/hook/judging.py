"""Relevance of what a search through the hook finds, where it was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.calibration import AdapterCalibration, StoredCalibration
from funnelvec.engines.qdrant.correcting import Correction
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.hook.known import Hook
from funnelvec.engines.qdrant.vectors import Stored
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import CapabilityError, InvalidInput, NotCalibrated

__all__ = ["Judge", "judge_of"]


@dataclass(frozen=True, slots=True)
class Judge:
    """The calibration of a search, and what its hits are told to be worth.

    Attributes
    ----------
    key
        Of the payload, for relevance; None where it is not told.
    cutoff
        The lowest score of an answer; None where all pass, +inf where none does. Under an adapter
        None: its shortlist says.
    least
        The lowest relevance of an answer; None where all pass.
    correction
        What the scores of the hits are less; None where they are Qdrant's own.
    """

    query: npt.NDArray[np.float32]
    last: Stored
    calibration: StoredCalibration | None
    key: str | None
    cutoff: float | None
    least: float | None = None
    correction: Correction | None = None

    @property
    def depth(self) -> int:
        """How many rows of the shortlist an adapter looks at; 0 for one map for all queries."""
        return getattr(self.calibration, "depth", 0)

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
        self.mark(kept, self.calibration)
        return kept

    def cut(
        self, shortlist: list[models.ScoredPoint], threshold: float | None
    ) -> tuple[StoredCalibration, list[models.ScoredPoint]]:
        """The map of the query by its shortlist, and what passes that and a threshold of Qdrant's.

        The threshold is the application's: it may have cut the shortlist short.
        """
        assert isinstance(self.calibration, AdapterCalibration)  # else nobody asks
        scores = [self._score(hit.score) for hit in shortlist]
        at = self.calibration.at(self.query, scores)
        cutoff = -np.inf if self.least is None else at.cutoff(self.query, self.least)
        falls = self.last.falls and self.correction is None
        kept = [
            hit
            for hit, score in zip(shortlist, scores, strict=True)
            if score >= cutoff and _reaches(hit.score, threshold, falls=falls)
        ]
        return at, kept

    def mark(self, hits: list[models.ScoredPoint], calibration: StoredCalibration | None) -> None:
        """Tell what hits are worth by a calibration, where that was asked for."""
        key = self.key
        if key is None:
            return
        worth: list[float | None] = [None] * len(hits)
        if calibration is not None and hits:
            scores = [self._score(hit.score) for hit in hits]
            worth = [float(each) for each in calibration.apply(self.query, scores)]
        for hit, value in zip(hits, worth, strict=True):
            if key in (hit.payload or {}):
                raise InvalidInput(
                    f"point {hit.id} has a payload field {key!r} of its own, where its relevance "
                    "would stand; choose another with fv.hook(client, relevance='...')"
                )
            hit.payload = {**(hit.payload or {}), key: value}


def _reaches(score: float, threshold: float | None, *, falls: bool) -> bool:
    """Whether Qdrant would have let a score through: it compares 32-bit floats, strictly."""
    if threshold is None:
        return True
    ours, given = np.float32(score), np.float32(threshold)
    return bool(ours < given if falls else ours > given)


def judge_of(
    hook: Hook,
    vector: Vector,
    named: NamedFunnel | None,
    query: npt.NDArray[np.float32],
    correction: Correction | None,
    *,
    whole: bool,
) -> Judge | None:
    """Return what judges the hits of a search; None where the hook was not asked to.

    Parameters
    ----------
    correction
        What their scores are less.
    whole
        Whether the shortlist of the search is that of its funnel, and comes back.

    Raises
    ------
    NotCalibrated
        If the hook has a least relevance, and the funnel has no calibration.
    CapabilityError
        If it has one, the calibration is an adapter, and the shortlist is another.
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
    if isinstance(calibration, AdapterCalibration):
        if not whole and hook.min_relevance is not None:
            raise CapabilityError(
                "relevance is that of an adapter here, read off the shortlist of a plain search: "
                "groups and searches with a prefetch of their own have none, so min_relevance "
                "means nothing for them; use query_points without a prefetch, or "
                "calibrate(judgments, family='platt'). A postgresql:// table has adapters for "
                "every search"
            )
        calibration = calibration if whole else None
    elif calibration is not None and hook.min_relevance is not None:
        cutoff = calibration.cutoff(query, hook.min_relevance)
    last = vector.column.stored(vector.column.base)
    least = None if cutoff == -np.inf else cutoff
    asked = hook.min_relevance
    return Judge(query, last, calibration, hook.relevance, least, asked, correction)
