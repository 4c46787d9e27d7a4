"""The exact answer, computed once in NumPy for all contestants alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Oracle"]

# Databases add up float32 products, so rows closer than this are a tie to them.
_TIE = 1e-6
_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Oracle:
    """The best k cosines of each query, and with them the recall of any answer.

    Attributes
    ----------
    rows, queries
        (n, d) and (m, d) float32.
    k
        At most n.
    worst
        (m,) float64, the k-th best cosine of each query.
    """

    rows: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]
    k: int
    worst: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], *, k: int
    ) -> Oracle:
        """Search exhaustively: a shortlist in float32, well over k, and its cosines in float64."""
        k = min(k, len(rows))
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        longer = min(len(rows), 2 * k + 50)
        worst = np.empty(len(queries))
        for start in range(0, len(queries), _BLOCK):
            scores = queries[start : start + _BLOCK] @ units.T
            near = np.argpartition(-scores, longer - 1, axis=1)[:, :longer]
            for i, shortlist in enumerate(near, start):
                cosines = _cosines(rows[shortlist], queries[i])
                worst[i] = np.partition(cosines, -k)[-k]
        return cls(rows, queries, k, worst)

    def recall(self, query: int, ids: Sequence[int]) -> float:
        """Share of the exact top k in an answer; a row that ties with the k-th counts as right.

        `ids` are row numbers.
        """
        found = np.unique(np.asarray(ids, dtype=np.intp))[: len(ids)]
        if found.size == 0:
            return 0.0
        cosines = _cosines(self.rows[found], self.queries[query])
        right = int((cosines >= self.worst[query] - _TIE).sum())
        return min(right, self.k) / self.k


def _cosines(
    rows: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    wide, one = rows.astype(np.float64), query.astype(np.float64)
    cosines: npt.NDArray[np.float64] = (wide @ one) / (
        np.linalg.norm(wide, axis=1) * np.linalg.norm(one)
    )
    return cosines
