"""The candidates of judged queries: what a calibration that depends on the query is fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.alike import alike
from funnelvec.calibration.corpus import BANDS, CorpusStats, bands, pull
from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.row_stats import RowStats
from funnelvec.errors import CalibrationError, InvalidInput

__all__ = ["Candidates", "folds"]

_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The K best rows of n queries by raw score, with labels.

    Attributes
    ----------
    scores
        (n, K) raw scores, falling in each row.
    labels
        (n, K) bool; a row that nobody judged counts as not relevant.
    totals
        (n,) how many relevant rows the whole table has for each query.
    bias
        (n, K) hub bias of each candidate (`CorpusStats.bias`).
    pull
        (n, K) inner product of each candidate with the centre of the best (`corpus.pull`).
    setting
        (n, 2) mean and deviation of the query's scores with all rows.
    coherence
        (n, 2) mean cosine between the best 10 and between the best 20 candidates.
    place
        (n, 32) the query in the main directions of the rows (`CorpusStats.directions`).
    groups
        (n,) cross-validation keeps queries with the same number together.
    bands
        (n, K, 4) what bands of main directions contribute to the score (`corpus.bands`). None
        where an engine cannot turn queries; then no correction that weighs them is tried.
    queries, rows
        (n, d) float32 as they are asked, and what a calibration keeps of the rows; None where
        nobody needs them.
    """

    scores: Floats
    labels: npt.NDArray[np.bool_]
    totals: npt.NDArray[np.int64]
    bias: Floats
    pull: Floats
    setting: Floats
    coherence: Floats
    place: Floats
    groups: npt.NDArray[np.int64]
    bands: Floats | None = None
    queries: npt.NDArray[np.float32] | None = None
    rows: RowStats | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: npt.NDArray[np.int64]) -> Candidates:
        """Return the candidates of some of the queries."""
        return Candidates(
            scores=self.scores[index],
            labels=self.labels[index],
            totals=self.totals[index],
            bias=self.bias[index],
            pull=self.pull[index],
            setting=self.setting[index],
            coherence=self.coherence[index],
            place=self.place[index],
            groups=self.groups[index],
            bands=None if self.bands is None else self.bands[index],
            queries=None if self.queries is None else self.queries[index],
            rows=self.rows,
        )

    @classmethod
    def collect(
        cls,
        rows: npt.NDArray[np.float32],
        queries: npt.NDArray[np.float32],
        relevant: list[npt.NDArray[np.int64]],
        *,
        stats: CorpusStats,
        k: int = 200,
        groups: npt.NDArray[np.int64] | None = None,
    ) -> Candidates:
        """Find the exact best `k` rows of each query and everything the fit needs of them.

        Parameters
        ----------
        rows, queries
            (N, d) and (n, d) unit vectors.
        relevant
            For each query the numbers of its relevant rows.
        groups
            Default: queries that want mostly the same rows belong together; see `alike`.
        """
        if k < 20 or k > len(rows):
            raise InvalidInput(f"k is {k}; it must be between 20 and the {len(rows)} rows")
        n = len(queries)
        scores, labels = np.empty((n, k)), np.zeros((n, k), dtype=np.bool_)
        bias, pulls, coherence = np.empty((n, k)), np.empty((n, k)), np.empty((n, 2))
        shares = np.empty((n, k, len(BANDS)))
        axes = stats.axes().astype(np.float32)
        turned, turned_queries = rows @ axes, queries @ axes
        for i, query in enumerate(queries):
            every = rows @ query
            nearest = np.argpartition(-every, k - 1)[:k]
            nearest = nearest[np.lexsort((nearest, -every[nearest]))]
            scores[i], vectors = every[nearest], rows[nearest]
            labels[i] = np.isin(nearest, relevant[i])
            bias[i], pulls[i] = stats.bias[nearest], pull(vectors, scores[i])
            coherence[i] = _coherence(vectors[:10]), _coherence(vectors[:20])
            shares[i] = bands(turned[nearest], turned_queries[i])
        return cls(
            scores=scores,
            labels=labels,
            totals=np.array([len(each) for each in relevant], dtype=np.int64),
            bias=bias,
            pull=pulls,
            setting=stats.setting(queries),
            coherence=coherence,
            place=queries.astype(np.float64) @ stats.directions,
            groups=alike(relevant) if groups is None else np.asarray(groups, dtype=np.int64),
            bands=shares,
        )


def _coherence(vectors: npt.NDArray[np.float32]) -> float:
    """Mean cosine between different unit vectors: (|sum|^2 - m) / (m (m - 1))."""
    m = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - m) / (m * (m - 1)))


def folds(
    groups: npt.NDArray[np.int64], *, number: int = _FOLDS, seed: int = 0
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield (fit, held out) numbers of queries; a group is never on both sides."""
    names = np.unique(groups)
    if len(names) < 2:
        raise CalibrationError("cross-validation needs at least two groups of judged queries")
    shuffled = np.random.default_rng(seed).permutation(names)
    for part in np.array_split(shuffled, min(number, len(names))):
        held = np.isin(groups, part)
        yield np.flatnonzero(~held), np.flatnonzero(held)
