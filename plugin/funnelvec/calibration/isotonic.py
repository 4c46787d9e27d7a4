"""Isotonic calibration: as many steps as the judgments ask for, and never a fall.

Pooled adjacent violators (Ayer et al., 1955; for calibration Zadrozny and Elkan, KDD 2002), with
Platt's smoothed targets, so that no relevance is exactly 0 or 1. Between two steps relevance rises
in a line. It has plateaus, which is why nothing is ever ordered by it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.stored import StoredCalibration, log_odds
from funnelvec.errors import CalibrationError

__all__ = ["IsotonicCalibration", "Steps", "fit_isotonic"]


class Steps(NamedTuple):
    """Blocks of scores: from where to where each goes, and its relevance, all rising."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    relevance: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IsotonicCalibration(StoredCalibration):
    """Relevance by steps, the same for every query; below the first and above the last it stays.

    Attributes
    ----------
    low, high
        Where the steps begin and end: ``low[i] <= high[i] < low[i + 1]``.
    levels
        Relevance of the steps, rising, in (0, 1).

    Raises
    ------
    CalibrationError
        If they are not so.
    """

    kind: ClassVar[str] = "isotonic"

    low: tuple[float, ...]
    high: tuple[float, ...]
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.levels) > 0:
            raise CalibrationError("an isotonic map has a low and a high end for each of its steps")
        ends = [each for step in zip(self.low, self.high, strict=True) for each in step]
        if (
            not all(map(math.isfinite, ends))
            or any(low > high for low, high in zip(self.low, self.high, strict=True))
            or any(high >= low for high, low in zip(self.high, self.low[1:], strict=False))
            or any(one >= two for one, two in pairwise(self.levels))
            or not 0 < self.levels[0] <= self.levels[-1] < 1
        ):
            raise CalibrationError(
                "the steps of an isotonic map must rise, with a relevance between 0 and 1"
            )

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score; the query plays no part."""
        ends = np.array([self.low, self.high]).T.ravel()
        given = np.asarray(scores, dtype=np.float64)
        relevance: npt.NDArray[np.float64] = np.interp(given, ends, np.repeat(self.levels, 2))
        return relevance

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Return the least score whose relevance is `relevance`.

        -inf where every score has it, +inf where none does.
        """
        if not math.isfinite(log_odds(relevance)):
            return log_odds(relevance)
        step = bisect_right(self.levels, relevance) - 1
        if step < 0 or (step == 0 and self.levels[0] == relevance):
            return -math.inf
        if self.levels[step] == relevance:
            return self.low[step]
        if step == len(self.levels) - 1:
            return math.inf
        share = (relevance - self.levels[step]) / (self.levels[step + 1] - self.levels[step])
        return self.high[step] + share * (self.low[step + 1] - self.high[step])


def fit_isotonic(scores: npt.ArrayLike, labels: npt.NDArray[np.bool_]) -> Steps:
    """Pool neighbours until relevance rises from block to block.

    Parameters
    ----------
    scores
        (n,) finite; pairs of one score are one block from the beginning.
    labels
        (n,) bool.

    Raises
    ------
    CalibrationError
        If a single block is left: relevance does not rise with the score.
    """
    given = np.asarray(scores, dtype=np.float64)
    distinct, of = np.unique(given, return_inverse=True)
    counts = np.bincount(of)
    relevant = np.bincount(of, weights=labels).astype(np.int64)
    # Whole numbers, so that two ways to the same share compare as equal.
    blocks: list[tuple[int, int, int, int]] = []  # first, last, pairs, relevant
    for place, (pairs, hits) in enumerate(zip(counts.tolist(), relevant.tolist(), strict=True)):
        first = last = place
        while blocks and blocks[-1][3] * pairs >= hits * blocks[-1][2]:
            first, _, more_pairs, more_hits = blocks.pop()
            pairs, hits = pairs + more_pairs, hits + more_hits
        blocks.append((first, last, pairs, hits))
    if len(blocks) < 2:
        raise CalibrationError(
            "relevant pairs do not score higher than the others; check that the labels are not "
            "swapped and that queries and rows come from one model"
        )
    n_relevant = int(relevant.sum())
    most, least = (n_relevant + 1) / (n_relevant + 2), 1 / (len(given) - n_relevant + 2)
    return Steps(
        tuple(float(distinct[first]) for first, _, _, _ in blocks),
        tuple(float(distinct[last]) for _, last, _, _ in blocks),
        tuple(least + (most - least) * (hits / pairs) for _, _, pairs, hits in blocks),
    )
