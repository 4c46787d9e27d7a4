"""Fitting relevance to judgments in memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.choosing import JudgedScores, fit_family
from funnelvec.calibration.listed import DEPTH, LEAST_DEPTH, padded
from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.stored import StoredCalibration, provenance_of
from funnelvec.engines import options
from funnelvec.engines.store import NamedFunnel, Store, judge
from funnelvec.types import Family, Judgments

if TYPE_CHECKING:
    from funnelvec.resolution import Resolution
    from funnelvec.types import Metric

__all__ = ["MemoryCalibrating"]


class MemoryCalibrating:
    """The method of `MemoryTable` that calibrates."""

    if TYPE_CHECKING:  # what the table has and these methods use
        vector: str
        _store: Store
        _calibrations: dict[tuple[str | None, Metric, Resolution], tuple[StoredCalibration, ...]]

        @property
        def metric(self) -> Metric: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _keep_reference(
            self, named: NamedFunnel, calibration: StoredCalibration, judgments: Judgments
        ) -> None: ...

    def calibrate(
        self, judgments: Judgments, *, family: Family = "platt", funnel: str | None = None
    ) -> StoredCalibration:
        """Fit relevance to judged pairs and use it from now on."""
        named, family = self._funnel(funnel), options.check_family(family)
        last = named.funnel.last.resolution
        present, scores = judge(self._store, judgments, last)
        lists = partial(self._lists, named) if family in ("adapter", "auto") else None
        calibration = fit_family(
            JudgedScores.of(present, scores, lists),
            family,
            **provenance_of(
                present,
                model=named.model,
                vector=self.vector,
                metric=self.metric,
                last_stage=str(last),
            ),
        )
        key = (named.model, self.metric, last)
        self._calibrations[key] = (*self._calibrations.get(key, ()), calibration)
        self._keep_reference(named, calibration, judgments)
        return calibration

    def _lists(self, named: NamedFunnel, queries: npt.NDArray[np.float32]) -> Floats | None:
        """Return the scores of each query's shortlist; None where the funnel keeps too few."""
        depth = min(DEPTH, named.funnel.narrowest_keep or 0)
        if depth < LEAST_DEPTH:
            return None
        everything = np.arange(len(self._store))
        answers = (self._store.descend(query, named.funnel, everything) for query in queries)
        return np.stack([padded(steps[-1].scores, depth) for steps in answers])

    def _calibration(self, named: NamedFunnel) -> StoredCalibration | None:
        """Return the calibration in force: the newest that the funnel can use."""
        key = (named.model, self.metric, named.funnel.last.resolution)
        keep = named.funnel.narrowest_keep
        return next((c for c in self._calibrations.get(key, ())[::-1] if c.serves(keep)), None)
