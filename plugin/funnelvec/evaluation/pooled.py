"""Measures of pairs that know which query a pair belongs to, so that queries can be redrawn.

Each is computed for weights of the queries: all ones give the measure itself, the counts of a
draw with replacement give one bootstrap value. Pairs are sorted once; a draw costs a few sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Calibrated", "Kept", "Ranked", "draws"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

BINS = 15
#: A relevance of exactly 0 or 1 that turns out wrong would cost without end.
_LEAST = 1e-15


class Kept(NamedTuple):
    """The highest threshold that keeps a share of the relevant pairs, and what it does."""

    threshold: float
    precision: float
    filtered: float
    empty: float


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Pairs of all queries together, sorted by falling value.

    Attributes
    ----------
    values, labels, query
        (m,) the value, whether the pair is relevant, and the number of its query.
    last
        (p,) where a run of equal values ends: a threshold keeps all of them or none.
    best
        (n,) the highest value of each query; -inf where it has no pair.
    """

    values: Floats
    labels: Floats
    query: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    best: Floats

    @classmethod
    def of(cls, values: Floats, labels: Bools, counted: Bools) -> Ranked:
        """Sort the pairs that count, of (n, K) each."""
        query, _ = np.nonzero(counted)
        flat = values[counted]
        order = np.argsort(-flat, kind="stable")
        ordered = flat[order]
        ends = np.append(ordered[1:] != ordered[:-1], True)
        return cls(
            values=ordered,
            labels=labels[counted][order].astype(np.float64),
            query=query[order],
            last=np.flatnonzero(ends),
            best=np.where(counted, values, -np.inf).max(axis=1),
        )

    def _sums(self, weights: Floats) -> tuple[Floats, Floats]:
        """Relevant pairs and pairs down to the end of each run."""
        each = weights[self.query]
        return np.cumsum(each * self.labels)[self.last], np.cumsum(each)[self.last]

    def pr_auc(self, weights: Floats) -> float:
        """Average precision; NaN without a relevant pair."""
        found, seen = self._sums(weights)
        if not found[-1]:
            return float("nan")
        precision = found / np.maximum(seen, 1e-300)
        return float((np.diff(found, prepend=0.0) * precision).sum() / found[-1])

    def kept(self, weights: Floats, recall: float = 0.95) -> Kept:
        """The threshold that keeps at least this share of the relevant pairs that were returned."""
        found, seen = self._sums(weights)
        if not found[-1]:
            return Kept(*[float("nan")] * 4)
        place = int(np.argmax(found >= recall * found[-1] * (1.0 - 1e-12)))
        threshold = float(self.values[self.last[place]])
        return Kept(
            threshold=threshold,
            precision=float(found[place] / seen[place]),
            filtered=float(1.0 - seen[place] / seen[-1]),
            empty=float(np.average(self.best < threshold, weights=weights)),
        )

    def curve(self, weights: Floats) -> tuple[Floats, Floats]:
        """Recall, relative to the relevant pairs that were returned, and precision at each run."""
        found, seen = self._sums(weights)
        return found / max(found[-1], 1e-300), found / np.maximum(seen, 1e-300)


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """Pairs sorted by rising relevance, to compare what is said with what is so."""

    relevance: Floats
    labels: Floats
    query: npt.NDArray[np.intp]

    @classmethod
    def of(cls, relevance: Floats, labels: Bools, counted: Bools) -> Calibrated:
        """Sort the pairs that count, of (n, K) each."""
        query, _ = np.nonzero(counted)
        flat = relevance[counted]
        order = np.argsort(flat, kind="stable")
        return cls(flat[order], labels[counted][order].astype(np.float64), query[order])

    def bins(self, weights: Floats, bins: int = BINS) -> tuple[Floats, Floats, Floats]:
        """Return sizes, mean relevance and share of relevant pairs of bins of equal size.

        A pair of a query that was drawn several times may lie across an edge: its copies are
        alike, so each bin takes its part of them.
        """
        each = weights[self.query]
        seen = np.cumsum(each)
        total = round(float(seen[-1])) if len(seen) else 0
        if not total:
            return np.empty(0), np.empty(0), np.empty(0)
        number = min(bins, total)
        size, rest = divmod(total, number)
        counts = np.full(number, size, dtype=np.float64)
        counts[:rest] += 1  # as numpy.array_split does
        edges = np.append(0.0, np.cumsum(counts))
        said = np.diff(np.interp(edges, np.append(0.0, seen), _from_zero(each * self.relevance)))
        true = np.diff(np.interp(edges, np.append(0.0, seen), _from_zero(each * self.labels)))
        return counts, said / counts, true / counts

    def ece(self, weights: Floats, bins: int = BINS) -> float:
        """Debiased expected calibration error; see `funnelvec.calibration.metrics`."""
        counts, said, true = self.bins(weights, bins)
        if not len(counts):
            return float("nan")
        chance = true * (1.0 - true) / np.maximum(counts - 1.0, 1.0)
        gaps = np.sqrt(np.maximum((said - true) ** 2 - chance, 0.0))
        return float((counts * gaps).sum() / counts.sum())

    def brier(self, weights: Floats) -> float:
        """Mean squared difference of relevance and label."""
        return self._mean((self.relevance - self.labels) ** 2, weights)

    def log_loss(self, weights: Floats) -> float:
        """Mean cross-entropy; relevance is held to [1e-15, 1 - 1e-15]."""
        p = np.clip(self.relevance, _LEAST, 1.0 - _LEAST)
        return self._mean(-np.where(self.labels > 0.5, np.log(p), np.log1p(-p)), weights)

    def _mean(self, losses: Floats, weights: Floats) -> float:
        each = weights[self.query]
        return float(np.average(losses, weights=each)) if each.any() else float("nan")


def _from_zero(values: Floats) -> Floats:
    return np.append(0.0, np.cumsum(values))


def draws(n: int, *, times: int, seed: int) -> Floats:
    """Return (times, n) how often each query is in each draw of n with replacement."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(times)]).astype(
        np.float64
    )
