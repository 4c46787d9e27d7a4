"""Whether cosine and inner product agree, and whether a cosine here is arbitrary.

Steck, Ekanadham & Kallus (2024): where a model is trained on inner products and regularised on
the product, every dimension may be scaled freely, and cosines can come out as anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.intervals import Bootstrap
from funnelvec.doctor.neighbours import Matrix, Rows, Space, space
from funnelvec.doctor.norms import Norms
from funnelvec.doctor.rows import K, Prepared
from funnelvec.doctor.values import Finding, Level, Range, digits, share

__all__ = ["Order", "describe", "measure", "spearman"]

_SCALES = 3
_SCALE_SD = 0.3
_AGREES, _DIFFERS = 0.95, 0.8
_ROBUST = 0.7
#: Rows that the whole order is compared on; the top ten is compared on all.
_RANKED = 1000


@dataclass(frozen=True, slots=True)
class Order:
    """Agreement of orders.

    Attributes
    ----------
    overlap, overlap_interval
        Mean share of the top ten by cosine that is also in the top ten by inner product.
    correlation
        Mean Spearman correlation of both orders, over up to 1,000 rows.
    rescaled, rescaled_interval
        Mean share of the top ten by cosine that stays when every dimension is scaled by
        exp(N(0, 0.3)): what a free scale would do.
    queries
        Queries that were asked.
    """

    overlap: float
    overlap_interval: Range
    correlation: float
    rescaled: float
    rescaled_interval: Range
    queries: int


def measure(rows: Prepared, directions: Space, bootstrap: Bootstrap) -> Order:
    """Compare the order by cosine with others."""
    asked = rows.queries[np.isfinite(directions.offsets[rows.queries])]
    places = np.flatnonzero(np.isfinite(directions.offsets[rows.queries]))
    dot = space(rows.vectors, "dot")
    by_cosine = directions.nearest(asked, K)
    shares = np.ones(len(rows.queries))  # zero rows have no order by cosine to disagree with
    shares[places] = _overlap(by_cosine, dot.nearest(asked, K))
    kept = np.ones(len(rows.queries))
    kept[places] = np.mean(
        [
            _overlap(by_cosine, _rescaled(directions.points, rows.rng).nearest(asked, K))
            for _ in range(_SCALES)
        ],
        axis=0,
    )
    among = min(_RANKED, len(rows.order))
    correlations = [
        spearman(directions.scores(block, among=among), dot.scores(block, among=among))
        for block in np.array_split(asked, max(1, len(asked) // 250))
    ]
    return Order(
        overlap=float(shares.mean()),
        overlap_interval=bootstrap.interval(shares, bounded=True),
        correlation=float(np.concatenate(correlations).mean()),
        rescaled=float(kept.mean()),
        rescaled_interval=bootstrap.interval(kept, bounded=True),
        queries=len(asked),
    )


def _rescaled(points: Matrix, rng: np.random.Generator) -> Space:
    scale = np.exp(rng.normal(0.0, _SCALE_SD, points.shape[1])).astype(np.float32)
    return space(points * scale, "cosine")


def _overlap(left: Rows, right: Rows) -> npt.NDArray[np.float64]:
    same = (left[:, :, np.newaxis] == right[:, np.newaxis, :]).any(axis=2)
    shares: npt.NDArray[np.float64] = same.mean(axis=1)
    return shares


def spearman(left: Matrix, right: Matrix) -> npt.NDArray[np.float64]:
    """(m,) rank correlation of the rows of two (m, n) arrays; ties in order of column.

    What is infinite in either (the query itself, a row that is hidden) ranks last in both.
    """
    out = ~(np.isfinite(left) & np.isfinite(right))
    ranks = []
    for scores in (left, right):
        falling = np.argsort(np.where(out, np.inf, -scores), axis=1, kind="stable")
        rank = np.empty(scores.shape)
        np.put_along_axis(rank, falling, np.arange(scores.shape[1], dtype=np.float64), axis=1)
        ranks.append(rank - rank.mean(axis=1, keepdims=True))
    product = (ranks[0] * ranks[1]).sum(axis=1)
    size = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    found: npt.NDArray[np.float64] = product / np.where(size > 0, size, 1.0)
    return found


def describe(found: Order, norms: Norms, rows: Prepared) -> Finding:
    """Say whether the metric matters, and whether a cosine can be trusted."""
    seen = (
        f"Cosine and dot agree in {share(found.overlap)} of the top 10 (rank correlation "
        f"{digits(found.correlation)}). Scaling every dimension at random keeps "
        f"{share(found.rescaled)} of the top 10 by cosine."
    )
    advice, level = _advice(found, norms, rows)
    return Finding(
        topic="order",
        title="Cosine and dot order",
        level=level,
        number=found.overlap,
        unit="share of the top 10 by cosine that dot finds too",
        interval=found.overlap_interval,
        basis=f"{found.queries:,} queries, {len(rows.order):,} different rows",
        found=seen,
        normal=(
            "1 for unit vectors. Where a model was trained on inner products, its cosines can be "
            "arbitrary (Steck et al. 2024): its training, not this figure, says which to use. "
            "The scaling shows how much would be at stake."
        ),
        advice=advice,
    )


def _advice(found: Order, norms: Norms, rows: Prepared) -> tuple[str, Level]:
    if found.overlap >= _AGREES:
        advice = "The metric hardly matters for the order; keep the one that you have."
        level: Level = "fine"
    else:
        advice = (
            f"Lengths differ by {share(norms.variation)}, and cosine and dot agree only in "
            f"{share(found.overlap)}: pick the metric that the model was trained with (its card "
            f"says so; this column uses {rows.metric})."
        )
        level = "problem" if found.overlap < _DIFFERS else "note"
    if found.rescaled < _ROBUST:
        advice += (
            " The order leans on the scale of single dimensions: if the model was trained on inner "
            "products without normalising (stored unit vectors do not show it), do not use cosine."
        )
        # Unit vectors are what models trained with cosine give, and most are.
        level = "note" if level == "fine" and norms.unit < 1 else level
    return advice, level
