"""The convex Cosine Adapter: a line over the score for each query, from features of its answer.

Relevance Filtering for Embedding-based Retrieval (Lin et al., CIKM 2024) maps the query vector to
the two numbers of a Platt curve by a network. Here the two are affine in label-free features of
the query's own list of scores, so that the fit is convex and a handful of judged queries is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.correction import Corrected
from funnelvec.calibration.features import FEATURE_SETS
from funnelvec.calibration.logistic import Floats, fit_lines
from funnelvec.errors import CalibrationError

__all__ = ["FLOOR", "Adapter", "Weighting", "blend", "design", "fit_adapter", "pair_weights"]

Weighting = Literal["pairs", "queries"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)

#: Standardised features are held to so many deviations: an odd query is treated like the oddest
#: that was seen, not extrapolated.
CLIP = 4.0
#: The slope of no query is less than this share of that of the plain line.
FLOOR = 0.05
_ENOUGH = 1_000
_EVERY_RANK = 40


@dataclass(frozen=True, slots=True)
class Adapter:
    """A line over the score per query: log-odds = offset(q) + slope(q) * (score - mean) / scale.

    Attributes
    ----------
    features
        Names, as in `FEATURE_SETS`; none at all is plain Platt.
    feature_means, feature_scales
        Of the judged queries.
    score_mean, score_scale
        Of their candidates.
    offsets, slopes
        Coefficients: the plain line first, then one per feature.
    floor
        The least slope, positive: for a fixed query relevance never falls as the score rises.
    """

    features: tuple[str, ...]
    feature_means: tuple[float, ...]
    feature_scales: tuple[float, ...]
    score_mean: float
    score_scale: float
    offsets: tuple[float, ...]
    slopes: tuple[float, ...]
    floor: float

    def __post_init__(self) -> None:
        width = len(self.features)
        lengths = {len(self.feature_means), len(self.feature_scales)}
        if lengths != {width} or {len(self.offsets), len(self.slopes)} != {width + 1}:
            raise CalibrationError("the parts of the adapter do not have the lengths of each other")
        numbers = (
            *(self.score_mean, self.score_scale, self.floor, *self.feature_means),
            *(*self.feature_scales, *self.offsets, *self.slopes),
        )
        if not np.isfinite(numbers).all():
            raise CalibrationError("a number of the adapter is not finite")
        if min((self.floor, self.score_scale, *self.feature_scales)) <= 0:
            raise CalibrationError(
                "the least slope and the scales of an adapter must be positive: relevance must "
                "rise with the score"
            )

    def lines(self, corrected: Corrected) -> tuple[Floats, Floats]:
        """Return offsets and slopes over the score itself, (n,) each."""
        return self.lines_of(corrected.features(self.features))

    def lines_of(self, values: Floats) -> tuple[Floats, Floats]:
        """Return offsets and slopes, (n,) each, from (n, P) values of the features."""
        phi = design(values, np.array(self.feature_means), np.array(self.feature_scales))
        slope = np.maximum(phi @ np.array(self.slopes), self.floor) / self.score_scale
        offset = phi @ np.array(self.offsets) - slope * self.score_mean
        return offset, slope

    def logits(self, corrected: Corrected) -> Floats:
        """Return the log-odds of relevance of all candidates, (n, K), falling in each row."""
        offset, slope = self.lines(corrected)
        return offset[:, None] + slope[:, None] * corrected.scores


def fit_adapter(
    corrected: Corrected,
    features: str,
    *,
    ridge: float,
    weighting: Weighting = "pairs",
    seed: int = 0,
) -> Adapter:
    """Fit an adapter with one of the `FEATURE_SETS`.

    Parameters
    ----------
    corrected
        Candidates of judged queries; of more than 1,000 queries as many are drawn.
    ridge
        See `fit_lines`.
    weighting
        "pairs": every pair counts the same, which calibrates relevance. "queries": relevant rows
        of one query share one weight, so that queries with few of them count as much as others;
        cutoffs by F1 and by miss are averages over queries and want that.

    Raises
    ------
    CalibrationError
        If the labels are all the same, or relevance does not rise with the score.
    """
    names = FEATURE_SETS[features]
    n = len(corrected.scores)
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:_ENOUGH])
    values = corrected.features(names)
    means, scales = values.mean(axis=0), values.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    columns, counts = _thinned(corrected.scores.shape[1])
    scores, labels = corrected.scores[drawn][:, columns], corrected.labels[drawn][:, columns]
    if labels.all() or not labels.any():
        raise CalibrationError("all candidates have the same label; nothing can be learned")
    mean, scale = float(scores.mean()), float(scores.std())
    if not scale > 0:
        raise CalibrationError("all candidates have the same score; nothing can be learned")
    phi = design(values[drawn], means, scales)
    fitted = fit_lines(
        (scores - mean) / scale,
        phi,
        labels,
        weights=pair_weights(corrected.labels[drawn], weighting)[:, columns] * counts,
        ridge=ridge,
    )
    if fitted[1, 0] <= 0:
        raise CalibrationError(
            f"the fitted slope is {fitted[1, 0]:.6g}: relevant rows do not score higher than the "
            "others; check that the labels are not swapped and that queries and rows come from "
            "one model"
        )
    return Adapter(
        features=names,
        feature_means=tuple(map(float, means)),
        feature_scales=tuple(map(float, scales)),
        score_mean=mean,
        score_scale=scale,
        offsets=tuple(map(float, fitted[0])),
        slopes=tuple(map(float, fitted[1])),
        floor=FLOOR * float(fitted[1, 0]),
    )


def _thinned(k: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Which ranks to fit to, and how many each stands for: all of the first, a quarter of the rest.

    Far down a list neighbours in rank tell nearly the same; the fit takes half of the time.
    """
    if k <= 2 * _EVERY_RANK:
        return np.arange(k), np.ones(k)
    rest = np.arange(_EVERY_RANK + 1, k, 4)
    columns = np.concatenate([np.arange(_EVERY_RANK), rest])
    counts = np.ones(len(columns))
    counts[_EVERY_RANK:] = (k - _EVERY_RANK) / len(rest)
    return columns, counts


