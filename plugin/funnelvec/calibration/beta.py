"""Beta calibration: a last correction of probabilities, with three numbers and no plateau.

M. Kull, T. Silva Filho and P. Flach, "Beta calibration: a well-founded and easily implemented
improvement on logistic calibration for binary classifiers" (AISTATS 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats, fit_flat
from funnelvec.errors import CalibrationError

__all__ = ["BetaMap", "fit_beta"]

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


def fit_beta(logits: Floats, labels: npt.NDArray[np.bool_], *, seed: int = 0) -> BetaMap:
    """Fit the map by log loss; a coefficient that comes out negative is dropped and the rest refit.

    Parameters
    ----------
    logits
        Any shape; of queries that had no part in fitting them. Of more than 100,000 pairs as many
        are drawn.
    labels
        Same shape, bool.
    """
    flat, truth = logits.ravel(), labels.ravel()
    if flat.size > _ENOUGH:
        drawn = np.random.default_rng(seed).permutation(flat.size)[:_ENOUGH]
        flat, truth = flat[drawn], truth[drawn]
    if truth.all() or not truth.any():
        raise CalibrationError("all pairs have the same label; nothing can be learned from them")
    columns = np.stack(
        [-np.logaddexp(0.0, -flat), np.logaddexp(0.0, flat), np.ones(flat.size)], axis=1
    )
    for used in ((0, 1, 2), (0, 2), (1, 2)):
        fitted = np.zeros(3)
        fitted[[*used]] = fit_flat(columns[:, used], truth, penalty=np.full(len(used), 1e-6))
        if min(fitted[:2]) >= 0 and fitted[:2].sum() > 0:
            return BetaMap(*map(float, fitted))
    raise CalibrationError(
        "relevant pairs do not have higher log-odds than the others; check that the labels are "
        "not swapped"
    )
