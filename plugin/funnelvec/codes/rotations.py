"""Random rotations: the numpy twin of the SQL functions of ``sql/parts/25_rotations.sql``.

A rotation is a name and a width: ``random`` has the seed 0, ``random1`` the seed 1, and so on. It
is orthogonal: rounds of sign flips, half sums and differences, and a cyclic shift of the sums
(after Ailon and Chazelle 2009, "The fast Johnson-Lindenstrauss transform"). All of it is done in
32-bit floats in the order in which the database does it, so that both agree to the last bit.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from funnelvec.errors import CapabilityError

__all__ = ["is_random", "rotate", "seed_of"]

#: Rows at a time, so that what the rounds work on stays in the processor's cache.
_BLOCK = 64

_RANDOM = re.compile(r"random([1-9][0-9]{0,8})?")


def is_random(rotation: str) -> bool:
    """Whether a name is of a random rotation, or would be if its number were one that is known."""
    return re.fullmatch("random[0-9]*", rotation) is not None


def seed_of(rotation: str) -> int:
    """Return the seed of a random rotation.

    Raises
    ------
    CapabilityError
        If it is of no kind that this version knows.
    """
    found = _RANDOM.fullmatch(rotation)
    if found is None:
        raise CapabilityError(
            f"the rotation {rotation!r} is none that this version knows, and none that was fitted; "
            "write random, or random1, random2, ... for others of its kind"
        )
    return int(found[1] or 0)


def rotate(rotation: str, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rotate vectors.

    Parameters
    ----------
    rotation
        Its name.
    x
        (n, d) float32.

    Returns
    -------
    (n, d) float32, of the same lengths and angles.
    """
    seed = seed_of(rotation)
    rotated = np.empty_like(x)
    for start in range(0, len(x), _BLOCK):
        rotated[start : start + _BLOCK] = _rotate(seed, x[start : start + _BLOCK])
    return rotated


def _rotate(seed: int, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    dims = x.shape[1]
    if dims == 1:
        return x * _signs(1, seed, 0)
    rounds, half = _rounds(dims), dims // 2
    # The scale is a power of two, and comes first so that nothing can overflow.
    x = x * (_signs(dims, seed, 0) * np.float32(2.0 ** (-rounds // 2)))
    left, right, waits = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
    for number in range(rounds):
        right = right * _signs(half, seed, 1 + number % 2)
        shift = max(1, half >> (number + 1)) if half > 1 else 0
        left, right = np.roll(left + right, -shift, axis=1), left - right
        if dims % 2:
            whole = np.concatenate([left, waits * np.float32(1.4142135)], axis=1)
            waits, left = whole[:, :1], whole[:, 1:]
    return np.concatenate([waits, left, right], axis=1)


def _rounds(dims: int) -> int:
    return 16 if dims > 8192 else 14 if dims > 2048 else 12


@lru_cache(maxsize=64)
def _signs(dims: int, seed: int, number: int) -> npt.NDArray[np.float32]:
    start = (seed * 1640531527 + number * 2654435769) & 0xFFFFFFFF
    mixed = (np.arange(dims, dtype=np.uint64) + np.uint64(start)) & _MASK
    for bits, factor in ((16, 569420461), (15, 1935289751)):
        mixed = ((mixed ^ (mixed >> np.uint64(bits))) * np.uint64(factor)) & _MASK
    mixed ^= mixed >> np.uint64(15)
    signs: npt.NDArray[np.float32] = np.where(mixed >> np.uint64(31), np.float32(1), np.float32(-1))
    signs.flags.writeable = False
    return signs


_MASK = np.uint64(0xFFFFFFFF)
