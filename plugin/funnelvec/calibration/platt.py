"""Platt calibration: one logistic curve over the score, the same for every query.

J. C. Platt, "Probabilistic outputs for support vector machines and comparisons to regularized
likelihood methods" (1999); the smoothed targets are its section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import MAX_LOGIT, sigmoid
from funnelvec.calibration.stored import StoredCalibration, log_odds, provenance_of
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.types import Judgments, Metric

__all__ = [
    "Line",
    "PlattCalibration",
    "check_counts",
    "check_line",
    "fit_platt",
    "smoothed_targets",
]

MIN_RELEVANT = 10
MIN_IRRELEVANT = 10
MIN_QUERIES = 5

_MAX_STEPS = 100
_TOLERANCE = 1e-12


class Line(NamedTuple):
    """The log-odds of relevance as a line over the score."""

    slope: float
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlattCalibration(StoredCalibration):
    """Relevance = 1 / (1 + exp(-(slope * score + offset))), with the logit held in [-700, 700].

    Attributes
    ----------
    slope, offset
        The fitted line; the slope is positive.

    Raises
    ------
    CalibrationError
        If a number is not finite or the slope is not positive.
    """

    kind: ClassVar[str] = "platt"

    slope: float
    offset: float

    def __post_init__(self) -> None:
        check_line(self.slope, self.offset)

    @classmethod
    def fit(
        cls,
        judgments: Judgments,
        scores: npt.ArrayLike,
        *,
        model: str | None,
        vector: str,
        metric: Metric,
        last_stage: str,
    ) -> PlattCalibration:
        """Fit the curve to judged pairs and their scores at the last stage.

        Parameters
        ----------
        judgments
            n judged pairs with at least 5 different queries.
        scores
            (n,) scores of the pairs.

        Raises
        ------
        CalibrationError
            If there are fewer than 10 relevant pairs, 10 others or 5 queries, all scores are the
            same, or relevance does not rise with the score.
        """
        line = fit_platt(scores, judgments.labels, n_queries=judgments.distinct_queries)
        known = provenance_of(
            judgments, model=model, vector=vector, metric=metric, last_stage=last_stage
        )
        return cls(slope=line.slope, offset=line.offset, **known)

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score; the query plays no part."""
        return sigmoid(self.slope * np.asarray(scores, dtype=np.float64) + self.offset)

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Return the score whose relevance is `relevance`; -inf at 0 and below, +inf from 1."""
        return (log_odds(relevance) - self.offset) / self.slope


def check_line(slope: float, offset: float) -> None:
    """Refuse a line that is none, or that does not rise.

    Raises
    ------
    CalibrationError
        If a number is not finite or the slope is not positive.
    """
    if not (math.isfinite(slope) and math.isfinite(offset)):
        raise CalibrationError(f"slope and offset must be finite, not {slope!r} and {offset!r}")
    if slope <= 0:
        raise CalibrationError(
            f"the slope is {slope:.6g}: relevance must rise with the score; check that "
            "the labels are not swapped and that queries and rows come from one model"
        )


def fit_platt(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, n_queries: int | None = None
) -> Line:
    """Fit log-odds of relevance as a line over the score, by Newton's method.

    Targets are ``(N+ + 1) / (N+ + 2)`` for the N+ relevant pairs and ``1 / (N- + 2)`` for the
    others, which keeps the fit finite when the two do not overlap.

    Parameters
    ----------
    scores
        (n,) finite.
    labels
        (n,) bool.
    n_queries
        How many different queries the pairs come from, if it is to be checked.

    Raises
    ------
    CalibrationError
        If there are too few pairs or queries, all scores are equal, or the slope is not positive.
    """
    s = np.asarray(scores, dtype=np.float64)
    relevant = np.asarray(labels, dtype=np.bool_)
    if s.ndim != 1 or s.shape != relevant.shape or not np.isfinite(s).all():
        raise InvalidInput(
            f"scores and labels must be two arrays of one length, all scores finite; got shapes "
            f"{s.shape} and {relevant.shape}"
        )
    n_relevant = int(relevant.sum())
    check_counts(n_relevant, s.size - n_relevant, n_queries)
    mean, deviation = float(s.mean()), float(s.std())
    # The mean of equal numbers need not equal them, so their deviation may be a rounding error.
    if (s == s[0]).all() or deviation == 0.0:
        raise CalibrationError(
            f"all {s.size} judged pairs have the score {s[0]:.6g}; nothing can be learned from them"
        )
    a, b = _newton((s - mean) / deviation, relevant)
    slope = a / deviation
    if slope <= 0:
        raise CalibrationError(
            f"the fitted slope is {slope:.6g}: relevant pairs do not score higher than the others; "
            "check that the labels are not swapped and that queries and rows come from one model"
        )
    return Line(slope=slope, offset=b - slope * mean)


def check_counts(n_relevant: int, n_irrelevant: int, n_queries: int | None) -> None:
    """Refuse judgments that are too few for any family.

    Raises
    ------
    CalibrationError
        If there are fewer than 10 relevant pairs, 10 others or 5 queries.
    """
    for count, needed, what in (
        (n_relevant, MIN_RELEVANT, "relevant pairs"),
        (n_irrelevant, MIN_IRRELEVANT, "pairs that are not relevant"),
        (n_queries, MIN_QUERIES, "different queries"),
    ):
        if count is not None and count < needed:
            raise CalibrationError(
                f"a calibration needs at least {needed} {what}; the judgments have {count}"
            )


def smoothed_targets(relevant: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return what Platt's fit aims at: a little less than 1, and a little more than 0."""
    n_relevant = int(relevant.sum())
    n_irrelevant = relevant.size - n_relevant
    return np.where(relevant, (n_relevant + 1) / (n_relevant + 2), 1 / (n_irrelevant + 2))


