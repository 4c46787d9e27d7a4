"""Shortlists of judged queries as adapters are fitted to them: what the engines share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.listed import DEPTH, LEAST_DEPTH, padded
from funnelvec.calibration.logistic import Floats

__all__ = ["best_of", "depth_of", "whole"]


def depth_of(keep: int | None) -> int:
    """Return how many rows of a last shortlist an adapter looks at; 0 where there are too few.

    Parameters
    ----------
    keep
        Rows that the funnel keeps before its last stage; None where it has one stage.
    """
    depth = min(DEPTH, keep or 0)
    return depth if depth >= LEAST_DEPTH else 0


def best_of(lists: Sequence[npt.ArrayLike], depth: int) -> Floats:
    """Return the `depth` best scores of each list, (n, depth), falling."""
    return np.stack([padded(each, depth) for each in lists])


def whole(lists: Sequence[npt.ArrayLike], keep: int) -> Floats:
    """Return all of each list in its order, (n, keep), NaN where it is shorter.

    So they are wanted where rows have hubs: a correction may bring any of them to the front.
    """
    found = np.full((len(lists), keep), np.nan)
    for place, each in enumerate(lists):
        values = np.asarray(each, dtype=np.float64)
        found[place, : len(values)] = values
    return found
