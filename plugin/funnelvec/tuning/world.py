"""A sample of the table with its queries: exact answers, and exact orders by every code.

Everything is done in blocks of rows, so that beside the sample no more than one score for each
query and row is held for a resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.codes import Rotation, bits, compared_by, encode, is_bits, score
from funnelvec.codes.floats import directions
from funnelvec.codes.rotations import is_random
from funnelvec.fitting.axes import principal, random_orthogonal
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Metric

__all__ = ["LONGEST", "Axes", "World"]

Matrix: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = npt.NDArray[np.int64]

#: Longest shortlist that is looked at.
LONGEST = 1_500
_BLOCK = 8_192
#: Rows that axes are fitted to here; more of them change little and take their time.
_FIT = 5_000
#: Most dimensions that a fitted rotation keeps here.
_WIDEST = 512
#: Scores this near are a tie to databases, which add up products of float32.
_TIE = 1e-6


class Axes:
    """Rotations as this run would fit them, and those that the column has."""

    def __init__(self, rows: Matrix, *, metric: Metric, kept: Mapping[str, Rotation]) -> None:
        self._rows, self._metric, self._kept = rows[:_FIT], metric, kept
        self._principal: Matrix | None = None

    def apply(self, resolution: Resolution, x: Matrix, *, asked: bool) -> Matrix | None:
        """Map (n, d) vectors by the resolution's rotation, or None where it has no fitted one."""
        name = resolution.rotation
        if name is None or is_random(name):
            return None
        kept = self._kept.get(name)
        if kept is not None:
            return kept.apply(x, dims=resolution.dims, asked=asked)
        axes = self._axes(name, resolution.dims)
        lengths = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
        with np.errstate(all="ignore"):  # some builds of BLAS warn of what is in no operand
            mapped: Matrix = directions(x) @ axes.T
            mapped *= lengths[:, np.newaxis].astype(np.float32)
        return mapped

    def metric(self, resolution: Resolution) -> Metric:
        """What codes behind a resolution's rotation are compared by."""
        return compared_by(self._metric, self._kept.get(resolution.rotation or ""))

    def width(self) -> int:
        """Most dimensions that can be fitted to the sample."""
        return len(self._rows) // 3

    def _axes(self, name: str, dims: int) -> Matrix:
        if self._principal is None:
            seen = directions(self._rows) if self._metric == "cosine" else self._rows
            self._principal = principal(seen, min(self._rows.shape[1], _WIDEST)).astype(np.float32)
        found = self._principal[:dims]
        if not name.endswith("r"):
            return found
        turned: Matrix = random_orthogonal(dims, 0).astype(np.float32) @ found
        return turned


