"""Local intrinsic dimension: how fast the neighbourhood of a row fills up, per prefix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.intervals import Bootstrap
from funnelvec.doctor.neighbours import Matrix, Rows, space
from funnelvec.doctor.prefixes import widths
from funnelvec.doctor.rows import K, Prepared
from funnelvec.doctor.values import Finding, Range, digits
from funnelvec.types import Metric

__all__ = ["Lid", "Width", "describe", "from_distances", "measure"]

_NEIGHBOURS = 100
_HIGH = 30.0


@dataclass(frozen=True, slots=True)
class Width:
    """Local intrinsic dimension of one prefix: mean over queries, quartiles of the queries."""

    width: int
    mean: float
    interval: Range
    quartiles: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Lid:
    """Local intrinsic dimension by width, from so many neighbours of so many queries."""

    widths: tuple[Width, ...]
    neighbours: int
    queries: int


def measure(rows: Prepared, bootstrap: Bootstrap) -> Lid | None:
    """Estimate it for every prefix, in the distance that orders as the metric does.

    Under cosine that is the distance of unit vectors, each prefix made one of its own. None where
    no row has neighbours at different distances.
    """
    k = min(_NEIGHBOURS, max(K, len(rows.order) // 20))
    found = []
    for width in widths(rows.dims):
        values = _of_width(rows, width, k)
        usable = np.isfinite(values)
        if not usable.any():
            continue
        filled = np.where(usable, values, values[usable].mean())
        low, middle, high = map(float, np.percentile(filled, (25, 50, 75)))
        interval = bootstrap.interval(filled)
        found.append(Width(width, float(filled.mean()), interval, (low, middle, high)))
    if not found or found[-1].width < rows.dims:  # the full width is what the rest is held against
        return None
    return Lid(tuple(found), k, len(rows.queries))


def _of_width(rows: Prepared, width: int, k: int) -> npt.NDArray[np.float64]:
    """(m,) estimates for the queries; NaN where the prefix is zero or all is equally far."""
    # Inner products have no distance; the Euclidean one is what a graph index goes along.
    metric: Metric = "cosine" if rows.metric == "cosine" else "euclidean"
    seen = space(np.ascontiguousarray(rows.vectors[:, :width]), metric)
    hidden = ~np.isfinite(seen.offsets)
    values = from_distances(_distances(seen.points, rows.queries, seen.nearest(rows.queries, k)))
    values[hidden[rows.queries]] = np.nan
    return values


def _distances(points: Matrix, queries: Rows, near: Rows) -> npt.NDArray[np.float64]:
    """(m, k) distances, from differences: ``2 - 2 cos`` would lose what tells neighbours apart."""
    found = np.empty(near.shape)
    size = max(1, (1 << 22) // (near.shape[1] * points.shape[1]))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        apart = points[near[part]] - points[queries[part], np.newaxis]
        found[part] = np.sqrt(np.einsum("ijk,ijk->ij", apart, apart))
    found.sort(axis=1)
    return found


def from_distances(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Maximum likelihood estimate (Amsaleg et al. 2015) from (m, k) distances, nearest first.

    ``-1 / mean(ln(r_i / r_k))``. Distances of zero are left out; NaN where nothing is left or all
    neighbours are equally far.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(distances / distances[:, -1:])
        there = np.isfinite(logs)
        means = np.where(there, logs, 0.0).sum(axis=1) / there.sum(axis=1)
        estimates: npt.NDArray[np.float64] = -1.0 / means
    estimates[~np.isfinite(estimates)] = np.nan
    return estimates


def describe(found: Lid, rows: Prepared) -> Finding:
    """Say how hard the neighbourhoods are for a graph index."""
    full = found.widths[-1]
    low, _, high = full.quartiles
    seen = (
        f"Around a typical row the data has {digits(full.mean)} dimensions (half of the queries: "
        f"{digits(low)} to {digits(high)})."
    )
    if len(found.widths) > 2:
        narrow = found.widths[(len(found.widths) - 1) // 2]
        seen += f" Prefix {narrow.width} has {digits(narrow.mean)}."
    hard = full.mean > _HIGH
    advice = (
        "Hard for HNSW: build with m = 32 and ef_construction = 200 or more, keep more rows in the "
        "first stage, and compare with exact search by measure_recall(). Rows loaded in falling "
        "order of this figure are said to give the better graph (Elliott & Clark 2024)."
        if hard
        else "The default index is a good start. A first stage with a lower figure can do with a "
        "shorter list."
    )
    return Finding(
        topic="lid",
        title="Local intrinsic dimension",
        level="note" if hard else "fine",
        number=full.mean,
        unit=f"dimensions, from {found.neighbours} neighbours",
        interval=full.interval,
        basis=f"{found.queries:,} queries, {len(rows.order):,} different rows",
        found=seen,
        normal=(
            "Far below the width: 13 to 39 on the sets of docs/doctor.md. HNSW finds less where it "
            "is higher, and the order of insertion moves recall by up to 12 points (Elliott & "
            "Clark 2024); no study names a limit, 30 is ours."
        ),
        advice=advice,
    )
