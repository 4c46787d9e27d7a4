"""A promise about what is shown: the lowest relevance from which on enough of it is relevant.

Learn then test (Angelopoulos, Bates, Candes, Jordan and Lei, 2021) over 199 thresholds on the
relevance that are fixed before any judgment is seen. What SQL does in ``_precise_threshold``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.guarantees import hoeffding_bentkus
from funnelvec.calibration.logistic import Floats
from funnelvec.errors import CalibrationError

__all__ = ["Precise", "Shown", "precise_threshold", "precision_losses", "queries_for_precision"]

#: From the strictest on.
_THRESHOLDS = np.arange(199, 0, -1) / 200.0


class Shown(NamedTuple):
    """What one query is shown: (m,) relevances, and labels that are 1, 0, or -1 for unjudged."""

    relevances: Floats
    labels: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Precise:
    """A threshold on the relevance that can be promised, and what the judged queries lose by it.

    `losses` has the share of the rows shown that is not relevant, for each query; `answered` is
    the share of queries that are shown a row.
    """

    relevance: float
    losses: Floats
    answered: float


def queries_for_precision(min_precision: float, confidence: float) -> int:
    """How many judged queries it takes if nothing that they are shown is wrong."""
    return math.ceil(math.log(1.0 - confidence) / math.log(min_precision) - 1e-9)


def precision_losses(shown: Sequence[Shown]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the losses (199, n) of every query at every threshold, and where a row is shown.

    Unjudged rows do not count, unless nothing else is shown: then the loss is 1.
    """
    losses = np.zeros((len(_THRESHOLDS), len(shown)))
    some = np.zeros(losses.shape, dtype=np.bool_)
    for query, (relevances, labels) in enumerate(shown):
        kept = relevances[None, :] >= _THRESHOLDS[:, None]
        some[:, query] = kept.any(axis=1)
        judged = (kept & (labels >= 0)[None, :]).sum(axis=1)
        good = (kept & (labels == 1)[None, :]).sum(axis=1)
        share = np.where(judged > 0, 1.0 - good / np.maximum(judged, 1), 1.0)
        losses[:, query] = np.where(some[:, query], share, 0.0)
    return losses, some


def precise_threshold(
    shown: Sequence[Shown], *, min_precision: float, confidence: float
) -> Precise:
    """Find the lowest threshold that can be promised.

    With `confidence` over the judged queries, the expected share of what is shown in vain is at
    most ``1 - min_precision``; a query that is shown nothing is shown nothing in vain. Thresholds
    are tested from the strictest on until one fails, and all before it are promised at once, so
    the choice among them is free: it falls on the lowest at which the queries that are shown
    something also see enough that is relevant, or an answer that is nearly always empty would do.

    Raises
    ------
    CalibrationError
        If there are too few queries, or no threshold can be promised; the message says how many
        are needed, or which precision these judgments can carry.
    """
    needed, n = queries_for_precision(min_precision, confidence), len(shown)
    if n < needed:
        can = math.floor(1000 * (1.0 - confidence) ** (1.0 / max(1, n))) / 1000
        raise CalibrationError(
            f"min_precision={min_precision:g} with confidence {confidence:g} needs at least "
            f"{needed} judged queries and there are {n}; judge {needed - n} more, or ask for "
            f"min_precision={can:g}"
        )
    losses, some = precision_losses(shown)
    found = _tested(losses, some, min_precision, confidence)
    if found is not None:
        return found
    strictest = np.flatnonzero(some.any(axis=1))[:1]
    right = [1.0 - losses[row].sum() / some[row].sum() for row in strictest]
    possible = _possible(losses, some, confidence)
    raise CalibrationError(
        f"min_precision={min_precision:g} cannot be promised with confidence {confidence:g} by {n} "
        f"judged queries: where the fewest rows are shown, "
        f"{format(right[0], '.3f') if right else 'none'} of them are relevant; "
        + (
            "these judgments carry none, since hardly anything that the search shows was judged "
            "relevant"
            if possible is None
            else f"judge more queries or rows, or ask for min_precision={possible:g}"
        )
    )


def _possible(losses: Floats, some: npt.NDArray[np.bool_], confidence: float) -> float | None:
    """The highest precision in hundredths that can be promised: what passes it, passes lower."""
    low, high = 0, 100
    while high - low > 1:
        middle = (low + high) // 2
        if _tested(losses, some, middle / 100, confidence) is None:
            high = middle
        else:
            low = middle
    return low / 100 if low else None


def _tested(
    losses: Floats, some: npt.NDArray[np.bool_], min_precision: float, confidence: float
) -> Precise | None:
    n = losses.shape[1]
    found = None
    for row, threshold in enumerate(_THRESHOLDS):
        mean, answered = float(losses[row].mean()), int(some[row].sum())
        if hoeffding_bentkus(mean, 1.0 - min_precision, n) > 1.0 - confidence:
            break
        if answered and mean * n <= (1.0 - min_precision) * answered + 1e-9:
            found = Precise(float(threshold), losses[row], answered / n)
    return found
