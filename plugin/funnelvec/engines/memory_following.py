"""Feedback and drift of a table in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.drift import Drift, drift_of
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.online import OnlinePlatt
from funnelvec.calibration.platt import PlattCalibration
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.engines import checks, options
from funnelvec.engines.asking import check_feedback, check_many
from funnelvec.engines.keys import check_key
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.errors import CalibrationError, CapabilityError, InvalidInput, NotCalibrated

if TYPE_CHECKING:
    from funnelvec.resolution import Resolution
    from funnelvec.types import BaseCode, Judgments, Key, Metric

__all__ = ["MemoryFollowing"]

_LEAST = 20


class MemoryFollowing:
    """The methods of `MemoryTable` that follow what people ask and say."""

    if TYPE_CHECKING:  # what the table has and these methods use
        dims: int
        _store: Store
        _calibrations: dict[tuple[str | None, Metric, Resolution], tuple[StoredCalibration, ...]]
        _online: dict[str, tuple[StoredCalibration, OnlinePlatt]]
        _references: dict[int, npt.NDArray[np.float64]]

        @property
        def code(self) -> BaseCode: ...
        @property
        def metric(self) -> Metric: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _calibration(self, named: NamedFunnel) -> StoredCalibration | None: ...
        def _alpha(self, named: NamedFunnel) -> float: ...

    def feedback(
        self,
        relevant: bool,
        *,
        score: float | None = None,
        query: npt.ArrayLike | None = None,
        id: Key | None = None,
        funnel: str | None = None,
    ) -> OnlinePlatt:
        """Take in what somebody said of one row."""
        named = self._funnel(funnel)
        calibration, state = self._followed(named)
        said = options.check_flag(relevant, "relevant")
        given = check_feedback(score=score, query=query, id=id)
        vector = None
        if query is not None:
            vector = checks.check_query(
                query, dims=self.dims, code=self.code, directed=self._store.directed
            )
        if given is None:
            assert vector is not None  # check_feedback has seen to it
            given = self._score_of(named, vector, id)
        if isinstance(calibration, AdapterCalibration):
            if vector is None:
                raise InvalidInput("the calibration differs by query: give query= too")
            everything = np.arange(len(self._store))
            steps = self._store.descend(vector, named.funnel, everything, alpha=calibration.alpha)
            calibration = calibration.at(vector, steps[-1].scores)
        state = state.update(float(calibration.apply(vector, [given])[0]), said)
        self._online[named.name] = self._followed(named)[0], state
        return state

    def _score_of(self, named: NamedFunnel, vector: npt.NDArray[np.float32], id: Any) -> float:
        row = self._store.row_of(check_key(id, kind=self._store.key_kind))
        if row is None:
            raise InvalidInput(f"the table has no row with the key {id!r:.100}")
        last = named.funnel.last.resolution
        rows = np.array([row], dtype=np.intp)
        raw = self._store.scores(last, vector, rows)
        score = float(self._store.correct(raw, rows, self._alpha(named))[0])
        if np.isnan(score):
            raise InvalidInput(f"the row {id!r:.100} is zero at {last}: no score")
        return score

    def feedback_state(self, *, funnel: str | None = None) -> OnlinePlatt:
        """Return what feedback has come to since the calibration."""
        return self._followed(self._funnel(funnel))[1]

    def _followed(self, named: NamedFunnel) -> tuple[StoredCalibration, OnlinePlatt]:
        calibration = self._calibration(named)
        if calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration; call calibrate(judgments, "
                f"funnel={named.name!r}) first"
            )
        known, state = self._online.get(named.name, (None, OnlinePlatt.unchanged()))
        return calibration, state if known is calibration else OnlinePlatt.unchanged()

    def adopt_feedback(self, *, funnel: str | None = None) -> int:
        """Make the line of the feedback part of the calibration."""
        named = self._funnel(funnel)
        calibration, state = self._followed(named)
        if not isinstance(calibration, PlattCalibration):
            raise CapabilityError(
                f"the calibration is of the family {calibration.kind}, and feedback can be adopted "
                "by platt; calibrate again, with what was said as judgments"
            )
        if state.seen < _LEAST:
            raise CalibrationError(
                f"{named.name} has had feedback {state.seen} times since it was calibrated, and "
                f"{_LEAST} are needed"
            )
        if not state.slope > 0:
            raise CalibrationError(
                "by the feedback a higher score does not mean more relevant: its slope is "
                f"{state.slope}; calibrate again"
            )
        adopted = replace(
            calibration,
            slope=state.slope * calibration.slope,
            offset=state.slope * calibration.offset + state.offset,
        )
        key = (named.model, self.metric, named.funnel.last.resolution)
        self._calibrations[key] = (*self._calibrations[key], adopted)
        self._references[id(adopted)] = self._references.get(id(calibration), np.empty(0))
        return len(self._calibrations[key])

    def check_drift(
        self, queries: npt.ArrayLike | None = None, *, funnel: str | None = None
    ) -> Drift:
        """Compare the best scores of queries with those of the judged ones."""
        named = self._funnel(funnel)
        calibration, _ = self._followed(named)
        if queries is None:
            raise CapabilityError(
                "memory: keeps no query log; pass the queries, or use a postgresql:// URL"
            )
        matrix = check_many(queries, dims=self.dims, code=self.code, directed=self._store.directed)
        live = self._best_scores(named, matrix)
        return drift_of(self._references.get(id(calibration), np.empty(0)), live)

    def _keep_reference(
        self, named: NamedFunnel, calibration: StoredCalibration, judgments: Judgments
    ) -> None:
        """Keep the best scores of up to 200 judged queries with a new calibration."""
        known = judgments.unique_queries[:200]
        self._references[id(calibration)] = self._best_scores(named, known)

    def _best_scores(
        self, named: NamedFunnel, queries: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        store, alpha = self._store, self._alpha(named)
        everything = np.arange(len(store))
        answers = (
            store.descend(query, named.funnel, everything, alpha=alpha)[-1] for query in queries
        )
        return np.array([float(last.scores[0]) for last in answers if len(last.scores)])
