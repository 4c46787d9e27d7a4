"""What engines share of ``measure_recall``: its arguments, its interval, its log.

SQL computes the same interval (``funnelvec._bootstrap``), number for number.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines.checks import check_k, check_matrix, check_positive
from funnelvec.engines.keys import plain
from funnelvec.errors import InvalidInput
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode

__all__ = ["bootstrap_interval", "check_log_arguments", "check_queries", "check_recall_arguments"]

_RESAMPLES = 1000
_DRAWS_AT_ONCE = 1 << 14  # 128 kB of numbers: what is worked with stays in the cache
_MASK = np.uint64(2**32 - 1)
_MOST = 100_000
_SHORTEST, _LONGEST = datetime.timedelta(seconds=1), datetime.timedelta(days=36_500)


def check_recall_arguments(
    *, sample: int | None, k: int, seed: int, funnel: Funnel, rows: int, given: int | None = None
) -> int:
    """Check the arguments of ``measure_recall`` and return how many queries to draw.

    Parameters
    ----------
    rows
        How many rows the table has, or two for "two or more".
    given
        How many queries were given; None if rows of the table are drawn.

    Raises
    ------
    InvalidInput
        If a number is out of range, the rows asked for cannot reach the last stage, or there is
        nothing to measure.
    """
    sample, k = 200 if sample is None and given is None else sample, check_positive(k, "k")
    sample = min(given or 1, _MOST) if sample is None else check_positive(sample, "sample")
    start: Any = plain(seed)
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < 2**31:
        raise InvalidInput(f"seed must be a whole number from 0 to {2**31 - 1}, not {seed!r}")
    keep = funnel.narrowest_keep
    if given is not None:
        check_k(k, funnel=funnel)
    elif keep is not None and k + 1 > keep:
        raise InvalidInput(
            f"k = {k} needs {k + 1} rows at the last stage of '{funnel}' (a sampled row finds "
            f"itself too), but {keep} reach it; ask for {keep - 1} or less"
        )
    if given == 0:
        raise InvalidInput("recall needs at least one query; give some, or leave queries out")
    if rows < 2:
        raise InvalidInput(f"recall needs at least two rows, the table has {rows}; add rows first")
    return sample


def check_log_arguments(
    *, share: float, keep_for: datetime.timedelta
) -> tuple[float, datetime.timedelta]:
    """Return the share of queries to log and how long to keep them.

    Raises
    ------
    InvalidInput
        If the share is not from 0 to 1, or the time not from a second to a hundred years.
    """
    value: Any = plain(share)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInput(f"share must be a number from 0 (no query) to 1 (all), not {value!r}")
    time: Any = keep_for
    if not isinstance(time, datetime.timedelta) or not _SHORTEST <= time <= _LONGEST:
        raise InvalidInput(
            f"keep_for must be a datetime.timedelta from a second to a hundred years, not {time!r}"
        )
    return float(value), time


def check_queries(queries: npt.ArrayLike, base: Resolution) -> npt.NDArray[np.float32]:
    """Return queries as (n, dims) float32, rounded to what the column holds; some may be zero.

    Raises
    ------
    InvalidInput
        If the shape is another, or a number is not finite.
    """
    try:
        given = len(np.asarray(queries))
    except Exception as error:  # numpy asks the object itself, which may answer with any error
        raise InvalidInput(f"queries are not an array of shape (n, {base.dims}): {error}") from None
    code: BaseCode = "f16" if base.code == "f16" else "f32"
    return check_matrix(queries, dims=base.dims, rows=given, code=code, directed=False)


def bootstrap_interval(shares: npt.NDArray[np.float64], *, seed: int) -> tuple[float, float]:
    """Return a 95 % interval for the mean of `shares`, by the percentile bootstrap.

    Parameters
    ----------
    shares
        (n,) float64, one figure per query, n >= 1.
    seed
        Any whole number; its lowest 32 bits count. The same seed gives the same interval, here and
        in SQL.

    Returns
    -------
    tuple of float
        Lower and upper limit: the 2.5 % and 97.5 % quantiles of the means of 1,000 samples of n,
        drawn with replacement.

    References
    ----------
    B. Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    n = len(shares)
    start = np.uint64((seed & int(_MASK)) * 1640531527)
    means = np.empty(_RESAMPLES)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for first in range(0, _RESAMPLES, at_once):
        last = min(first + at_once, _RESAMPLES)
        counters = start + np.arange(first * n, last * n, dtype=np.uint64)
        drawn = (_mixed(counters & _MASK) * np.uint64(n)) >> np.uint64(32)
        means[first:last] = shares[drawn].reshape(-1, n).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix 32-bit counters into 32-bit numbers that look random; a bijection."""
    # Multipliers below 2**31, so that the products fit the signed 64 bits that SQL has.
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(569420461)) & _MASK
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(1935289751)) & _MASK
    mixed: npt.NDArray[np.uint64] = x ^ (x >> np.uint64(15))
    return mixed
