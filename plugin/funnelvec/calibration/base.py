"""The contract of a calibration: a fitted map from (query, score) to relevance.

Fitting and applying are kept apart: a fitted map is an immutable value that prints as JSON and
reads back, and that the database applies with the same numbers.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Calibration"]


@runtime_checkable
class Calibration(Protocol):
    """A map from score to relevance; for a fixed query it never falls as the score rises."""

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score, same shape, float64 in [0, 1].

        `query` is the (d,) query vector; maps that do not depend on it ignore it. A map that
        depends on the shortlist takes the scores for it.
        """

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Return the score that reaches `relevance` for this query.

        -inf for a relevance of 0 or less, +inf for 1 or more.
        """

    def at(self, query: npt.NDArray[np.float32] | None, shortlist: npt.ArrayLike) -> Calibration:
        """Return the map of one query, given the scores of the rows that reached the last stage.

        Families that have one map for all queries return themselves.
        """

    def to_json(self) -> str:
        """Write the fitted map; `read_calibration` reads it back."""
