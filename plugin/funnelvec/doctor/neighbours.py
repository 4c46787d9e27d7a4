"""Exact nearest neighbours in a sample, by matrix products that stay small.

Every score is an inner product minus a constant of the row, so one product serves all metrics:
``<q, x>`` of unit vectors is the cosine, and ``<q, x> - |x|^2 / 2`` falls as the distance grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.codes import encode, is_bits
from funnelvec.codes.bits import levels
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Metric

__all__ = [
    "Matrix",
    "Places",
    "Rows",
    "Space",
    "nearest",
    "places",
    "product",
    "space",
    "space_of_code",
]

Matrix: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = npt.NDArray[np.intp]

#: Scores that are held at a time: 16 MB.
_SCORES = 1 << 22

_Block: TypeAlias = tuple[slice, Matrix]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Rows as a metric sees them.

    Attributes
    ----------
    points
        (n, d) float32.
    offsets
        (n,) float32, taken off every score; infinite for rows that no search finds.
    """

    points: Matrix
    offsets: Matrix

    def __len__(self) -> int:
        return len(self.points)

    def scores(self, queries: Rows, *, among: int | None = None) -> Matrix:
        """Score some rows, as queries, against all (or the first so many); itself is -inf."""
        width = len(self) if among is None else among
        found = product(self.points[queries], self.points[:width].T)
        found -= self.offsets[:width]
        inside = np.flatnonzero(queries < width)
        found[inside, queries[inside]] = -np.inf
        return found

    def in_blocks(self, queries: Rows, *, among: int | None = None) -> Iterator[_Block]:
        """Score many rows, some at a time."""
        size = max(1, _SCORES // max(1, len(self) if among is None else among))
        for start in range(0, len(queries), size):
            block = slice(start, start + size)
            yield block, self.scores(queries[block], among=among)

    def nearest(self, queries: Rows, k: int, *, among: int | None = None) -> Rows:
        """(m, k) numbers of the nearest rows, best first, the query itself left out."""
        found = np.empty((len(queries), k), np.intp)
        for block, scores in self.in_blocks(queries, among=among):
            found[block] = nearest(scores, k)
        return found

    def places(self, queries: Rows, truth: Rows, *, among: int | None = None) -> Places:
        """Where the (m, k) true neighbours of the queries stand here."""
        better, equal = np.empty(truth.shape, np.int64), np.empty(truth.shape, np.int64)
        for block, scores in self.in_blocks(queries, among=among):
            found = places(scores, truth[block])
            better[block], equal[block] = found.better, found.equal
        return Places(better, equal)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the true neighbours of each query stand in another order.

    Attributes
    ----------
    better
        (m, k): rows that stand before the neighbour.
    equal
        (m, k): rows that score the same, itself included; the database may put them in any
        order.
    """

    better: npt.NDArray[np.int64]
    equal: npt.NDArray[np.int64]

    def kept(self, keep: int) -> npt.NDArray[np.float64]:
        """(m,) share of the neighbours among the first `keep`, ties broken at random."""
        chance = (keep - self.better) / self.equal
        shares: npt.NDArray[np.float64] = np.clip(chance, 0.0, 1.0).mean(axis=1)
        return shares

    def keep_for(self, target: float) -> int:
        """The shortest list whose mean recall is at least `target`."""
        low: int = self.better.shape[1]
        high = int((self.better + self.equal).max())
        while low < high:
            middle = (low + high) // 2
            if self.kept(middle).mean() >= target:
                high = middle
            else:
                low = middle + 1
        return low


def product(left: Matrix, right: Matrix) -> Matrix:
    """Multiply matrices; some builds of BLAS warn of numbers that are in no operand."""
    with np.errstate(all="ignore"):
        found: Matrix = left @ right
    return found


def space(vectors: Matrix, metric: Metric) -> Space:
    """Make (n, d) vectors comparable; zero rows have no cosine and are hidden."""
    nothing = np.zeros(len(vectors), np.float32)
    if metric == "cosine":
        norms = _norms(vectors)
        with np.errstate(invalid="ignore"):
            points = _divided(vectors, np.where(norms > 0, norms, 1.0))
        return Space(points, np.where(norms > 0, 0, np.inf).astype(np.float32))
    if metric == "dot":
        return Space(_scaled(vectors), nothing)
    # Distances stay what they are wherever the origin lies, and near it float32 loses least.
    middle = vectors.mean(axis=0, dtype=np.float64)
    points = _scaled(vectors, middle)
    half = 0.5 * np.einsum("ij,ij->i", points, points, dtype=np.float64)
    return Space(points, half.astype(np.float32))


def space_of_code(
    resolution: Resolution, vectors: Matrix, metric: Metric, *, base: BaseCode
) -> Space:
    """Make the codes of a resolution comparable as its index compares them.

    A row whose float prefix is zero is in no HNSW index under cosine, so no search finds it.
    """
    codes = encode(resolution, vectors, metric=metric, base=base)
    if is_bits(resolution.code):
        # Of bits as 1 and -1 the inner product falls with the Hamming distance.
        count = resolution.dims * levels(resolution.code)
        signs = np.unpackbits(codes, axis=1, count=count).astype(np.float32) * 2 - 1
        return Space(signs, np.zeros(len(vectors), np.float32))
    return space(codes.astype(np.float32), metric)


def nearest(found: Matrix, k: int) -> Rows:
    """Numbers of the `k` best of (m, n) scores in each row, best first."""
    n = found.shape[1]
    top = np.argpartition(found, n - k, axis=1)[:, n - k :]
    order = np.argsort(-np.take_along_axis(found, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def places(found: Matrix, truth: Rows) -> Places:
    """Find the (m, k) true neighbours in (m, n) other scores."""
    n = found.shape[1]
    wanted = np.take_along_axis(found, truth, axis=1)
    # Sorting once is several times faster than comparing with each of the k in turn.
    rising = np.sort(found, axis=1)
    before, through = np.empty(truth.shape, np.int64), np.empty(truth.shape, np.int64)
    for row, (scores, each) in enumerate(zip(rising, wanted, strict=True)):
        before[row] = np.searchsorted(scores, each, side="left")
        through[row] = np.searchsorted(scores, each, side="right")
    return Places(better=n - through, equal=through - before)


def _norms(vectors: Matrix) -> npt.NDArray[np.float64]:
    norms: npt.NDArray[np.float64] = np.sqrt(
        np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    )
    return norms


def _divided(vectors: Matrix, by: npt.NDArray[np.float64]) -> Matrix:
    points = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), 1024):
        part = slice(start, start + 1024)
        points[part] = vectors[part] / by[part, np.newaxis]
    return points


def _scaled(vectors: Matrix, middle: npt.NDArray[np.float64] | None = None) -> Matrix:
    """Shift, then divide by the largest number: squares of large ones would overflow float32."""
    points = vectors.astype(np.float32) if middle is None else np.empty(vectors.shape, np.float32)
    largest = float(np.abs(vectors).max(initial=0.0)) or 1.0
    for start in range(0, len(vectors), 1024):
        part = slice(start, start + 1024)
        shifted = vectors[part] if middle is None else vectors[part] - middle
        points[part] = shifted / largest
    return points