def _newton(z: npt.NDArray[np.float64], relevant: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Minimise the cross-entropy of sigmoid(a * z + b) against the smoothed targets."""
    n_relevant = int(relevant.sum())
    n_irrelevant = relevant.size - n_relevant
    targets = smoothed_targets(relevant)
    a, b = 0.0, math.log((n_relevant + 1) / (n_irrelevant + 1))
    loss = _loss(a * z + b, targets)
    for _ in range(_MAX_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(a * z + b, -MAX_LOGIT, MAX_LOGIT)))
        weight = p * (1.0 - p)
        gradient_a, gradient_b = float(((p - targets) * z).sum()), float((p - targets).sum())
        h_aa = float((weight * z * z).sum())
        h_ab, h_bb = float((weight * z).sum()), float(weight.sum())
        determinant = h_aa * h_bb - h_ab * h_ab
        if determinant <= 0.0:
            break
        step_a = (h_bb * gradient_a - h_ab * gradient_b) / determinant
        step_b = (h_aa * gradient_b - h_ab * gradient_a) / determinant
        # Newton overshoots far from the minimum; the loss is convex, so halving always helps.
        # Near the minimum the loss no longer resolves a step, hence the slack.
        size = 1.0
        while True:
            next_a, next_b = a - size * step_a, b - size * step_b
            next_loss = _loss(next_a * z + next_b, targets)
            if next_loss <= loss + 1e-12 * abs(loss) or size < 1e-10:
                break
            size /= 2.0
        a, b, loss = next_a, next_b, next_loss
        if max(abs(size * step_a), abs(size * step_b)) < _TOLERANCE:
            return a, b
    raise CalibrationError(
        f"the fit did not settle within {_MAX_STEPS} steps; the scores of relevant and other pairs "
        "may be separated by a few extreme values"
    )


def _loss(logits: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> float:
    # log(1 + exp(x)) - t * x, written so that nothing overflows
    return float((np.logaddexp(0.0, logits) - targets * logits).sum())
