"""Fitting relevance to judgments in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.choosing import LEAST_QUERIES, JudgedScores, fit_family
from funnelvec.calibration.hub import JudgedHubs
from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.row_stats import SAMPLE, RowStats
from funnelvec.calibration.stored import StoredCalibration, provenance_of
from funnelvec.engines import options, shortlists
from funnelvec.engines.keys import check_key
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
        listed = family in ("adapter", "auto")
        judged = JudgedScores.of(present, scores)
        hubs = self._judged_hubs(named, present)
        if listed:
            firsts = np.unique(judged.query_of, return_index=True)[1]
            lists, list_hubs = self._lists(named, present.queries[firsts])
            judged = replace(judged, lists=lists)
            if lists is not None and judged.queries >= LEAST_QUERIES:
                judged = judged.measured(self._row_stats(), present.queries[firsts])
            hubs = hubs and replace(hubs, lists=list_hubs)
        calibration = fit_family(
            judged,
            family,
            hubs=hubs,
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

    def _judged_hubs(self, named: NamedFunnel, present: Judgments) -> JudgedHubs | None:
        """Return the hubs of judged rows, None where there is nothing to correct."""
        store = self._store
        if store.hub is None or named.funnel.narrowest_keep is None:
            return None
        keys = (check_key(key, kind=store.key_kind) for key in present.ids)
        rows = np.array([store.row_of(key) for key in keys], dtype=np.intp)
        return JudgedHubs(store.hub.id, store.hubs[rows].astype(np.float64))

    def _row_stats(self) -> RowStats | None:
        """Measure the rows, or a sample of them."""
        vectors = self._store.codes[self._store.base]
        if len(vectors) > SAMPLE:
            drawn = np.random.default_rng(0).choice(len(vectors), SAMPLE, replace=False)
            vectors = vectors[np.sort(drawn)]
        return RowStats.measure(vectors.astype(np.float32), metric=self.metric)

    def _lists(
        self, named: NamedFunnel, queries: npt.NDArray[np.float32]
    ) -> tuple[Floats | None, Floats | None]:
        """Return the scores of each query's shortlist; None where the funnel keeps too few.

        Where rows have hubs, all of the shortlist with the hubs of its rows: a correction may
        bring any of it to the front.
        """
        store, keep = self._store, named.funnel.narrowest_keep
        depth = shortlists.depth_of(keep)
        if not depth or keep is None:
            return None, None
        everything = np.arange(len(store))
        lasts = [store.descend(query, named.funnel, everything)[-1] for query in queries]
        if store.hub is None:
            return shortlists.best_of([last.scores for last in lasts], depth), None
        return (
            shortlists.whole([last.scores for last in lasts], keep),
            shortlists.whole([store.hubs[last.rows] for last in lasts], keep),
        )

    def _calibration(self, named: NamedFunnel) -> StoredCalibration | None:
        """Return the calibration in force: the newest that the funnel can use."""
        key = (named.model, self.metric, named.funnel.last.resolution)
        keep = named.funnel.narrowest_keep
        there = (None, None if self._store.hub is None else self._store.hub.id)
        known = self._calibrations.get(key, ())[::-1]
        return next((c for c in known if c.serves(keep) and c.hub in there), None)

    def _alpha(self, named: NamedFunnel) -> float:
        """Return how much of the hub of a row is taken off its score."""
        calibration = self._calibration(named)
        return 0.0 if calibration is None else calibration.alpha
