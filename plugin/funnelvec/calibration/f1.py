"""Cutoffs by F1: one threshold for all queries, or as many rows as promise the most for each.

Both are one cutoff per query: the list is cut after a number of rows, in the order of the score.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.metrics import Labels, macro_f1

__all__ = ["best_f1_cutoff", "best_threshold", "expected_f1_sizes", "fit_share", "keep_first"]

#: Shares are tried as multiples of (relevant rows of the table) / (sum of relevances).
_SHARES = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.7])


def best_threshold(logits: Floats, labels: Labels, totals: npt.NDArray[np.int64]) -> float:
    """Return the threshold (keep what is at least this) with the best mean F1 over queries.

    Parameters
    ----------
    logits
        (n, K), falling in each row.
    """
    some = labels.any(axis=1)
    hits = np.cumsum(labels[some], axis=1)
    f1 = 2.0 * hits / (np.arange(1, labels.shape[1] + 1) + totals[some][:, None])
    gains = np.diff(f1, axis=1, prepend=0.0).ravel()
    flat = logits[some].ravel()
    order = np.argsort(-flat, kind="stable")
    ordered, reached = flat[order], np.cumsum(gains[order])
    # Equal logits are kept or dropped together.
    last = np.append(ordered[1:] != ordered[:-1], True)
    best = int(np.argmax(np.where(last, reached, -np.inf)))
    return float((ordered[best] + ordered[min(best + 1, len(ordered) - 1)]) / 2)


def expected_f1_sizes(relevance: Floats, share: float) -> npt.NDArray[np.int64]:
    """Return how many rows to keep of each list: those that maximise its expected F1.

    ``2 * sum of the first k / (k + share * sum of all)``; `share` makes up for relevant rows that
    are not among the candidates and for relevances that are not calibrated query by query.
    """
    sums = np.cumsum(relevance, axis=1)
    sizes = np.arange(1, relevance.shape[1] + 1)
    result: npt.NDArray[np.int64] = (2.0 * sums / (sizes + share * sums[:, -1:])).argmax(1) + 1
    return result


def keep_first(sizes: npt.NDArray[np.int64], k: int) -> Labels:
    """Return the (n, k) mask of the first `sizes[i]` of row i."""
    result: Labels = np.arange(k)[None, :] < sizes[:, None]
    return result


def fit_share(relevance: Floats, labels: Labels, totals: npt.NDArray[np.int64]) -> float:
    """Choose the share of `expected_f1_sizes` by the mean F1 over queries."""
    some = labels.any(axis=1)
    base = float(totals[some].sum() / max(relevance[some].sum(), 1e-12))
    means = []
    for share in base * _SHARES:
        kept = keep_first(expected_f1_sizes(relevance, share), labels.shape[1])
        means.append(macro_f1(kept, labels, totals).mean())
    return float(base * _SHARES[int(np.argmax(means))])


def best_f1_cutoff(scores: Floats, relevance: Floats) -> float:
    """Return the score down to which one list promises the best F1; -inf for an empty list.

    ``2 * (relevant rows kept) / (rows kept + relevant rows)``, each expected by the relevances.
    Rows of equal scores are kept or dropped together; of equal promises the shorter one is taken.

    Parameters
    ----------
    scores, relevance
        (K,) of the candidates of one query, scores falling.
    """
    if not len(scores):
        return -np.inf
    last = np.append(scores[1:] != scores[:-1], True)
    sums, sizes = np.cumsum(relevance)[last], np.flatnonzero(last) + 1
    gains = sums / (sizes + relevance.sum())
    return float(scores[last][int(np.argmax(gains))])
