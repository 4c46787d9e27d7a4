"""When to say that the table has no answer: a linear head over the shape of a query's scores.

A reject option in the sense of "Learning to Reject with a Fixed Predictor" (2023), with a linear
head, which makes the fit convex. Its features are those of the adapter, the gaps at the top, how
similar the best hits are to one another, and where the query lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.candidates import Candidates, folds
from funnelvec.calibration.features import FEATURE_SETS, shape_features
from funnelvec.calibration.logistic import Floats, fit_flat, log_loss
from funnelvec.errors import CalibrationError

__all__ = ["AbstainHead", "fit_abstain"]

_RIDGES = (1.0, 10.0, 50.0)
_CLIP = 4.0
_FEATURES = (*FEATURE_SETS["curve"], "gap", "gap1", "sd10", "sd")


@dataclass(frozen=True, slots=True)
class AbstainHead:
    """Log-odds that a query has an answer, linear in standardised features.

    Attributes
    ----------
    with_projection
        Whether the query's place in the main directions of the rows is among the features.
    means, scales, weights
        Of the features; the intercept is the first weight.
    """

    with_projection: bool
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]

    def logits(self, candidates: Candidates) -> Floats:
        """Return (n,) log-odds that the query has an answer."""
        values = _features(candidates, self.with_projection)
        phi = _design(values, np.array(self.means), np.array(self.scales))
        result: Floats = phi @ np.array(self.weights)
        return result


def fit_abstain(
    candidates: Candidates, answerable: npt.NDArray[np.bool_], *, seed: int = 0
) -> AbstainHead:
    """Fit a head; ridge and the use of the query's place are chosen by cross-validated log loss.

    Parameters
    ----------
    answerable
        (n,) whether each query has an answer in the table.

    Raises
    ------
    CalibrationError
        If there are fewer than 10 queries of either kind.
    """
    positive = int(answerable.sum())
    if min(positive, len(answerable) - positive) < 10:
        raise CalibrationError(
            f"abstention needs at least 10 queries with an answer and 10 without; there are "
            f"{positive} and {len(answerable) - positive}"
        )
    best: tuple[float, bool, float] | None = None
    for projected in (False, True):
        values = _features(candidates, projected)
        for ridge in _RIDGES:
            held_out = np.empty(len(answerable))
            for fit, held in folds(candidates.groups, seed=seed):
                head = _fit(values[fit], answerable[fit], ridge, projected)
                phi = _design(values[held], np.array(head.means), np.array(head.scales))
                held_out[held] = phi @ np.array(head.weights)
            loss = log_loss(held_out, answerable)
            if best is None or loss < best[0]:
                best = (loss, projected, ridge)
    assert best is not None
    return _fit(_features(candidates, best[1]), answerable, best[2], best[1])


def _fit(
    values: Floats, answerable: npt.NDArray[np.bool_], ridge: float, projected: bool
) -> AbstainHead:
    means, scales = values.mean(axis=0), values.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    phi = _design(values, means, scales)
    penalty = np.full(phi.shape[1], ridge)
    penalty[0] = 1e-6
    weights = fit_flat(phi, answerable, penalty=penalty)
    return AbstainHead(
        with_projection=projected,
        means=tuple(map(float, means)),
        scales=tuple(map(float, scales)),
        weights=tuple(map(float, weights)),
    )


def _features(candidates: Candidates, projected: bool) -> Floats:
    scores, bias, pull = candidates.scores, candidates.bias, candidates.pull
    shape = shape_features(
        _FEATURES,
        scores,
        raw_top=scores[:, 0],
        setting=candidates.setting,
        coherence=candidates.coherence,
    )
    # Scores less half of the hub bias: is the best hit still the best, and by how much?
    fair = scores - 0.5 * bias
    best_fair, best_pull = -np.sort(-fair, axis=1), -np.sort(-pull, axis=1)
    columns = [
        *(np.sqrt(np.maximum(scores[:, 0] - scores[:, rank], 0.0)) for rank in (1, 2, 4, 9)),
        *(bias[:, 0], bias[:, :5].mean(axis=1), fair[:, 0]),
        *(best_fair[:, 0] - best_fair[:, 1], best_fair[:, 0] - fair[:, 0]),
        *(pull[:, 0], pull[:, 0] - pull[:, 1], best_pull[:, 0] - pull[:, 0]),
        best_pull[:, :10].mean(axis=1),
    ]
    for temperature in (0.01, 0.02, 0.05, 0.1):
        weights = np.exp((scores - scores[:, :1]) / temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        columns += [weights[:, 0], -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1)]
    found = np.concatenate([shape, np.stack(columns, axis=1)], axis=1)
    if candidates.bands is not None:
        # The gap by bands of directions: what it is about tells more than how wide it is.
        apart = candidates.bands[:, 0] - candidates.bands[:, 1]
        rest = candidates.bands[:, 0] - candidates.bands[:, 1:5].mean(axis=1)
        found = np.concatenate([found, apart, rest], axis=1)
    if not projected:
        return found
    outside = 1.0 - (candidates.place**2).sum(axis=1, keepdims=True)
    return np.concatenate([found, candidates.place, outside], axis=1)


def _design(values: Floats, means: Floats, scales: Floats) -> Floats:
    standard = np.clip((values - means) / scales, -_CLIP, _CLIP)
    return np.concatenate([np.ones((len(values), 1)), standard], axis=1)
