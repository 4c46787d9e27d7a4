"""How much of the hub of a row to take off its score; nothing where that is no help.

Rows that are close to everything (hubs) score high with queries that they do not answer. The
corrected score is ``score - alpha * hub``; see `funnelvec.calibration.corpus` for what a hub is.
The twin of ``funnelvec._choose_alpha`` in ``sql/parts/70_judged.sql``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.listed import DEPTH, padded
from funnelvec.calibration.logistic import Floats, fit_flat, log_losses
from funnelvec.calibration.platt import fit_platt, smoothed_targets
from funnelvec.errors import CalibrationError

if TYPE_CHECKING:
    from funnelvec.calibration.choosing import JudgedScores

__all__ = ["JudgedHubs", "choose_alpha", "corrected"]

_ENOUGH = 300
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class JudgedHubs:
    """The hubs of judged rows, and of the rows of their queries' shortlists.

    Attributes
    ----------
    id
        Of the hub column.
    pairs
        (m,) of the judged rows.
    lists
        (n, keep) of the rows of the shortlists, as their scores are, NaN where a list is shorter;
        None where nobody has asked for them.
    """

    id: str
    pairs: Floats
    lists: Floats | None = None


def corrected(judged: JudgedScores, hubs: JudgedHubs, alpha: float) -> JudgedScores:
    """Return judged pairs with corrected scores, and lists of the best of them."""
    lists = judged.lists
    if lists is not None and hubs.lists is not None:
        depth = min(DEPTH, lists.shape[1])
        lists = np.stack([padded(each, depth) for each in lists - alpha * hubs.lists])
    return replace(judged, scores=judged.scores - alpha * hubs.pairs, lists=lists)


def choose_alpha(judged: JudgedScores, hubs: Floats) -> float:
    """Return how much of the hub to take off; 0 where it does not clearly help.

    Score and hub enter one logistic regression, whose weights say how much: a Platt curve over
    the corrected score. Over held-out queries its log loss has to be lower than that of a Platt
    curve over the raw score by more than a standard error of the difference.

    Parameters
    ----------
    hubs
        (m,) of the judged pairs.
    """
    scores, labels, query_of = judged.scores, judged.labels, judged.query_of
    if not len(scores):
        return 0.0
    # By content, so that folds do not hang on the order in which an engine gives its queries.
    counts = np.bincount(query_of)
    order = np.argsort(np.bincount(query_of, weights=scores) / counts, kind="stable")
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    step = max(1, -(-len(order) // _ENOUGH))
    looked = (place % step == 0)[query_of]
    place = place[query_of] // step
    gains: list[float] = []
    try:
        for fold in range(_FOLDS):
            fit, held = looked & (place % _FOLDS != fold), looked & (place % _FOLDS == fold)
            line = fit_platt(scores[fit], labels[fit])
            a, b, c = _weights(scores[fit], hubs[fit], labels[fit])
            gain = log_losses(line.slope * scores[held] + line.offset, labels[held])
            gain -= log_losses(a * scores[held] + b * hubs[held] + c, labels[held])
            sums = np.bincount(place[held], weights=gain)
            gains.extend(sums[np.unique(place[held])])
        a, b, c = _weights(scores[looked], hubs[looked], labels[looked])
    except CalibrationError:
        return 0.0
    if b >= 0 or not np.mean(gains) > np.std(gains) / np.sqrt(len(gains)):
        return 0.0
    return float(-b / a)


def _weights(
    scores: Floats, hubs: Floats, labels: npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Return the weights of score and hub and the offset, by log loss against Platt's targets.

    Raises
    ------
    CalibrationError
        Where these pairs cannot tell.
    """
    scales = float(scores.std()), float(hubs.std())
    if min(scales) <= 1e-9 or labels.all() or not labels.any():
        raise CalibrationError("all pairs have the same score, the same hub or the same label")
    means = float(scores.mean()), float(hubs.mean())
    columns = np.stack(
        [(scores - means[0]) / scales[0], (hubs - means[1]) / scales[1], np.ones(len(scores))],
        axis=1,
    )
    fitted = fit_flat(columns, smoothed_targets(labels), penalty=np.full(3, 1e-6))
    if fitted[0] <= 0:
        raise CalibrationError("relevant pairs do not score higher than the others")
    a, b = float(fitted[0]) / scales[0], float(fitted[1]) / scales[1]
    return a, b, float(fitted[2]) - a * means[0] - b * means[1]
