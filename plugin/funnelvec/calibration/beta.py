"""Beta calibration: a last correction of probabilities, with three numbers and no plateau.

M. Kull, T. Silva Filho and P. Flach, "Beta calibration: a well-founded and easily implemented
improvement on logistic calibration for binary classifiers" (AISTATS 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import MAX_LOGIT, Floats, fit_flat, sigmoid
from funnelvec.calibration.platt import Line, check_line, fit_platt, smoothed_targets
from funnelvec.calibration.stored import StoredCalibration, log_odds
from funnelvec.errors import CalibrationError

__all__ = ["BetaCalibration", "BetaMap", "fit_beta", "fit_beta_curve"]

_ENOUGH = 100_000


@dataclass(frozen=True, slots=True)
class BetaMap:
    """From log-odds to log-odds: ``a * ln(p) - b * ln(1 - p) + c`` with ``p = sigmoid(z)``.

    Attributes
    ----------
    a, b
        Not negative, and not both 0, so that the map rises.
    c
        Finite.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.a, self.b, self.c)):
            raise CalibrationError(f"a beta map has finite numbers, not {self!r}")
        if min(self.a, self.b) < 0 or self.a + self.b <= 0:
            raise CalibrationError(
                f"a = {self.a:.6g} and b = {self.b:.6g} of a beta map must be 0 or more, and not "
                "both 0: relevance must rise with the score"
            )

    def apply(self, logits: Floats) -> Floats:
        """Return the corrected log-odds, same shape."""
        result: Floats = (
            self.b * np.logaddexp(0.0, logits) - self.a * np.logaddexp(0.0, -logits) + self.c
        )
        return result

    def invert(self, logit: float) -> float:
        """Return the log-odds that the map takes to `logit`; infinite where it reaches none."""
        low, high = -1.0, 1.0
        while float(self.apply(np.array(low))) > logit:
            low *= 2.0
            if low < -1e15:
                return -math.inf
        while float(self.apply(np.array(high))) < logit:
            high *= 2.0
            if high > 1e15:
                return math.inf
        for _ in range(200):
            middle = (low + high) / 2.0
            if float(self.apply(np.array(middle))) < logit:
                low = middle
            else:
                high = middle
        return high


def fit_beta(
    logits: Floats,
    labels: npt.NDArray[np.bool_],
    *,
    targets: Floats | None = None,
    seed: int = 0,
) -> BetaMap:
    """Fit the map by log loss; without a coefficient that comes out negative, if one does.

    Parameters
    ----------
    logits
        Any shape; of queries that had no part in fitting them. Of more than 100,000 pairs as many
        are drawn.
    labels
        Same shape, bool.
    targets
        Same shape: what the fit aims at in place of 1 and 0, such as Platt's smoothed targets.
    """
    flat, truth = logits.ravel(), labels.ravel()
    aims = truth.astype(np.float64) if targets is None else targets.ravel()
    if flat.size > _ENOUGH:
        drawn = np.random.default_rng(seed).permutation(flat.size)[:_ENOUGH]
        flat, truth, aims = flat[drawn], truth[drawn], aims[drawn]
    if truth.all() or not truth.any():
        raise CalibrationError("all pairs have the same label; nothing can be learned from them")
    columns = np.stack(
        [-np.logaddexp(0.0, -flat), np.logaddexp(0.0, flat), np.ones(flat.size)], axis=1
    )

    def fit(*used: int) -> Floats:
        fitted = np.zeros(3)
        fitted[[*used]] = fit_flat(columns[:, used], aims, penalty=np.full(len(used), 1e-6))
        return fitted

    fitted = fit(0, 1, 2)
    # The loss is convex: where the free minimum has a negative coefficient, the least loss with
    # none negative is found without that one.
    if fitted[0] < 0 <= fitted[1]:
        fitted = fit(1, 2)
    elif fitted[1] < 0 <= fitted[0]:
        fitted = fit(0, 2)
    if min(fitted[:2]) < 0 or fitted[:2].sum() <= 0:
        raise CalibrationError(
            "relevant pairs do not have higher log-odds than the others; check that the labels are "
            "not swapped"
        )
    return BetaMap(*map(float, fitted))


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaCalibration(StoredCalibration):
    """A Platt curve with a beta map behind it, the same for every query.

    Attributes
    ----------
    slope, offset
        The line over the score, held in [-700, 700]; the slope is positive.
    a, b, c
        Of the `BetaMap` from the line to the log-odds of relevance.
    """

    kind: ClassVar[str] = "beta"

    slope: float
    offset: float
    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        check_line(self.slope, self.offset)
        _ = self._map

    @property
    def _map(self) -> BetaMap:
        return BetaMap(self.a, self.b, self.c)

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score; the query plays no part."""
        line = self.slope * np.asarray(scores, dtype=np.float64) + self.offset
        return sigmoid(self._map.apply(np.clip(line, -MAX_LOGIT, MAX_LOGIT)))

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Return the score whose relevance is `relevance`; -inf at 0 and below, +inf from 1."""
        wanted = log_odds(relevance)
        line = self._map.invert(wanted) if math.isfinite(wanted) else wanted
        return (line - self.offset) / self.slope


def fit_beta_curve(scores: npt.ArrayLike, labels: npt.NDArray[np.bool_]) -> tuple[Line, BetaMap]:
    """Fit a Platt curve and a beta map behind it to the same pairs.

    Both aim at Platt's smoothed targets, so that the map is finite where nothing overlaps; with
    the coefficients 1, 1, 0 it is the Platt curve itself.

    Parameters
    ----------
    scores
        (n,) finite.
    labels
        (n,) bool.
    """
    line = fit_platt(scores, labels)
    logits = line.slope * np.asarray(scores, dtype=np.float64) + line.offset
    return line, fit_beta(logits, labels, targets=smoothed_targets(labels))
