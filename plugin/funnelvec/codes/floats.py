"""Float codes: 16-bit prefixes, and the three metrics in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["cosine", "directions", "dot", "encode_direction", "encode_saturated", "euclidean"]

#: Numbers converted to double precision at a time, so that a large table needs little memory.
_BLOCK = 1 << 21

#: The largest float16: a vector of at most this length has no component that overflows.
_LONGEST = 65504.0

_Wide: TypeAlias = npt.NDArray[np.float64]


def encode_direction(prefix: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Divide (n, d) float32 rows by their norm and round to float16; zero rows stay zero.

    The order of roundings is Postgres's for ``l2_normalize(v)::halfvec``: norm in double
    precision, quotient to float32, then to float16, each to nearest even. Normalising first means
    that no finite component can exceed what float16 holds.
    """
    codes = np.empty(prefix.shape, dtype=np.float16)
    for rows in _blocks(prefix):
        codes[rows] = _directions(prefix[rows], _norms(prefix[rows])).astype(np.float16)
    return codes


def encode_saturated(prefix: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Round (n, d) float32 rows to float16; rows longer than 65504 are shortened to that first.

    Lengths count under dot and euclidean, so they are kept while float16 can hold them; beyond
    that the direction is kept. The roundings are those of Postgres for
    ``(l2_normalize(v) * 65504)::halfvec``: after the quotient and after the product to float32.
    """
    codes = np.empty(prefix.shape, dtype=np.float16)
    for rows in _blocks(prefix):
        norms = _norms(prefix[rows])
        shortened = _directions(prefix[rows], norms) * np.float32(_LONGEST)
        codes[rows] = np.where(norms <= _LONGEST, prefix[rows], shortened).astype(np.float16)
    return codes


def cosine(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> _Wide:
    """Cosine of a (d,) query with each of (n, d) rows, in double precision; NaN beside zero."""
    q = query.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        q = q / np.sqrt((q * q).sum())
        scores = _by_blocks(
            codes, lambda wide: (0.0 + (wide * q).sum(axis=1)) / np.sqrt((wide * wide).sum(axis=1))
        )
    return np.clip(scores, -1.0, 1.0, out=scores)


def dot(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> _Wide:
    """Inner product of a (d,) query with each of (n, d) rows, in double precision."""
    q = query.astype(np.float64)
    # 0 + x: a sum of nothing but -0 is -0 here and 0 in Postgres, which prints otherwise.
    return _by_blocks(codes, lambda wide: 0.0 + (wide * q).sum(axis=1))


def euclidean(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> _Wide:
    """Negative Euclidean distance of a (d,) query to each of (n, d) rows, in double precision."""
    q = query.astype(np.float64)
    # 0 - x and not -x: the score of equal vectors is 0, and prints as that.
    return _by_blocks(codes, lambda wide: 0.0 - np.sqrt(((wide - q) ** 2).sum(axis=1)))


def directions(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Divide (n, d) float32 rows by their norm, as ``l2_normalize`` does; zero rows stay zero."""
    found = np.empty_like(rows)
    for some in _blocks(rows):
        found[some] = _directions(rows[some], _norms(rows[some]))
    return found


def _norms(prefix: npt.NDArray[np.float32]) -> _Wide:
    wide = prefix.astype(np.float64)
    norms: _Wide = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return norms


def _directions(prefix: npt.NDArray[np.float32], norms: _Wide) -> npt.NDArray[np.float32]:
    directions = prefix.astype(np.float64) / np.where(norms == 0.0, 1.0, norms)
    directions[norms[:, 0] == 0.0] = 0.0  # of either sign, as in Postgres
    return directions.astype(np.float32)


def _by_blocks(codes: npt.NDArray[Any], score: Callable[[_Wide], _Wide]) -> _Wide:
    """Score rows of codes, some at a time.

    Each row is summed by itself instead of through a matrix product: BLAS rounds a row
    differently depending on where in the matrix it stands, and equal rows must tie.
    """
    scores = np.empty(len(codes), dtype=np.float64)
    for rows in _blocks(codes):
        scores[rows] = score(codes[rows].astype(np.float64))
    return scores


def _blocks(array: npt.NDArray[Any]) -> list[slice]:
    rows = max(1, _BLOCK // max(1, array.shape[1]))
    return [slice(start, start + rows) for start in range(0, len(array), rows)]
