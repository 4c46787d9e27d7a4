"""How sure a figure is: intervals of 95 % for means over queries, for shares and for counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.values import Range

__all__ = ["Bootstrap", "poisson", "wilson"]

_DRAWS = 1000
_Z = 1.959963984540054


class Bootstrap:
    """Means of per-query values, drawn again with replacement; the same draws for every value.

    Parameters
    ----------
    queries
        How many queries the values belong to.
    rng
        Where the draws come from.
    """

    def __init__(self, queries: int, rng: np.random.Generator) -> None:
        self._queries = queries
        drawn = rng.multinomial(queries, np.full(queries, 1 / queries), size=_DRAWS)
        self._weights = drawn.astype(np.float32) / queries

    def interval(self, values: npt.NDArray[Any], *, bounded: bool = False) -> Range:
        """95 % percentile interval of the mean of (queries,) values.

        Parameters
        ----------
        bounded
            Whether the values are shares in [0, 1]. Where all of them are at one end the draws
            say nothing, and the rule of three does: with 0 of m queries seen to differ, the
            share of those that do is below 3 / m.
        """
        low, high = np.percentile(
            np.einsum("ij,j->i", self._weights, values.astype(np.float32)), (2.5, 97.5)
        )
        if bounded and values.min() == values.max() == 1:
            return max(0.0, 1 - 3 / self._queries), 1.0
        if bounded and values.min() == values.max() == 0:
            return 0.0, min(1.0, 3 / self._queries)
        return float(low), float(high)


def wilson(hits: int, total: int) -> Range:
    """Interval of a share (Wilson 1927): `hits` of `total` independent rows."""
    if total == 0:
        return 0.0, 1.0
    p, zz = hits / total, _Z * _Z / total
    middle = (p + zz / 2) / (1 + zz)
    half = _Z * math.sqrt(p * (1 - p) / total + zz / (4 * total)) / (1 + zz)
    return max(0.0, middle - half), min(1.0, middle + half)


def poisson(count: int) -> Range:
    """Interval of the mean of a count, by Byar's approximation to the exact limits."""
    above = count + 1
    high = above * (1 - 1 / (9 * above) + _Z / (3 * math.sqrt(above))) ** 3
    if count == 0:
        return 0.0, high
    low = count * (1 - 1 / (9 * count) - _Z / (3 * math.sqrt(count))) ** 3
    return max(0.0, low), high
