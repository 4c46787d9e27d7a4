"""Float codes: the normalised 16-bit prefix, and cosine in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cosine", "encode_f16"]

#: Numbers converted to double precision at a time, so that a large table needs little memory.
_BLOCK = 1 << 21


def encode_f16(prefix: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Divide (n, d) float32 rows by their norm and round to float16; zero rows stay zero.

    The order of roundings is Postgres's for ``l2_normalize(v)::halfvec``: norm in double
    precision, quotient to float32, then to float16, each to nearest even. Normalising first means
    that no finite component can exceed what float16 holds.
    """
    codes = np.empty(prefix.shape, dtype=np.float16)
    for rows in _blocks(prefix):
        wide = prefix[rows].astype(np.float64)
        norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        norms[norms == 0.0] = 1.0
        codes[rows] = (wide / norms).astype(np.float32).astype(np.float16)
    return codes


def cosine(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Cosine of a (d,) query with each of (n, d) rows, in double precision; NaN beside zero.

    Each row is summed by itself instead of through a matrix product: BLAS rounds a row
    differently depending on where in the matrix it stands, and equal rows must tie.
    """
    q = query.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        q = q / np.sqrt((q * q).sum())
        scores = np.empty(len(codes), dtype=np.float64)
        for rows in _blocks(codes):
            wide = codes[rows].astype(np.float64)
            scores[rows] = (wide * q).sum(axis=1) / np.sqrt((wide * wide).sum(axis=1))
    return np.clip(scores, -1.0, 1.0, out=scores)


def _blocks(array: npt.NDArray[Any]) -> list[slice]:
    rows = max(1, _BLOCK // max(1, array.shape[1]))
    return [slice(start, start + rows) for start in range(0, len(array), rows)]
