"""The corrected score: less the hub bias of the row, plus its pull, with directions weighed.

``s' = s + gamma * pull - alpha * bias + sum of beta_b * band_b``. The bias is a column of the row,
the pull is the inner product with a vector of the query, and a band is the part of the score that
lies in some main directions of the rows, so the whole is one inner product of another query with
one more dimension: ``<[W q + gamma * c, -alpha], [d, bias]>`` where W stretches main directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from funnelvec.calibration.candidates import Candidates
from funnelvec.calibration.features import FEATURE_SETS, shape_features
from funnelvec.calibration.logistic import Floats, fit_flat
from funnelvec.errors import CalibrationError

__all__ = ["CORRECTIONS", "Corrected", "Correction", "CorrectionKind", "correct", "fit_correction"]

CorrectionKind = Literal["raw", "hub", "hub+pull", "hub+pull+bands"]
CORRECTIONS: tuple[CorrectionKind, ...] = get_args(CorrectionKind)

#: So many queries pin down a few weights.
_ENOUGH = 150
_RIDGE = 5.0


@dataclass(frozen=True, slots=True)
class Correction:
    """The weights of the corrected score; both 0 leave the raw one.

    Attributes
    ----------
    alpha
        Of the hub bias; 0 or more.
    gamma
        Of the pull; 0 or more.
    betas
        Of the bands; -1 takes one out of the score, and none is less. Empty: as they are.
    """

    alpha: float = 0.0
    gamma: float = 0.0
    betas: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """Candidates in the order of the corrected score.

    Attributes
    ----------
    scores, labels
        (n, K) by falling corrected score.
    source
        What they were made from; its rows are in the order of the raw score.
    """

    scores: Floats
    labels: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    source: Candidates

    def features(self, names: tuple[str, ...]) -> Floats:
        """Compute features of the queries; see `shape_features`."""
        return shape_features(
            names,
            self.scores,
            raw_top=self.source.scores[:, 0],
            setting=self.source.setting,
            coherence=self.source.coherence,
        )


def correct(candidates: Candidates, correction: Correction) -> Corrected:
    """Apply a correction; rows of equal score keep their order."""
    scores = (
        candidates.scores + correction.gamma * candidates.pull - correction.alpha * candidates.bias
    )
    if correction.betas:
        if candidates.bands is None:
            raise CalibrationError(
                "this correction weighs bands of directions, and the candidates have none"
            )
        scores = scores + candidates.bands @ np.array(correction.betas)
    order = np.argsort(-scores, axis=1, kind="stable")
    return Corrected(
        scores=np.take_along_axis(scores, order, axis=1),
        labels=np.take_along_axis(candidates.labels, order, axis=1),
        source=candidates,
    )


def fit_correction(candidates: Candidates, kind: CorrectionKind, *, seed: int = 0) -> Correction:
    """Fit the weights of a correction by the log loss.

    The score, the bias and the pull enter one logistic regression beside features of the query,
    so that the weights say what tells rows of one query apart. A weight of the wrong sign is 0.
    """
    if kind == "raw":
        return Correction()
    drawn = np.sort(np.random.default_rng(seed).permutation(len(candidates))[:_ENOUGH])
    some = candidates.take(drawn)
    terms = [some.bias] if kind == "hub" else [some.bias, some.pull]
    if kind == "hub+pull+bands":
        if some.bands is None:
            raise CalibrationError("the candidates have no bands to weigh")
        terms += [some.bands[:, :, band] for band in range(some.bands.shape[2])]
    weights = _weights(some, terms)
    gamma = weights[1] if len(terms) > 1 else 0.0
    if gamma < 0.0:
        return fit_correction(candidates, "hub", seed=seed)
    return Correction(
        alpha=max(0.0, -weights[0]),
        gamma=gamma,
        betas=tuple(max(-1.0, weight) for weight in weights[2:]),
    )


def _weights(some: Candidates, terms: list[Floats]) -> list[float]:
    """Coefficients of the terms as multiples of that of the raw score."""
    corrected = correct(some, Correction())
    features = corrected.features(FEATURE_SETS["shape"])
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    k, scales = some.scores.shape[1], [float(x.std()) + 1e-12 for x in (some.scores, *terms)]
    # Every second rank is enough for a few weights, from the first on.
    columns = [
        np.ones(some.scores[:, ::2].size),
        *(np.repeat(column, (k + 1) // 2) for column in features.T),
        *(
            ((term[:, ::2] - term.mean()) / scale).ravel()
            for term, scale in zip((some.scores, *terms), scales, strict=True)
        ),
    ]
    width = features.shape[1]
    penalty = np.array([1e-6, *([_RIDGE] * width), 1e-6, *([_RIDGE] * len(terms))])
    fitted = fit_flat(np.stack(columns, axis=1), some.labels[:, ::2].ravel(), penalty=penalty)
    slope = float(fitted[width + 1]) / scales[0]
    if slope <= 1e-6:
        return [0.0] * len(terms)
    return [
        float(value) / scale / slope
        for value, scale in zip(fitted[width + 2 :], scales[1:], strict=True)
    ]
