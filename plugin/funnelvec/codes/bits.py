"""Codes of bits: signs, or several levels per number; packed, compared by Hamming distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LEVELS", "balance", "encode", "encode_levels", "hamming", "levels", "score"]

#: What the numbers of a rotated vector of length 1 are compared with, times the root of its width:
#: they split a normal distribution into parts of the same weight.
LEVELS: dict[str, tuple[float, ...]] = {
    "bit2": (-0.43072729929545756, 0.43072729929545756),
    "bit3": (-0.6744897501960817, 0.0, 0.6744897501960817),
    "bit4": (-0.8416212335729143, -0.2533471031357997, 0.2533471031357997, 0.8416212335729143),
}

# np.bitwise_count needs numpy 2; a table of 256 entries does the same on every version.
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).sum(
    axis=1, dtype=np.int64
)


def levels(code: str) -> int:
    """How many bits a code has for each number."""
    return len(LEVELS.get(code, (0.0,)))


def encode(prefix: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pack the signs of (n, d) rows, the first in the highest bit; the last byte ends in zeros.

    A number greater than zero is 1; zero of either sign is 0.
    """
    return np.packbits(prefix > 0, axis=1)


def encode_levels(rotated: npt.NDArray[np.float32], code: str) -> npt.NDArray[np.uint8]:
    """Pack for each level which of (n, d) numbers are above it, level by level.

    The Hamming distance of two codes is the sum of the differences of their levels.
    """
    root = np.sqrt(np.float64(rotated.shape[1]))
    above = [rotated > np.float32(level / root) for level in LEVELS[code]]
    return np.packbits(np.concatenate(above, axis=1), axis=1)


def hamming(query: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Count the bits in which each of (n, b) codes differs from the (b,) query code."""
    distances: npt.NDArray[np.int64] = _ONES[codes ^ query].sum(axis=1)
    return distances


def score(
    query: npt.NDArray[Any], codes: npt.NDArray[Any], *, dims: int
) -> npt.NDArray[np.float64]:
    """``1 - 2 * hamming / dims`` of `dims` bits; for signs the cosine of the vectors of signs."""
    return 1.0 - 2.0 * hamming(query, codes) / dims


def balance(codes: npt.NDArray[Any], *, dims: int) -> float:
    """Mean over all bits of ``2 * min(p, 1 - p)``, p the share of ones among n >= 1 codes.

    1: every bit splits the rows in half. 0: every bit is constant, and the code tells nothing.
    """
    shares = np.unpackbits(codes, axis=1, count=dims).mean(axis=0)
    return float((2.0 * np.minimum(shares, 1.0 - shares)).mean())
