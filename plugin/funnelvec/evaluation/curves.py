"""What a calibration report shows, as numbers: everything that is drawn can be read as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from funnelvec.calibration import f1
from funnelvec.evaluation.answers import Answers, Bools, Floats
from funnelvec.evaluation.pooled import Ranked

__all__ = [
    "Bin",
    "Counts",
    "Density",
    "Point",
    "Quantiles",
    "choose_points",
    "densities",
    "measure_point",
    "precision_recall",
    "reliability",
    "said",
]

_BINS, _STEPS, _CURVE = 20, 40, 200
#: 95 % of a normal distribution lie within so many deviations.
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of like relevance: what was said of them and what is so.

    Attributes
    ----------
    pairs, said, found
        How many, their mean relevance, and the share of them that is relevant.
    low, high
        95 % interval of `found` (Wilson), as if pairs were independent.
    """

    pairs: int
    said: float
    found: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Counts:
    """A histogram."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Density:
    """Scores of the relevant pairs and of the others, over the same edges."""

    relevant: Counts
    others: Counts


@dataclass(frozen=True, slots=True)
class Quantiles:
    """What a tenth, half and nine tenths of the queries stay below; NaN where none has a value."""

    p10: float
    p50: float
    p90: float

    @classmethod
    def of(cls, values: Floats) -> Quantiles:
        """Of the values that are numbers."""
        some = values[~np.isnan(values)]
        if not len(some):
            return cls(math.nan, math.nan, math.nan)
        return cls(*map(float, np.quantile(some, [0.1, 0.5, 0.9])))


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold on relevance, and what it does query by query.

    Attributes
    ----------
    name, relevance
        Why it is shown, and where it is.
    recall, precision
        Of all pairs together; recall against the relevant rows that were returned.
    precisions
        Share of relevant rows among those kept, over queries that keep one.
    recalls
        Share of a query's relevant rows that is kept, over queries that have one.
    sizes
        Rows kept, over all queries.
    empty
        Share of the queries that keep no row.
    cutoffs
        The raw score that the relevance means, over queries; None where it is not finite.
    cutoff
        How those are spread.
    """

    name: str
    relevance: float
    recall: float
    precision: float
    precisions: Quantiles
    recalls: Quantiles
    sizes: Quantiles
    empty: float
    cutoffs: Counts | None
    cutoff: Quantiles


def reliability(relevance: Floats, answers: Answers) -> tuple[Bin, ...]:
    """Bins of one width, those that hold a pair: bins of one size would show the low end alone."""
    told = relevance[answers.counted]
    truth = answers.labels[answers.counted].astype(np.float64)
    place = np.minimum((told * _BINS).astype(np.int64), _BINS - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        count, share = int(inside.sum()), float(truth[inside].mean())
        found.append(Bin(count, float(told[inside].mean()), share, *_wilson(share, count)))
    return tuple(found)


def _wilson(share: float, count: float) -> tuple[float, float]:
    weight = _Z * _Z / count
    middle = (share + weight / 2) / (1 + weight)
    width = _Z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return max(0.0, middle - width), min(1.0, middle + width)


def said(relevance: Floats, answers: Answers) -> Counts:
    """How many pairs are said to have which relevance, in the steps of `reliability`."""
    return _histogram(relevance[answers.counted], np.linspace(0.0, 1.0, _BINS + 1))


def densities(answers: Answers) -> Density:
    """Scores of the pairs that count, by label."""
    every = answers.scores[answers.counted]
    edges = _edges(every)
    relevant = answers.counted & answers.labels
    return Density(
        _histogram(answers.scores[relevant], edges),
        _histogram(answers.scores[answers.counted & ~answers.labels], edges),
    )


def _edges(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    if not high > low:
        margin = max(abs(low), 1.0) * 1e-3
        low, high = low - margin, high + margin
    return np.linspace(low, high, _STEPS + 1)


def _histogram(values: Floats, edges: Floats) -> Counts:
    counts, _ = np.histogram(values, edges)
    return Counts(tuple(map(float, edges)), tuple(map(int, counts)))


def precision_recall(relevance: Floats, answers: Answers) -> tuple[tuple[float, float], ...]:
    """Recall and precision of all pairs together, from the highest threshold on, thinned."""
    pairs = Ranked.of(relevance, answers.labels, answers.counted)
    recall, precision = pairs.curve(np.ones(len(answers)))
    # As many points as can be told apart, spread over the recall.
    places = np.unique(
        np.searchsorted(recall, np.linspace(0.0, 1.0, _CURVE)).clip(max=len(recall) - 1)
    )
    return tuple((float(recall[i]), float(precision[i])) for i in places)


def choose_points(
    relevance: Floats, answers: Answers, given: Mapping[str, float]
) -> dict[str, float]:
    """Thresholds worth a look: those given, one half, best mean F1, and what keeps 95 %."""
    found = {**given}
    pairs = Ranked.of(relevance, answers.labels, answers.counted)
    if answers.labels.any():
        found["keeps 95 %"] = pairs.kept(np.ones(len(answers))).threshold
        values = np.where(answers.counted, relevance, -np.inf)
        # Rows that do not count go to the end of their list, so that places are ranks.
        order = np.argsort(-values, axis=1, kind="stable")
        ordered = np.take_along_axis(values, order, axis=1)
        labels = np.take_along_axis(answers.labels & answers.counted, order, axis=1)
        finite = np.where(np.isfinite(ordered), ordered, -1.0)
        found["best mean F1"] = max(0.0, f1.best_threshold(finite, labels, answers.totals))
    found.setdefault("one half", 0.5)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def measure_point(
    name: str,
    least: float,
    relevance: Floats,
    answers: Answers,
    cutoff: Callable[[float], Floats],
) -> Point:
    """Measure one threshold.

    Parameters
    ----------
    cutoff
        From a relevance to the raw score that it means for each query, (n,).
    """
    kept: Bools = answers.counted & (np.where(answers.counted, relevance, -1.0) >= least)
    relevant = answers.counted & answers.labels
    sizes, hits = kept.sum(axis=1), (kept & relevant).sum(axis=1)
    among = relevant.sum(axis=1)
    raw = cutoff(least)
    finite = raw[np.isfinite(raw)]
    return Point(
        name=name,
        relevance=least,
        recall=float(hits.sum() / max(1, among.sum())),
        precision=float(hits.sum() / sizes.sum()) if sizes.any() else math.nan,
        precisions=Quantiles.of(np.where(sizes > 0, hits / np.maximum(sizes, 1), np.nan)),
        recalls=Quantiles.of(np.where(among > 0, hits / np.maximum(among, 1), np.nan)),
        sizes=Quantiles.of(sizes.astype(np.float64)),
        empty=float((sizes == 0).mean()),
        cutoffs=_histogram(finite, _edges(finite)) if len(finite) else None,
        cutoff=Quantiles.of(finite),
    )
