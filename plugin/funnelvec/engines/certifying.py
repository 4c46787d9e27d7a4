"""The part of the `Table` protocol that makes promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from funnelvec.calibration.certificate import Certificate
    from funnelvec.types import Judgments

__all__ = ["Certifying"]


class Certifying(Protocol):
    """What a table promises of its cutoffs."""

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float = 0.05,
        k: int | None = None,
        funnel: str | None = None,
    ) -> Certificate:
        """Find the cutoff that loses at most a share of the relevant rows, and promise it.

        On average over new queries that come from where the judged ones came, the stages of the
        funnel and the cutoff together lose at most `max_miss` of a query's relevant rows among the
        exact top `k`. Rows that nobody judged count as not relevant. Void when the funnel or its
        calibration changes.

        Parameters
        ----------
        judgments
            Of whole queries: at least ``1 / max_miss - 1`` of them.
        k
            Default: 100, or as many rows as reach the last stage if those are fewer.

        Raises
        ------
        NotCalibrated
            If the funnel has no calibration.
        CalibrationError
            If there are too few queries, or the stages alone lose too much; the message says how
            many are needed, or what can be promised.
        """
