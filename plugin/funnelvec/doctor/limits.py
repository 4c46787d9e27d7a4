"""Numbers that can be asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from funnelvec.errors import InvalidInput

__all__ = ["check", "check_whole"]

_MOST_ROWS, _MOST_QUERIES, _MOST_SEEDS = 1_000_000, 20_000, 2**31 - 1


def check(*, sample: Any, queries: Any = 10, seed: Any, least: int = 2) -> tuple[int, int, int]:
    """Return the three numbers of a diagnosis as plain ones.

    Raises
    ------
    InvalidInput
        If one is not a whole number, or out of range.
    """
    return (
        check_whole(sample, "sample", least, _MOST_ROWS),
        check_whole(queries, "queries", 10, _MOST_QUERIES),
        check_whole(seed, "seed", 0, _MOST_SEEDS),
    )


def check_whole(value: Any, name: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`.

    Raises
    ------
    InvalidInput
        If it is something else.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise InvalidInput(
            f"{name} must be a whole number from {low:,} to {high:,}, not {value!r:.50}"
        )
    return int(value)
