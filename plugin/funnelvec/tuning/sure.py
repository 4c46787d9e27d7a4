"""How sure a recall is: intervals over queries, and how many queries it takes.

The k rows of one query are lost together or kept together, so they are not k trials. The interval
is that of Korn and Graubard (Survey Methodology, 1998): Clopper and Pearson's, on as many trials as
would vary as much as the queries did.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["interval", "queries_needed", "ratio_interval"]

Shares: TypeAlias = npt.NDArray[np.float64]

_TAIL = 0.025
#: How many times the loss that is asked for an interval may reach, where nothing was lost at all.
_REACH = 4.0


def interval(
    shares: Shares, *, looks: int = 0, others: Shares | None = None
) -> tuple[float, float]:
    """Return a 95 % interval for the mean of (n,) shares in [0, 1], one for each query.

    Parameters
    ----------
    looks
        Where lists are lengthened until these very queries are content: how often they were looked
        at. The first look spends half of the 5 %, the next half of what is left, and so on, so that
        all intervals that could have been stated hold together. 0 is a single look that nothing
        hangs on.
    others
        Shares of other queries by the same funnel. A query that finds next to nothing is rare, and
        so few see none; the spread is the larger of theirs and of both together.
    """
    tail = _TAIL / 2**looks
    n, mean = len(shares), float(shares.mean())
    spread = float(shares.var(ddof=1)) if n > 1 else 0.0
    if others is not None and len(others):
        spread = max(spread, float(np.concatenate([shares, others]).var(ddof=1)))
    trials = float(n)
    if spread > 0.0:
        # Never fewer trials than queries: a share in [0, 1] varies at most as one trial does.
        trials = max(trials, n * mean * (1.0 - mean) / spread)
    lost = trials * (1.0 - mean)
    low = 0.0 if mean <= 0.0 else 1.0 - _beta_quantile(1 - tail, lost + 1.0, trials - lost)
    high = 1.0 if mean >= 1.0 else 1.0 - _beta_quantile(tail, lost, trials - lost + 1.0)
    return low, high


def queries_needed(recall: float) -> int:
    """How many queries it takes to check a recall.

    So many that an interval over queries which all found everything reaches no further down than
    four times the loss that `recall` allows: 91 for 0.99, 919 for 0.999.
    """
    lowest = max(0.05, 1.0 - _REACH * (1.0 - min(recall, 0.9999)))
    return max(20, math.ceil(math.log(_TAIL) / math.log(lowest)))


def ratio_interval(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float, float]:
    """Return the ratio of two medians of paired times (n,), with a 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(ours), (500, len(ours)))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[drawn], axis=1)
    low, high = np.quantile(ratios, (_TAIL, 1 - _TAIL))
    return float(np.median(ours) / np.median(theirs)), float(low), float(high)


def _beta_quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _beta_cdf(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1.0 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Its continued fraction, by the method of Lentz."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    found = d
    for m in range(1, 400):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            found *= c * d
        if abs(c * d - 1.0) < 1e-13:
            break
    return found
