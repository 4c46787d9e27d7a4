"""The part of the `Table` protocol that follows what people ask and say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy.typing as npt

if TYPE_CHECKING:
    from funnelvec.calibration.drift import Drift
    from funnelvec.calibration.online import OnlinePlatt
    from funnelvec.types import Key

__all__ = ["Following"]


class Following(Protocol):
    """Feedback, answer by answer, and whether a calibration still is about what people ask."""

    def feedback(
        self,
        relevant: bool,
        *,
        score: float | None = None,
        query: npt.ArrayLike | None = None,
        id: Key | None = None,
        funnel: str | None = None,
    ) -> OnlinePlatt:
        """Take in what somebody said of one row, and return what feedback has come to.

        One online Newton step of a line over the log-odds of the relevance, with running means in
        ten bins (Gupta and Ramdas, ICML 2023). Searches do not use it until `adopt_feedback`.
        It begins anew with another calibration.

        Parameters
        ----------
        score
            The score that the row came with.
        query, id
            Or the query and the key of the row. An adapter needs the query in any case.

        Raises
        ------
        InvalidInput
            If it is not said which row it was, or the table has no such row.
        NotCalibrated
            If the funnel has no calibration.
        """

    def feedback_state(self, *, funnel: str | None = None) -> OnlinePlatt:
        """Return what feedback has come to since the calibration."""

    def adopt_feedback(self, *, funnel: str | None = None) -> int:
        """Make the line of the feedback part of the calibration, and return its new version.

        Searches use it from now on; certificates are void, as after any other calibration.

        Raises
        ------
        CalibrationError
            If there were fewer than 20 answers, or by them a higher score does not mean more
            relevant.
        CapabilityError
            If the calibration is not of the family ``platt``.
        """

    def check_drift(
        self, queries: npt.ArrayLike | None = None, *, funnel: str | None = None
    ) -> Drift:
        """Compare the best scores of live queries with those of the judged ones.

        Parameters
        ----------
        queries
            (n, dims) float32; None takes the query log, as `status` does: up to 1,000 queries since
            the calibration, of those that were asked without a filter or cutoff.

        Raises
        ------
        NotCalibrated
            If the funnel has no calibration.
        CapabilityError
            If no queries are given and the engine keeps no log.
        """
