"""Codes of one byte a number: directions on a grid that is the same for all vectors of a width.

The grid reaches from -1 to 1 for vectors of up to 64 numbers, and from ``-8 / sqrt(d)`` to
``8 / sqrt(d)`` for wider ones, eight times what numbers of a direction are on average; what lies
beyond is cut to it. A grid that no data has a part in makes equal codes on every engine, and codes
of different days can be compared. Two codes are compared by the distance of their grid points, in
whole numbers, so that nothing is rounded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.codes import floats

__all__ = ["encode", "scale", "score", "similarity"]

_LARGEST = 127
#: Rows that are compared at a time.
_BLOCK = 4096


def scale(dims: int) -> float:
    """Steps of the grid in a length of 1."""
    return _LARGEST / min(1.0, 8.0 / math.sqrt(dims))


def encode(prefix: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Put the directions of (n, d) rows on the grid; zero rows stay zero."""
    steps = floats.directions(prefix).astype(np.float64) * scale(prefix.shape[1])
    return np.clip(np.rint(steps), -_LARGEST, _LARGEST).astype(np.int8)


def score(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """``1 - distance ** 2 / 2`` of a (d,) code to each of (n, d) codes, in [-1, 1].

    For directions that is the cosine, so it is the cosine up to rounding to the grid. NaN where a
    code is zero, which no direction is.
    """
    asked, squares = query.astype(np.int32), np.empty(len(codes), np.float64)
    for start in range(0, len(codes), _BLOCK):
        part = codes[start : start + _BLOCK].astype(np.int32) - asked
        squares[start : start + _BLOCK] = (part * part).sum(axis=1)
    found = similarity(squares, codes.shape[1])
    return np.where(codes.any(axis=1) & bool(query.any()), found, np.nan)


def similarity(squares: npt.NDArray[np.float64], dims: int) -> npt.NDArray[np.float64]:
    """Turn squared distances in steps into scores."""
    return np.clip(1.0 - squares / (2.0 * scale(dims) ** 2), -1.0, 1.0)
