"""The part of the `Table` protocol that makes promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from funnelvec.calibration.certificate import Certificate
    from funnelvec.judging import Unjudged
    from funnelvec.types import Judgments

__all__ = ["Certifying"]


class Certifying(Protocol):
    """What a table promises of its cutoffs."""

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float | None = None,
        min_precision: float | None = None,
        confidence: float = 0.95,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
    ) -> Certificate:
        """Find a cutoff and promise something of it; with neither level, ``max_miss=0.05``.

        ``max_miss``: on average over new queries that come from where the judged ones came, the
        stages of the funnel and the cutoff together lose at most so much of a query's relevant
        rows among the exact top `k`; searched with ``cutoff="certified"``. ``min_precision``: on
        average at least so much of what is shown is relevant, which holds with `confidence` over
        the choice of the judged queries; searched with ``cutoff="precise"``. A funnel keeps one
        certificate of each; they are void when the funnel or its calibration changes.

        Parameters
        ----------
        judgments
            Of whole queries: at least ``1 / max_miss - 1`` of them, or
            ``log(1 - confidence) / log(min_precision)``. With the judgments that the calibration
            was fitted to, a certificate of ``min_precision`` is approximate, and says so; so is
            one of ``max_miss`` by an adapter or with a hub column.
        k
            Default: 100, or as many rows as reach the last stage if those are fewer.
        unjudged
            What rows are that are shown and nobody judged, for ``min_precision``: ``irrelevant``
            is on the safe side, ``ignored`` takes them to be as the judged ones are. Of what is
            missed, only rows that were judged relevant count.

        Raises
        ------
        NotCalibrated
            If the funnel has no calibration.
        CalibrationError
            If there are too few queries, or it cannot be promised; the message says how many are
            needed, or what can be.
        """