def blend(adapters: Sequence[Adapter]) -> Adapter:
    """Return the mean of adapters that were fitted to the same candidates, as one adapter.

    Means of lines are lines, and coefficients of features that one of them lacks count as 0 there.
    """
    first = adapters[0]
    if len({(each.score_mean, each.score_scale) for each in adapters}) != 1:
        raise CalibrationError("adapters that were fitted to different candidates have no mean")
    scales = {
        name: (mean, scale)
        for each in adapters
        for name, mean, scale in zip(
            each.features, each.feature_means, each.feature_scales, strict=True
        )
    }
    names = tuple(scales)

    def mean_of(part: Callable[[Adapter], tuple[float, ...]]) -> tuple[float, ...]:
        columns = [dict(zip(("", *each.features), part(each), strict=True)) for each in adapters]
        return tuple(
            math.fsum(column.get(name, 0.0) for column in columns) / len(adapters)
            for name in ("", *names)
        )

    return Adapter(
        features=names,
        feature_means=tuple(scales[name][0] for name in names),
        feature_scales=tuple(scales[name][1] for name in names),
        score_mean=first.score_mean,
        score_scale=first.score_scale,
        offsets=mean_of(lambda each: each.offsets),
        slopes=mean_of(lambda each: each.slopes),
        floor=min(each.floor for each in adapters),
    )


def pair_weights(labels: npt.NDArray[np.bool_], weighting: Weighting) -> Floats:
    """Return the (n, K) weights of pairs; see `fit_adapter`."""
    if weighting == "pairs":
        return np.ones(labels.shape)
    counts = labels.sum(axis=1)
    mean = counts.sum() / max(1, int((counts > 0).sum()))
    return np.where(labels, mean / np.maximum(counts, 1)[:, None], 1.0)


def design(values: Floats, means: Floats, scales: Floats) -> Floats:
    """Return (n, P + 1): ones, and the features standardised and held to `CLIP` deviations."""
    standard = np.clip((values - means) / scales, -CLIP, CLIP)
    return np.concatenate([np.ones((len(values), 1)), standard], axis=1)
