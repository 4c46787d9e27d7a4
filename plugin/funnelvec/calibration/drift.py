"""Whether people still ask what they asked when a calibration was fitted.

The best score of each live query is compared with those of the judged queries, by the test of
Kolmogorov and Smirnov with the asymptotic probability (Stephens 1970). What SQL does in
``funnelvec.check_drift``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats
from funnelvec.errors import InvalidInput

__all__ = ["Compared", "Drift", "compare_scores", "drift_of"]

#: How many judged and live queries it takes to say anything, and what counts as drift.
LEAST_JUDGED, LEAST_LIVE = 20, 50
CHANCE, SMALL = 0.001, 0.15


class Compared(NamedTuple):
    """The largest distance of two distributions, and how likely one as large is by chance."""

    distance: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How live queries score beside the judged ones.

    Attributes
    ----------
    reference_queries, live_queries
        How many queries were compared.
    distance
        The largest difference of the shares of queries below a score; None without queries.
    p_value
        The probability of one as large by chance.
    reference_median, live_median
        Of the best scores.
    stale
        Whether the difference is neither chance (p below 0.001) nor small (below 0.15); None where
        there are too few queries to say.
    advice
        What to do, or why nothing can be said; None where all is well.
    """

    reference_queries: int
    live_queries: int
    distance: float | None
    p_value: float | None
    reference_median: float | None
    live_median: float | None
    stale: bool | None
    advice: str | None


def compare_scores(reference: npt.ArrayLike, live: npt.ArrayLike) -> Compared:
    """Compare two samples of scores, neither empty."""
    first, second = np.sort(_finite(reference)), np.sort(_finite(live))
    at = np.concatenate([first, second])
    here = np.searchsorted(first, at, side="right") / len(first)
    there = np.searchsorted(second, at, side="right") / len(second)
    distance = float(np.abs(here - there).max())
    n = len(first) * len(second) / (len(first) + len(second))
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    # Below this the series does not settle, and the probability is 1 to ten digits.
    if scaled < 0.2:
        return Compared(distance, 1.0)
    j = np.arange(1, 101)
    signs = np.where(j % 2 == 1, 1.0, -1.0)
    total = 2.0 * float((signs * np.exp(-np.minimum(700.0, 2.0 * (j * scaled) ** 2))).sum())
    return Compared(distance, min(1.0, max(0.0, total)))


def drift_of(reference: npt.ArrayLike, live: npt.ArrayLike) -> Drift:
    """Say whether live queries have left what was judged.

    Parameters
    ----------
    reference, live
        (m,) and (n,) the best score of each query.
    """
    first, second = _finite(reference), _finite(live)
    found = compare_scores(first, second) if len(first) and len(second) else None
    medians = [float(np.median(part)) if len(part) else None for part in (first, second)]
    enough = len(first) >= LEAST_JUDGED and len(second) >= LEAST_LIVE
    stale, advice = None, None
    if not enough:
        advice = (
            f"too few queries to compare: {len(first)} judged ({LEAST_JUDGED} are needed), "
            f"{len(second)} live ({LEAST_LIVE} are needed)"
        )
    elif found is not None:
        stale = found.p_value < CHANCE and found.distance >= SMALL
    if stale:
        advice = (
            f"stale: the best score of live queries (median {medians[1]:.4f} of {len(second)}) is "
            f"not that of the judged ones (median {medians[0]:.4f} of {len(first)}): judge some of "
            "them, and calibrate and certify again"
        )
    return Drift(
        reference_queries=len(first),
        live_queries=len(second),
        distance=None if found is None else found.distance,
        p_value=None if found is None else found.p_value,
        reference_median=medians[0],
        live_median=medians[1],
        stale=stale,
        advice=advice,
    )


def _finite(scores: npt.ArrayLike) -> Floats:
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise InvalidInput(f"scores must be a list of finite numbers, not of shape {found.shape}")
    return found
