"""One fit: what is asked for, checked; the map; and what it is worth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from funnelvec.codes.floats import directions
from funnelvec.codes.maps import Chain, Kind, LinearMap, Rotation
from funnelvec.codes.rotations import is_random
from funnelvec.errors import InvalidInput
from funnelvec.fitting.axes import principal, quantized, random_orthogonal, sphering
from funnelvec.fitting.measure import KEEP, Trial, compare
from funnelvec.fitting.report import RotationReport
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Metric

__all__ = ["STEPS", "Wanted", "check_wanted", "fit"]

#: What `fit` tells of: the map, and at most so many comparisons.
STEPS = 6
#: Beyond this, the moments of the vectors alone take half a gigabyte, and the fit takes minutes.
_MOST_DIMS = 8192
#: Widest map that is kept: of more dimensions a code hardly ever pays.
_WIDEST = 1024
#: Queries that are held out, and least queries to measure with, or to fit sphering on.
_HELD_OUT, _LEAST = 500, 10

_Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A rotation that is asked for, checked by `check_wanted`."""

    name: str
    kind: Kind
    then: Chain | None
    width: int
    metric: Metric
    code: BaseCode
    seed: int


def check_wanted(
    *,
    name: Any,
    kind: Any,
    then: Any,
    width: Any,
    dims: int,
    metric: Metric,
    code: BaseCode,
    seed: int,
    queries: bool,
) -> Wanted:
    """Refuse what cannot be fitted before any row is read.

    Raises
    ------
    InvalidInput
        If an argument cannot be used.
    """
    Resolution(1, "f16", name)  # what a rotation may be called
    if name is None or is_random(name):
        raise InvalidInput(
            f"a fitted rotation cannot be called {name!r}: that is a random one, or none"
        )
    if not isinstance(kind, str) or kind not in get_args(Kind):
        raise InvalidInput(f"kind must be 'pca' or 'sphering', not {kind!r:.100}")
    if then is not None and not (isinstance(then, str) and then in get_args(Chain)):
        raise InvalidInput(f"then must be 'random', 'itq' or None, not {then!r:.100}")
    if kind == "sphering":
        _check_sphering(then, metric, queries)
    if dims > _MOST_DIMS:
        raise InvalidInput(f"rotations are fitted to {_MOST_DIMS} dimensions at most, not {dims}")
    if width is None:
        width = min(dims, 512)
    if isinstance(width, bool) or not isinstance(width, (int, np.integer)):
        raise InvalidInput(f"dims must be a whole number, not {width!r:.100}")
    if not 1 <= width <= min(dims, _WIDEST):
        raise InvalidInput(
            f"dims must be 1 to {min(dims, _WIDEST)}, what the rotation keeps of {dims}, not "
            f"{width!r:.100}"
        )
    checked = cast("Kind", kind), cast("Chain | None", then)
    return Wanted(name, *checked, int(width), metric, code, seed)


def _check_sphering(then: Any, metric: Metric, queries: bool) -> None:
    if then is not None:
        raise InvalidInput("sphering has two maps, whose signs say nothing; leave then out")
    if metric == "euclidean":
        raise InvalidInput("sphering keeps inner products and no distances; take kind='pca'")
    if not queries:
        raise InvalidInput(
            "sphering is fitted to the queries that are asked: pass queries=, such as those of "
            "logged_queries()"
        )


def fit(
    wanted: Wanted,
    sample: _Matrix,
    queries: _Matrix | None = None,
    *,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Rotation, RotationReport]:
    """Fit a rotation and measure it with queries that it was not fitted on.

    Parameters
    ----------
    sample
        (n, d) float32 rows in random order. Under cosine, rows that are zero are left out.
    queries
        (m, d) float32 or None: then some of the rows are held out.

    Raises
    ------
    InvalidInput
        If rows or queries are too few, or do not span as many dimensions as are asked for.
    """
    if wanted.metric == "cosine":
        sample = sample[sample.any(axis=1)]
        queries = None if queries is None else queries[queries.any(axis=1)]
    rows, asked, held = _split(wanted, sample, queries)
    rotation = _fitted(wanted, rows, asked)
    progress(1)
    done = iter(range(2, STEPS + 1))
    trial = Trial(rows, held, metric=wanted.metric, base=wanted.code)
    comparisons = compare(rotation, trial, tell=lambda: progress(next(done, STEPS)))
    progress(STEPS)
    return rotation, RotationReport(
        rotation=wanted.name,
        kind=wanted.kind,
        chain=rotation.chain,
        metric=wanted.metric,
        dims=rotation.dims,
        width=rotation.width,
        rows=rotation.rows,
        queries=rotation.queries,
        held_out=len(held),
        fitted_on=rotation.fitted_on,
        comparisons=tuple(comparisons),
    )


def _split(
    wanted: Wanted, sample: _Matrix, queries: _Matrix | None
) -> tuple[_Matrix, _Matrix, _Matrix]:
    """Rows and queries to fit on, and queries to measure with; nothing is among two of them."""
    if queries is None:
        count = min(_HELD_OUT, len(sample) // 5)
        held, rows, asked = sample[:count], sample[count:], sample[:0]
    else:
        mixed = queries[np.random.default_rng(wanted.seed).permutation(len(queries))]
        count = min(_HELD_OUT, len(mixed) // 2 if wanted.kind == "sphering" else len(mixed))
        held, rows = mixed[:count], sample
        asked = mixed[count:] if wanted.kind == "sphering" else mixed[:0]
    least = max(2 * wanted.width, 2 * KEEP)
    if len(rows) < least or (queries is None and count < _LEAST):
        raise InvalidInput(
            f"{len(sample):,} rows are too few to fit {wanted.width} dimensions; it takes "
            f"{_needed(least) if queries is None else least:,}: load more, raise sample, or ask "
            "for fewer dims"
        )
    if queries is not None and (len(held) < _LEAST or len(queries) < 2 * _LEAST):
        raise InvalidInput(
            f"{len(queries):,} queries are too few: half of them are to measure with; pass at "
            f"least {2 * _LEAST}"
        )
    return rows, asked, held


def _needed(least: int) -> int:
    """How many rows leave so many where the others are held out."""
    return min((5 * least - 1) // 4, least + _HELD_OUT)


def _fitted(wanted: Wanted, rows: _Matrix, asked: _Matrix) -> Rotation:
    # Under cosine lengths say nothing, so no row may count for more than another.
    seen, heard = (
        directions(part) if wanted.metric == "cosine" else part for part in (rows, asked)
    )
    query_map = None
    if wanted.kind == "sphering":
        of_queries, of_rows = sphering(seen, heard, wanted.width)
        query_map = LinearMap.rounded(of_queries)
    else:
        of_rows = principal(seen, wanted.width)
        if wanted.then == "random":
            of_rows = random_orthogonal(wanted.width, wanted.seed) @ of_rows
        elif wanted.then == "itq":
            of_rows = quantized(seen, of_rows, wanted.seed)
    digest = hashlib.sha256(rows.tobytes())
    digest.update(asked.tobytes())
    return Rotation(
        name=wanted.name,
        kind=wanted.kind,
        chain=wanted.then,
        metric=wanted.metric,
        row_map=LinearMap.rounded(of_rows),
        query_map=query_map,
        fitted_on=digest.hexdigest(),
        rows=len(rows),
        queries=len(asked),
    )
