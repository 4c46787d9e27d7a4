"""Measures of relevance: how well rows are told apart, calibrated and cut off.

Arrays are (n, K): one row per query, candidates by falling score. Averages over queries are over
those with a relevant candidate, where a query without one has no value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats

__all__ = [
    "auc",
    "bootstrap",
    "brier",
    "debiased_ece",
    "kept_rows",
    "macro_f1",
    "misses",
    "oracle_f1",
    "pr_auc",
    "precision_at_recall",
]

Labels = npt.NDArray[np.bool_]


def pr_auc(values: Floats, labels: Labels) -> float:
    """Average precision over all pairs of all queries together; ties count as one step."""
    order = np.argsort(-values, axis=None, kind="stable")
    found, sorted_values = np.cumsum(labels.ravel()[order]), values.ravel()[order]
    last = np.append(sorted_values[1:] != sorted_values[:-1], True)
    precision = found[last] / (np.flatnonzero(last) + 1)
    return float((np.diff(found[last], prepend=0) * precision).sum() / max(1, found[-1]))


def precision_at_recall(values: Floats, labels: Labels, recall: float = 0.95) -> float:
    """Precision of all kept pairs at the highest threshold that keeps this share of the relevant.

    Recall is measured against relevant rows among the candidates.
    """
    order = np.argsort(-values, axis=None, kind="stable")
    found, sorted_values = np.cumsum(labels.ravel()[order]), values.ravel()[order]
    last = np.flatnonzero(np.append(sorted_values[1:] != sorted_values[:-1], True))
    reached = last[np.argmax(found[last] >= recall * found[-1])]
    return float(found[reached] / (reached + 1))


def macro_f1(kept: Labels, labels: Labels, totals: npt.NDArray[np.int64]) -> Floats:
    """F1 of what is kept for each query with a relevant candidate, against all its relevant rows.

    Returns one value per such query.
    """
    some = labels.any(axis=1)
    hits = (kept & labels).sum(axis=1)[some]
    result: Floats = 2.0 * hits / (kept.sum(axis=1)[some] + totals[some])
    return result


def oracle_f1(labels: Labels, totals: npt.NDArray[np.int64]) -> Floats:
    """F1 of the best prefix of each list, which only the labels tell; as `macro_f1`."""
    some = labels.any(axis=1)
    hits = np.cumsum(labels[some], axis=1)
    sizes = np.arange(1, labels.shape[1] + 1)
    result: Floats = (2.0 * hits / (sizes + totals[some][:, None])).max(axis=1)
    return result


def misses(kept: Labels, labels: Labels) -> Floats:
    """Share of its relevant candidates that each query loses, (n,); 0 where it has none."""
    counts = labels.sum(axis=1)
    lost = (labels & ~kept).sum(axis=1)
    result: Floats = lost / np.maximum(counts, 1)
    return result


def kept_rows(kept: Labels) -> float:
    """Mean number of rows kept per query."""
    return float(kept.sum(axis=1).mean())


def brier(relevance: Floats, labels: Labels) -> float:
    """Mean squared difference of relevance and label."""
    return float(((relevance - labels) ** 2).mean())


def debiased_ece(relevance: Floats, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error over equal-mass bins, less what chance alone puts into each.

    Mean over bins of the root of ``max(0, gap^2 - v)``, with v the variance of the bin's mean label
    (the debiased estimator of Kumar, Liang and Ma, 2019, bin by bin).
    """
    flat, truth = relevance.ravel(), labels.ravel().astype(np.float64)
    order = np.argsort(flat, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        rate = truth[part].mean()
        gap = flat[part].mean() - rate
        chance = rate * (1.0 - rate) / max(len(part) - 1, 1)
        total += len(part) / len(order) * float(np.sqrt(max(gap * gap - chance, 0.0)))
    return total


def auc(values: Floats, positive: Labels) -> float:
    """Area under the ROC curve of (n,) values; ties count half."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty(len(values))
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    ends = np.append(starts[1:], len(values))
    for start, end in zip(starts, ends, strict=True):
        ranks[order[start:end]] = (start + end + 1) / 2
    n = int(positive.sum())
    m = len(values) - n
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def bootstrap(
    measure: Callable[[npt.NDArray[np.int64]], float],
    n_queries: int,
    *,
    times: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return an interval of a measure by drawing queries, never pairs, with replacement.

    `measure` takes the numbers of the drawn queries.
    """
    rng = np.random.default_rng(seed)
    values = [measure(rng.integers(0, n_queries, n_queries)) for _ in range(times)]
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
