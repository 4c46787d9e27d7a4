"""Cosines of random pairs: what a cosine is worth that two unrelated rows have anyway."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.neighbours import Matrix, Rows, Space
from funnelvec.doctor.rows import Prepared
from funnelvec.doctor.values import Finding, Histogram, Range, counted, digits

__all__ = ["Pairs", "cosines", "describe", "mean_cosine", "measure"]

_DRAWN = 200_000
_NARROW = 0.5


@dataclass(frozen=True, slots=True)
class Pairs:
    """Cosines between rows.

    Attributes
    ----------
    mean, mean_interval
        Mean over all pairs of different rows, with its 95 % interval.
    sd, high, drawn
        Standard deviation, and the cosine that one of a hundred random pairs exceeds, over so
        many pairs.
    neighbour
        Median cosine of a row and its nearest neighbour; None with too few rows.
    histogram, neighbours
        Of random pairs, and of nearest neighbours.
    """

    mean: float
    mean_interval: Range
    sd: float
    high: float
    drawn: int
    neighbour: float | None
    histogram: Histogram
    neighbours: Histogram | None


def measure(rows: Prepared, directions: Space, *, with_neighbours: bool) -> Pairs:
    """Measure cosines.

    Parameters
    ----------
    directions
        The different rows as unit vectors, zero rows hidden; at least two are not zero.
    with_neighbours
        Whether there are enough rows for neighbours.
    """
    points = directions.points[np.isfinite(directions.offsets)]
    mean, error = mean_cosine(points)
    count = len(points)
    left = rows.rng.integers(0, count, _DRAWN)
    right = (left + rows.rng.integers(1, count, _DRAWN)) % count  # never the row itself
    drawn = cosines(points, left, right)
    near = None
    if with_neighbours:
        near = cosines(directions.points, rows.queries, rows.truth[:, 0])
    return Pairs(
        mean=mean,
        mean_interval=(max(-1.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)),
        sd=float(drawn.std()),
        high=float(np.percentile(drawn, 99)),
        drawn=_DRAWN,
        neighbour=None if near is None else float(np.median(near)),
        histogram=Histogram.of(drawn),
        neighbours=None if near is None else Histogram.of(near, bins=25),
    )


def mean_cosine(points: Matrix) -> tuple[float, float]:
    """Mean cosine over all pairs of (n, d) unit vectors, and its standard error.

    No pair has to be formed: the sum over all pairs is the squared length of the sum of the
    rows, less n. The error is that of a U-statistic: rows are what was drawn, not pairs.
    """
    n = len(points)
    total = points.sum(axis=0, dtype=np.float64)
    per_row = (np.einsum("ij,j->i", points, total) - 1.0) / (n - 1)
    return float(per_row.mean()), 2.0 * float(per_row.std(ddof=1)) / float(np.sqrt(n))


def cosines(points: Matrix, left: Rows, right: Rows) -> npt.NDArray[np.float64]:
    """Cosines of pairs of rows of (n, d) unit vectors, some at a time."""
    found = np.empty(len(left))
    size = max(1, (1 << 21) // points.shape[1])
    for start in range(0, len(left), size):
        part = slice(start, start + size)
        found[part] = np.einsum("ij,ij->i", points[left[part]], points[right[part]])
    return np.clip(found, -1.0, 1.0)


def describe(found: Pairs, rows: Prepared) -> Finding:
    """Say from which cosine on two rows are more alike than chance makes them."""
    narrow = found.mean > _NARROW
    seen = (
        f"Two random rows have a cosine of {digits(found.mean)} on average, and one pair in a "
        f"hundred exceeds {digits(found.high)}."
    )
    if found.neighbour is not None:
        seen += f" A row and its nearest neighbour have {digits(found.neighbour)} (median)."
    hidden = found.neighbour is not None and found.neighbour < found.high
    if hidden:
        advice = (
            "Half of the nearest neighbours are no closer than chance: no fixed cosine separates "
            "relevant from random here. Calibrate, and cut off by min_relevance."
        )
    elif narrow:
        advice = (
            f"All cosines are high, so a cutoff such as 0.7 keeps everything. Set none below "
            f"{digits(found.high)}; better, calibrate and cut off by min_relevance. Order does not "
            "suffer."
        )
    else:
        advice = (
            f"A cosine below {digits(found.high)} means nothing. Above it, only calibrate() says "
            "what it means."
        )
    return Finding(
        topic="pairs",
        title="Cosine of random pairs",
        level="problem" if hidden else "note" if narrow else "fine",
        number=found.mean,
        unit="mean cosine of two random rows",
        interval=found.mean_interval,
        basis=f"all pairs of {counted(len(rows.order), 'different row')}",
        found=seen,
        normal=(
            f"0 with a spread of {digits(1 / np.sqrt(rows.dims))} if directions were spread evenly "
            f"over {rows.dims} dimensions; here the spread is {digits(found.sd)}. Sentence models "
            "trained by contrast lie near 0 to 0.3; raw language models up to 0.99 (Ethayarajh "
            "2019)."
        ),
        advice=advice,
    )