class World:
    """Rows, queries, their exact answers, and orders by codes.

    Parameters
    ----------
    rows, queries
        (n, d) and (m, d) float32.
    itself
        (m,) the row that a query is, left out of its own answer; -1 where it is none.
    less
        (n,) what is taken off the score of each row in the end, after the stages; None for nothing.
    least
        Rows that a funnel has to keep before its last stage.
    """

    def __init__(
        self, rows: Matrix, queries: Matrix, itself: Rows, *, base: Resolution, metric: Metric,
        k: int, axes: Axes, less: npt.NDArray[np.float64] | None = None, least: int = 0,
    ) -> None:  # fmt: skip
        self.rows, self.queries, self.itself = rows, queries, itself
        self.base, self.metric, self.k, self.axes = base, metric, k, axes
        self.less, self.least = less, least
        self.longest = min(LONGEST, len(rows) - 1)
        self._orders: dict[Resolution, Rows] = {}
        self._scores: dict[Resolution, Matrix] = {}
        self.truth, self.worst = self._answers()

    def __len__(self) -> int:
        return len(self.queries)

    def _answers(self) -> tuple[Rows, npt.NDArray[np.float64]]:
        """(m, k) exact neighbours, and the k-th score of each query in double precision."""
        count = min(len(self.rows) - 1, 2 * self.k + 50)
        near = _top(self._final(self._all(self.base)), count)
        truth, worst = np.empty((len(self), self.k), np.int64), np.empty(len(self))
        base = encode(self.base, self.queries, metric=self.metric)
        for i, some in enumerate(near):
            codes = encode(self.base, self.rows[some], metric=self.metric)
            exact = np.nan_to_num(score(self.base, base[i], codes, metric=self.metric), nan=-np.inf)
            exact -= 0.0 if self.less is None else self.less[some]
            exact[some == self.itself[i]] = -np.inf
            order = np.argsort(-exact, kind="stable")[: self.k]
            truth[i], worst[i] = some[order], exact[order[-1]]
        return truth, worst

    def right(self, query: int, scores: npt.NDArray[np.float64]) -> float:
        """Share of the exact top k among answers with these scores; ties with the k-th count."""
        worst = self.worst[query]
        found = int((scores >= worst - _TIE * max(1.0, abs(worst))).sum())
        return min(found, self.k) / self.k

    def order(self, resolution: Resolution) -> Rows:
        """(m, longest) rows, best first, as a full scan of the codes would return them."""
        if resolution not in self._orders:
            self._orders[resolution] = _top(self.scores(resolution), self.longest)
        return self._orders[resolution]

    def ranks(self, resolution: Resolution) -> Rows:
        """(m, k) places of the true neighbours in that order, `longest` for those beyond."""
        order = self.order(resolution)
        found = np.empty(self.truth.shape, np.int64)
        place = np.full(len(self.rows), self.longest, np.int64)
        for i, some in enumerate(order):
            place[some] = np.arange(len(some))
            found[i] = place[self.truth[i]]
            place[some] = self.longest
        return found

    def scores(self, resolution: Resolution) -> Matrix:
        """(m, n) scores by the codes of a resolution, higher is better."""
        if resolution not in self._scores:
            self._scores[resolution] = self._all(resolution)
        return self._scores[resolution]

    def forget(self, resolution: Resolution) -> None:
        """Let go of the scores; the order stays."""
        self._scores.pop(resolution, None)

    def growth(self, resolution: Resolution, recall: float) -> float:
        """How the list that holds a share of the true answers grows with the rows, as a power.

        Measured from a quarter of the sample to all of it; 0 is not at all, 1 as the rows.
        """
        quarter = len(self.rows) // 4
        if quarter <= 4 * self.k:
            return 0.0
        exact = self._final(self.scores(self.base))[:, :quarter]
        coded = self.scores(resolution)
        truth = _top(exact, self.k)
        wanted = np.take_along_axis(coded[:, :quarter], truth, axis=1)
        part = np.array(
            [[(row > each).sum() for each in found]
             for row, found in zip(coded[:, :quarter], wanted, strict=True)]
        )  # fmt: skip
        whole, less = (
            float(np.quantile(places + 1.0, recall)) for places in (self.ranks(resolution), part)
        )
        return float(np.clip(np.log(max(whole, 1.0) / max(less, 1.0)) / np.log(4.0), 0.0, 1.0))

    def _final(self, found: Matrix) -> Matrix:
        """Put rows into the order of answers: that of the column, less what is taken off."""
        if self.less is None:
            return found
        asked = self._points(self.base, self.queries, asked=True)
        with np.errstate(all="ignore"):
            if self.metric == "cosine":
                found = found / np.linalg.norm(asked, axis=1, keepdims=True)
            elif self.metric == "euclidean":
                asked = asked - self._centre(self.base)
                found = -np.sqrt(np.maximum((asked * asked).sum(axis=1)[:, None] - 2 * found, 0.0))
        ordered: Matrix = (found - self.less).astype(np.float32)
        return ordered

    def _centre(self, resolution: Resolution) -> Matrix:
        """What distances are taken from: they stay, and near the middle float32 loses least."""
        some = self._points(resolution, self.rows[:4096], asked=False)
        middle: Matrix = some.mean(axis=0, dtype=np.float64).astype(np.float32)
        return middle

    def _all(self, resolution: Resolution) -> Matrix:
        found = np.empty((len(self), len(self.rows)), np.float32)
        asked = self._points(resolution, self.queries, asked=True)
        metric = "dot" if is_bits(resolution.code) else self.axes.metric(resolution)
        centre = np.zeros(asked.shape[1], np.float32)
        if metric == "euclidean":
            centre = self._centre(resolution)
        for block, points in self._blocks(resolution):
            found[:, block] = _compared(asked, points, metric, centre)
        inside = np.flatnonzero(self.itself >= 0)
        found[inside, self.itself[inside]] = -np.inf
        return found

    def _blocks(self, resolution: Resolution) -> Iterator[tuple[slice, Matrix]]:
        for start in range(0, len(self.rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield block, self._points(resolution, self.rows[block], asked=False)

    def _points(self, resolution: Resolution, x: Matrix, *, asked: bool) -> Matrix:
        """Codes as numbers whose inner products or distances are those of the codes."""
        mapped = self.axes.apply(resolution, x, asked=asked)
        if mapped is not None:
            plain = Resolution(resolution.dims, resolution.code)
            coded = encode(plain, mapped, metric=self.axes.metric(resolution))
        else:
            base: BaseCode = "f16" if self.base.code == "f16" else "f32"
            coded = encode(resolution, x, metric=self.metric, base=base)
        if is_bits(resolution.code):
            count = resolution.dims * bits.levels(resolution.code)
            signs: Matrix = np.unpackbits(coded.view(np.uint8), axis=1, count=count).astype(
                np.float32
            )
            signs *= 2
            signs -= 1
            return signs
        return coded.astype(np.float32)


def _compared(asked: Matrix, points: Matrix, metric: Metric, centre: Matrix) -> Matrix:
    with np.errstate(all="ignore"):
        if metric == "cosine":
            lengths = np.sqrt(np.einsum("ij,ij->i", points, points, dtype=np.float64))
            found: Matrix = asked @ points.T
            found /= np.where(lengths > 0, lengths, 1.0).astype(np.float32)
            found[:, lengths == 0] = -np.inf
            return found
        if metric == "dot":
            found = asked @ points.T
            return found
        points = points - centre
        found = (asked - centre) @ points.T
        found -= 0.5 * np.einsum("ij,ij->i", points, points, dtype=np.float64).astype(np.float32)
        return found


def _top(scores: Matrix, count: int) -> Rows:
    """(m, count) columns of the best scores, best first."""
    n = scores.shape[1]
    found = np.empty((len(scores), count), np.int64)
    for i, row in enumerate(scores):
        best = np.argpartition(row, n - count)[n - count :] if count < n else np.arange(n)
        found[i] = best[np.argsort(-row[best], kind="stable")]
    return found
