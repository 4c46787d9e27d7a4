"""Sign codes: one bit per number, packed eight to a byte, compared by Hamming distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["balance", "encode", "hamming", "score"]

# np.bitwise_count needs numpy 2; a table of 256 entries does the same on every version.
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).sum(
    axis=1, dtype=np.int64
)


def encode(prefix: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pack the signs of (n, d) rows, the first in the highest bit; the last byte ends in zeros.

    A number greater than zero is 1; zero of either sign is 0.
    """
    return np.packbits(prefix > 0, axis=1)


def hamming(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Count the bits in which each of (n, b) codes differs from the (b,) query code."""
    distances: npt.NDArray[np.int64] = _ONES[codes ^ query].sum(axis=1)
    return distances


def score(
    query: npt.NDArray[Any], codes: npt.NDArray[Any], *, dims: int
) -> npt.NDArray[np.float64]:
    """``1 - 2 * hamming / dims``: the cosine of the vectors of signs, in [-1, 1]."""
    return 1.0 - 2.0 * hamming(query, codes) / dims


def balance(codes: npt.NDArray[Any], *, dims: int) -> float:
    """Mean over all bits of ``2 * min(p, 1 - p)``, p the share of ones among n >= 1 codes.

    1: every bit splits the rows in half. 0: every bit is constant, and the code tells nothing.
    """
    shares = np.unpackbits(codes, axis=1, count=dims).mean(axis=0)
    return float((2.0 * np.minimum(shares, 1.0 - shares)).mean())
