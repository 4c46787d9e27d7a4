"""The part of the `Table` protocol that fits relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from funnelvec.calibration.base import Calibration
    from funnelvec.types import Family, Judgments

__all__ = ["Calibrating"]


class Calibrating(Protocol):
    """How a table comes to relevance."""

    def calibrate(
        self, judgments: Judgments, *, family: Family = "platt", funnel: str | None = None
    ) -> Calibration:
        """Fit relevance to judged pairs and use it from now on.

        The fit belongs to (model, column, metric, last stage): it serves every funnel that ends
        the same way. An adapter also needs its shortlist: it serves those that keep as many rows
        before the last stage as it looks at.

        Parameters
        ----------
        family
            "platt", "beta" and "isotonic" are one map for all queries; "adapter" has a line for
            each, read off the scores of its shortlist. "auto" takes the best by cross-validation
            over queries, and plain Platt where none beats it clearly; so does "adapter".

        Raises
        ------
        CalibrationError
            If the judgments are too few, or scores do not rise with relevance. Judged rows that
            the table does not have (any more) are left out.
        """
