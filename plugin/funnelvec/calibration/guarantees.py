"""Guarantees over queries: a bound on what is missed on average, or on what is shown in vain.

Both take losses per query, never per pair: pairs of one query are not independent.

`conformal_threshold`: conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR
2024). `learn_then_test`: Angelopoulos, Bates, Candes, Jordan and Lei, 2021, with the p-values of
Hoeffding and Bentkus and fixed-sequence testing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.metrics import Labels
from funnelvec.errors import CalibrationError, InvalidInput

__all__ = [
    "Promise",
    "conformal_threshold",
    "hoeffding_bentkus",
    "learn_then_test",
    "queries_needed",
    "threshold_grid",
]


@dataclass(frozen=True, slots=True)
class Promise:
    """A threshold and what it promises.

    Attributes
    ----------
    threshold
        Rows whose value is at least this are kept; -inf keeps all.
    level
        What the risk is bounded by.
    observed
        The mean loss of the judged queries at this threshold.
    n_queries
        How many they are.
    """

    threshold: float
    level: float
    observed: float
    n_queries: int


def queries_needed(level: float) -> int:
    """How many judged queries a bound on the expected loss needs: 1 / level - 1, rounded up."""
    if not 0.0 < level < 1.0:
        raise InvalidInput(f"the level is {level!r}; give a share between 0 and 1, such as 0.05")
    return math.ceil(1.0 / level - 1.0 - 1e-9)


def conformal_threshold(values: Floats, labels: Labels, *, max_miss: float) -> Promise:
    """Find the highest threshold that loses at most `max_miss` of the relevant rows of a query.

    The expected share over new queries that come from where the judged ones came is at most
    `max_miss`: the mean loss of n judged queries is held to ``max_miss - (1 - max_miss) / n``. A
    query without relevant rows has loss 0.

    Parameters
    ----------
    values
        (n, K) what the threshold is on, of queries that had no part in fitting the values.
    labels
        (n, K) bool.

    Raises
    ------
    CalibrationError
        If there are fewer queries than `queries_needed`; the message says how many that is, and
        which level these queries could carry.
    """
    n = len(values)
    needed = queries_needed(max_miss)
    if n < needed:
        raise CalibrationError(
            f"max_miss={max_miss:g} needs at least {needed} judged queries and there are {n}; "
            f"judge {needed - n} more, or ask for max_miss={1.0 / (n + 1):.3g} or more"
        )
    weights = labels / np.maximum(labels.sum(axis=1), 1)[:, None]
    order = np.argsort(values, axis=None, kind="stable")
    ordered, lost = values.ravel()[order], np.cumsum(weights.ravel()[order])
    budget = max_miss * (n + 1) - 1.0 + 1e-9
    # A threshold at ordered[i] loses what lies strictly below it; equal values stay together.
    first = np.searchsorted(ordered, ordered, side="left")
    below = np.where(first > 0, lost[np.maximum(first - 1, 0)], 0.0)
    place = int(np.flatnonzero(below <= budget)[-1])
    threshold = float(ordered[place]) if below[place] > 0.0 or place > 0 else -math.inf
    return Promise(
        threshold=threshold, level=max_miss, observed=float(below[place]) / n, n_queries=n
    )


def hoeffding_bentkus(mean_loss: float, level: float, n: int) -> float:
    """p-value of "the risk is above `level`" for n losses in [0, 1] with this mean."""
    low = min(mean_loss, level)
    divergence = 0.0
    if low > 0.0:
        divergence += low * math.log(low / level)
    if low < 1.0:
        divergence += (1.0 - low) * math.log((1.0 - low) / (1.0 - level))
    hoeffding = math.exp(-n * divergence)
    bentkus = math.e * _binomial_cdf(math.ceil(n * mean_loss - 1e-9), n, level)
    return min(hoeffding, bentkus, 1.0)


def _binomial_cdf(k: int, n: int, p: float) -> float:
    if k >= n:
        return 1.0
    term, odds, total = n * math.log1p(-p), math.log(p) - math.log1p(-p), 0.0
    for i in range(k + 1):
        total += math.exp(term)
        term += math.log((n - i) / (i + 1)) + odds
    return total


def learn_then_test(
    values: Floats,
    labels: Labels,
    *,
    min_precision: float,
    thresholds: Floats,
    delta: float = 0.1,
) -> Promise:
    """Find the lowest threshold at which what is shown is relevant enough, with confidence.

    The loss of a query is the share of rows shown to it that are not relevant, 0 where none is
    shown. With probability `1 - delta` over the judged queries, its mean over new ones is at most
    ``1 - min_precision``. Thresholds are tested from the strictest on, and the first that fails
    ends it: that fixed sequence is what the confidence rests on.

    Parameters
    ----------
    values, labels
        As for `conformal_threshold`.
    thresholds
        (m,) to test, chosen without these queries; `threshold_grid` of the fitted ones will do.

    Raises
    ------
    CalibrationError
        If not even the strictest threshold can be promised; the message says what can.
    """
    if not 0.0 < min_precision < 1.0 or not 0.0 < delta < 1.0:
        raise InvalidInput(
            f"min_precision is {min_precision!r} and delta {delta!r}; both are between 0 and 1"
        )
    n, level = len(values), 1.0 - min_precision
    passed: Promise | None = None
    failed = 0.0
    for threshold in np.sort(thresholds)[::-1]:
        kept = values >= threshold
        shown = kept.sum(axis=1)
        failed = float(((kept & ~labels).sum(axis=1) / np.maximum(shown, 1)).mean())
        if hoeffding_bentkus(failed, level, n) > delta:
            break
        if shown.any():
            passed = Promise(threshold=float(threshold), level=level, observed=failed, n_queries=n)
    if passed is None:
        can = 1.0 - _reachable(failed, n, delta)
        raise CalibrationError(
            f"min_precision={min_precision:g} cannot be promised with {n} judged queries and "
            f"confidence {1 - delta:g}: already at the strictest threshold the share of rows that "
            f"are not relevant is {failed:.3g}; these judgments can carry min_precision={can:.2g}"
        )
    return passed


def threshold_grid(values: Floats, *, steps: int = 200) -> Floats:
    """Thresholds for `learn_then_test`, from the values of the queries that were fitted to.

    The strictest keeps one pair in five hundred, so that it is tested on more than chance.
    """
    result: Floats = np.unique(np.quantile(values, 1.0 - np.geomspace(0.002, 1.0, steps)))
    return result


def _reachable(risk: float, n: int, delta: float) -> float:
    """The least level that a mean loss can be promised at."""
    low, high = risk, 1.0 - 1e-9
    if hoeffding_bentkus(risk, high, n) > delta:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if hoeffding_bentkus(risk, max(middle, 1e-9), n) > delta:
            low = middle
        else:
            high = middle
    return high
